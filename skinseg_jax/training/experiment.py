"""Prepares an experiment and trains it to its last epoch."""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.data import cache, input_pipeline, mask_checks, splits
from skinseg_jax.data.sources import catalog
from skinseg_jax.inference import trained_model
from skinseg_jax.run import run_folder, stored_data
from skinseg_jax.runtime import distributed, resource_errors, stop_signals
from skinseg_jax.training import train_state
from skinseg_jax.training import trainer as trainer_lib
from skinseg_jax.weights import shared_model


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
  """An experiment whose data and folder are ready.

  Attributes:
    config: Config of the run.
    workdir: Folder of the run.
    run_data: The images for training and validation.
    initial_weights: What the run starts from besides its seed, see
      `train_state.find_initial_weights`.
    stop: Handles SIGTERM and SIGINT.
  """

  config: config_lib.Config
  workdir: pathlib.Path
  run_data: stored_data.RunData
  initial_weights: dict[str, Any]
  stop: stop_signals.StopSignals


@contextlib.contextmanager
def prepared(
  config: config_lib.Config, workdir: pathlib.Path
) -> Iterator[Experiment]:
  """Prepares what is missing; locks the run folder until the block ends.

  Args:
    config: Config of the experiment.
    workdir: Folder of the run; created if missing.

  Raises:
    InputError: If config, data or folder do not fit. Also raised from within
      the block, if disk or memory run out.
    StoppedError: If SIGTERM or SIGINT arrived.
  """
  config_rules.validate(config)
  with contextlib.ExitStack() as stack:
    stack.enter_context(resource_errors.explained(workdir))
    stop = stack.enter_context(stop_signals.StopSignals())
    # Process 0 prepares the files; the other processes then read them. A run
    # that has started never downloads its data set again.
    shared_model.refuse(workdir)
    begun = (workdir / 'config.json').exists()
    source = distributed.primary_first(
      lambda: catalog.open_source(config.data, download=not begun)
    )
    initial: dict[str, Any] = {}
    if not begun:
      find = lambda: train_state.find_initial_weights(config)
      # All processes read a checkpoint together; one downloads a file.
      together = bool(config.train.init_from)
      initial = find() if together else distributed.primary_first(find)
    split = distributed.primary_first(
      lambda: splits.make_split(config.data, source.metadata)
    )
    distributed.primary_first(
      lambda: stack.enter_context(run_folder.locked(workdir))
    )
    data = distributed.primary_first(
      lambda: cache.open_cache(
        source, config.data.image_size, pathlib.Path(config.data.data_dir)
      )
    )
    images = stored_data.RunData(source, data, split)
    # Before the run begins: its config cannot change afterwards.
    masks = _check_masks(config, images)
    distributed.primary_first(
      lambda: run_folder.begin(workdir, config, source, split, initial)
    )
    table = splits.report(split, source.metadata)
    run_folder.write_json(
      workdir / 'split.json',
      {**table.as_dict(), 'mask_check': masks.as_dict()},
    )
    print(table.table(), flush=True)
    # A run that goes on keeps what it began from.
    initial = run_folder.initial_weights(workdir)
    yield Experiment(config, workdir, images, initial, stop)


def _check_masks(
  config: config_lib.Config, images: stored_data.RunData
) -> mask_checks.MaskCheck:
  """Looks at all masks of the split; prints what looks wrong.

  Raises:
    InputError: If nothing can be learned from them.
  """
  split = images.split
  indices = input_pipeline.select(images.data, split.train + split.validation)
  remedy = mask_checks.training_remedy(inverted=config.data.mask_invert)
  found = mask_checks.examine(images.data, indices, remedy)
  found.refuse_useless()
  if found.findings and distributed.is_primary():
    print(found.warning(), file=sys.stderr, flush=True)
  return found


def train(experiment: Experiment) -> trained_model.TrainedModel:
  """Trains from the last checkpoint, or from the start, to the last epoch.

  Returns:
    The model after the last epoch; its checkpoint is on disk.

  Raises:
    DivergenceError: If loss or weights are no longer finite.
    StoppedError: If SIGTERM or SIGINT arrived; the progress so far is saved.
  """
  config, images = experiment.config, experiment.run_data
  trainer = trainer_lib.Trainer(
    config,
    experiment.workdir,
    images.data,
    images.split,
    experiment.initial_weights,
    experiment.stop,
  )
  _describe(experiment, trainer)
  try:
    with experiment.stop.deferred():
      while trainer.epochs_done < config.train.epochs:
        trainer.train_epoch()
      return trainer.trained_model()  # Waits for the last save.
  finally:
    trainer.close()


def _describe(experiment: Experiment, trainer: trainer_lib.Trainer) -> None:
  """Writes the list of parameters; prints the sizes of model and epoch."""
  if distributed.is_primary():
    parameters = train_state.overview(trainer.model_state)
    path = experiment.workdir / 'parameters.txt'
    path.write_text(parameters + '\n', encoding='utf-8')
  print(
    f'{train_state.count(trainer.model_state, nnx.Param):,} parameters and'
    f' {train_state.count(trainer.model_state, nnx.BatchStat):,} running'
    ' statistics (parameters.txt lists them)'
  )
  images = len(experiment.run_data.split.train)
  dropped = images % experiment.config.train.batch_size
  print(
    f'{trainer.steps_per_epoch} updates an epoch, reshuffled each epoch;'
    f' each leaves out {dropped} of {images} images',
    flush=True,
  )
