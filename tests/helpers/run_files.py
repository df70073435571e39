"""Functions that train a run, read its files and vary its config."""

import dataclasses

import jax
import numpy as np

from skinseg_jax.data import input_pipeline
from skinseg_jax.run import checkpointing, run_folder
from skinseg_jax.training import experiment, train_state


def train(config, workdir):
  """Trains as the command main does; scores and reports nothing at the end."""
  with experiment.prepared(config, workdir) as prepared:
    experiment.train(prepared)


def checkpoint(workdir, config):
  """Model, optimiser and data position of the last checkpoint, in numpy."""
  state = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  ).state
  checkpoints = checkpointing.Checkpoints(run_folder.checkpoints_dir(workdir))
  like = checkpointing.Checkpoint(state[0], state[1], None, None)
  step, checkpoint = checkpoints.restore_latest(like)
  checkpoints.close()
  leaves = jax.tree.leaves((checkpoint.model, checkpoint.optimizer))
  return step, [np.asarray(leaf) for leaf in leaves], checkpoint.data


def changed(config, **fields):
  return dataclasses.replace(
    config, train=dataclasses.replace(config.train, **fields)
  )
