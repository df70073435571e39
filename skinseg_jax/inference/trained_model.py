"""Loads a model with the config of its run, or several models as one."""

import copy
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.data import input_pipeline
from skinseg_jax.inference import forward_pass, model_interface
from skinseg_jax.models import build
from skinseg_jax.run import checkpointing, run_folder
from skinseg_jax.runtime import errors
from skinseg_jax.weights import model_folder, shared_model


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
  """A model with all that is needed to predict.

  Attributes:
    config: Config of the run; it says how images are prepared.
    graphdef: Static structure of the model, in evaluation mode.
    state: Its parameters and running statistics.
    step: Number of updates made.
    best: `step` and `dice` of the checkpoint with the best pooled validation
      Dice; None if no checkpoint was scored.
    local: Whether it lies on the devices of this process only.
  """

  config: config_lib.Config
  graphdef: nnx.GraphDef
  state: Any
  step: int
  best: dict[str, Any] | None
  local: bool = False

  @property
  def members(self) -> 'tuple[TrainedModel]':
    """Only itself."""
    return (self,)

  @property
  def sharding(self) -> jax.sharding.NamedSharding:
    """How a batch is laid out over the devices."""
    return input_pipeline.data_sharding(local=self.local)

  def logits(self, images: jax.Array) -> jax.Array:
    """Predicts a batch; uint8 [B, H, W, 3] to float32 [B, H, W, 1]."""
    return forward_pass.forward(
      self.graphdef,
      self.state,
      images,
      views=self.config.evaluation.test_time_augmentation,
    )

  def each_view(
    self, images: jax.Array, *, several: bool
  ) -> forward_pass.Views:
    """Predicts views of a batch, uint8 [B, H, W, 3].

    Args:
      images: The batch.
      several: Whether a model that averages no views takes as many as it can:
        eight, or four where its input is not square.
    """
    views = self.config.evaluation.test_time_augmentation
    if several and views == 'off':
      height, width = self.config.data.image_size
      views = 'dihedral' if height == width else 'flips'
    return forward_pass.each_view(
      self.graphdef, self.state, images, views=views
    )

  def on_this_process(self) -> 'TrainedModel':
    """The model on the devices of this process: it predicts without the others.

    All processes have to call this.
    """
    if jax.process_count() == 1:
      return self
    local = dataclasses.replace(self, local=True)
    everywhere = jax.sharding.NamedSharding(
      local.sharding.mesh, jax.sharding.PartitionSpec()
    )
    put = lambda leaf: jax.device_put(np.asarray(leaf), everywhere)
    return dataclasses.replace(local, state=jax.tree.map(put, self.state))

  def fingerprint(self) -> str:
    """SHA-256 of the network and its weights; equal where predictions are."""
    return self._digest_as(None)

  def identity(self) -> dict[str, Any]:
    """What the Dice of its masks depends on, as `review.json` keeps it.

    The weights count in float16: `export` writes kernels so, and the model that
    it writes is the same one.
    """
    return {
      'step': self.step,
      'weights': self._digest_as(np.float16),
      'image_size': list(self.config.data.image_size),
      'views': self.config.evaluation.test_time_augmentation,
      'threshold': self.config.evaluation.threshold,
    }

  def _digest_as(self, dtype: type[np.floating] | None) -> str:
    """SHA-256 of the network and its weights, in this type or as they are."""
    network = dataclasses.asdict(self.config.model)
    for name in ('encoder_weights', 'initializer'):  # What they began with.
      del network[name]
    digest = hashlib.sha256(json.dumps(network, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(self.state):
      digest.update(jax.tree_util.keystr(path).encode())
      with np.errstate(over='ignore'):
        digest.update(np.ascontiguousarray(leaf, dtype).tobytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Ensemble:
  """Several models as one: the mean of their probabilities; see `ensemble`.

  The models may be different networks with different input sizes. Each takes
  the picture at its own size, as it does alone.

  Attributes:
    members: The models, in the order of their fingerprints: the same models
      give the same bits, in whatever order they were named.
    config: That of the first one, with the largest height and width of all
      members as `data.image_size`: the size at which the mean is taken.
  """

  members: Sequence[model_interface.Model]
  config: config_lib.Config

  @property
  def step(self) -> int:
    """The largest number of updates that a member was trained for."""
    return max(member.step for member in self.members)

  @property
  def sharding(self) -> jax.sharding.NamedSharding:
    """How a batch is laid out over the devices."""
    return self.members[0].sharding

  def on_this_process(self) -> 'Ensemble':
    """The members on the devices of this process only."""
    members = [member.on_this_process() for member in self.members]
    return dataclasses.replace(self, members=members)

  def fingerprint(self) -> str:
    """SHA-256 of all members, their input sizes and views."""
    return _digest([_about(member) for member in self.members])


def load(workdir: pathlib.Path, checkpoint: str) -> TrainedModel:
  """Loads a model from a folder without changing the folder.

  Args:
    workdir: Folder of a run, or of one model (`weights.model_folder`).
    checkpoint: 'best' (by validation Dice), 'last', or a step. A folder of one
      model has only one: 'best', 'last' and its step all mean it.

  Raises:
    InputError: If `workdir` is neither, or if the checkpoint does not exist, is
      damaged, or does not fit the model of the config.
  """
  config = config_lib.load(workdir / 'config.json')
  config_rules.validate(config)
  if shared_model.is_one(workdir):
    return _from_model_folder(workdir, config, checkpoint)
  checkpoints = checkpointing.Checkpoints(
    run_folder.checkpoints_dir(workdir), read_only=True
  )
  try:
    step = checkpoints.resolve(checkpoint)
    # Shapes only: a wrong size in the config must not allocate memory.
    graphdef, like = build.abstract(
      config.model, input_pipeline.data_sharding()
    )
    state = checkpoints.restore_model(step, like)
    best = best_checkpoint(checkpoints)
  finally:
    checkpoints.close()
  return TrainedModel(config, graphdef, state, step, best)


def _from_model_folder(
  folder: pathlib.Path, config: config_lib.Config, checkpoint: str
) -> TrainedModel:
  graphdef, like = build.abstract(config.model, input_pipeline.data_sharding())
  state, step = model_folder.read(folder, nnx.merge(graphdef, like))
  if checkpoint not in ('best', 'last', str(step)):
    raise errors.InputError(
      f'{folder} holds one model, of step {step}; leave --checkpoint'
      f' {checkpoint} out.'
    )
  return TrainedModel(config, graphdef, state, step, None)


def best_checkpoint(
  checkpoints: checkpointing.Checkpoints,
) -> dict[str, Any] | None:
  """`step` and `dice` of the best checkpoint; None if none was scored."""
  step = checkpoints.best_step()
  if step is None:  # For example, imported weights.
    return None
  dice = checkpoints.metrics(step)[checkpointing.BEST_METRIC]
  return {'step': step, 'dice': dice}


def ensemble(models: Sequence[model_interface.Model]) -> Ensemble:
  """Makes several models one.

  Args:
    models: At least one, with one threshold.

  Raises:
    InputError: If the models differ in their threshold.
  """
  values = sorted({model.config.evaluation.threshold for model in models})
  if len(values) > 1:
    raise errors.InputError(
      'the models of an ensemble must have one evaluation.threshold; these have'
      f' {", ".join(map(str, values))}. Predict with those of one threshold.'
    )
  members = sorted(models, key=lambda model: _digest(_about(model)))
  config = copy.deepcopy(members[0].config)
  heights, widths = zip(
    *(member.config.data.image_size for member in members), strict=True
  )
  config.data.image_size = (max(heights), max(widths))
  return Ensemble(members, config)


def load_all(
  folders: Sequence[pathlib.Path], checkpoint: str
) -> model_interface.AnyModel:
  """Loads the model of one folder, or those of several as one.

  Args:
    folders: Folders of runs or of shared models.
    checkpoint: 'best', 'last' or a step, of each of them.

  Raises:
    InputError: As for `load` and `ensemble`.
  """
  models = [load(folder, checkpoint) for folder in folders]
  return models[0] if len(models) == 1 else ensemble(models)


def _about(model: model_interface.Model) -> list:
  """What the probabilities of a member depend on."""
  return [
    model.fingerprint(),
    list(model.config.data.image_size),
    model.config.evaluation.test_time_augmentation,
  ]


def _digest(value: list) -> str:
  return hashlib.sha256(json.dumps(value).encode()).hexdigest()
