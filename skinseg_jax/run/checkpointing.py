"""Checkpoints: model, optimiser, input position and progress, kept apart."""

import contextlib
import dataclasses
import logging
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from skinseg_jax.run import checkpoint_digests
from skinseg_jax.runtime import errors

_policies = ocp.training.preservation_policies

# Score by which the best checkpoint is chosen; saved with each.
BEST_METRIC = 'validation/dice'
_ASIDE = '.replaced-'
_METADATA = '_CHECKPOINT_METADATA'  # Orbax's, beside the parts.


@dataclasses.dataclass
class Checkpoint:
  """What is saved at a step.

  Attributes:
    model: State of the model: parameters and running statistics.
    optimizer: State of the optimiser.
    data: State of the input iterator.
    progress: Python numbers that the loop carries from step to step.
  """

  model: Any
  optimizer: Any
  data: Any
  progress: Any


class Checkpoints:
  """The checkpoints of one run; the last and the best are kept.

  A checkpoint is written under another name and renamed when it is whole. What
  goes, goes after the new one is there: it may be found half removed, but is
  then neither the last nor the best.
  """

  def __init__(self, directory: pathlib.Path, *, read_only: bool = False):
    """Opens a directory.

    Args:
      directory: Of the checkpoints of one run; made if missing.
      read_only: Make and remove nothing: the run may be training just now.

    Raises:
      InputError: If the directory is missing, where it is only to be read, or
        its checkpoints cannot be listed, or the scores of one are damaged.
    """
    self._directory = directory.absolute()
    self._saving, self._read_only = False, read_only
    if read_only and not directory.is_dir():
      raise self._nothing_there()
    if not read_only:
      _once(self._undo_replacements)
    with self._listing():
      self._checkpointer = ocp.training.Checkpointer(
        self._directory,
        save_decision_policy=(
          ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        ),
        preservation_policy=_policies.AnyPreservationPolicy(
          [
            _policies.LatestN(1),
            _policies.BestN(
              get_metric_fn=lambda metrics: metrics[BEST_METRIC],
              n=1,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
        cleanup_tmp_directories=not read_only,
      )
    if not read_only:
      self.best_step()  # By damaged scores it would remove the wrong one.

  def save(
    self, step: int, checkpoint: Checkpoint, metrics: dict[str, float] | None
  ) -> None:
    """Saves; writing to disk goes on while training does.

    Args:
      step: Number of updates made. What was saved there before has no scores,
        and is replaced.
      checkpoint: What to save.
      metrics: Scores by which to choose the best; None without an evaluation.

    Raises:
      InputError: If this or the save before it cannot be written.
    """
    self.wait()
    with self._writing():
      before = step == self.latest_step and self._set_aside(step)
      self._checkpointer.save_checkpointables_async(
        step,
        {
          'model': checkpoint.model,
          'optimizer': checkpoint.optimizer,
          'data': checkpoint.data,
          'progress': checkpoint.progress,
        },
        metrics=metrics,
      )
    self._saving = True
    if before:
      self.wait()
      _once(shutil.rmtree, before)

  @property
  def latest_step(self) -> int | None:
    """Step of the last checkpoint, also of one that is being written."""
    latest = self._checkpointer.latest
    return latest and latest.step

  def check(self) -> None:
    """Learns how the last save went, if it is done; does not wait for it.

    Raises:
      InputError: If it could not be written.
    """
    if self._saving and not self._checkpointer.is_saving_in_progress():
      self.wait()

  def restore_latest(self, like: Checkpoint) -> tuple[int, Checkpoint] | None:
    """Loads the last whole checkpoint, or None if there is none.

    Args:
      like: Arrays or shapes with the sharding to restore to.
    """
    latest = self._checkpointer.latest
    if latest is None:
      return None
    step = latest.step
    items = self._load(
      step,
      {
        'model': like.model,
        'optimizer': like.optimizer,
        'data': None,
        'progress': None,
      },
    )
    if jax.process_index() == 0:
      # Killed after a save, a process leaves one without.
      for checkpoint in self._checkpointer.checkpoints:
        checkpoint_digests.write_missing(self._directory / str(checkpoint.step))
    return step, Checkpoint(**items)

  def restore_model(self, step: int, like: Any) -> Any:
    """Loads the model's state alone.

    Raises:
      InputError: If the checkpoint does not fit `like` or is damaged.
    """
    return self._load(step, {'model': like})['model']

  def resolve(self, which: str) -> int:
    """The step of 'best', 'last' or a number.

    Raises:
      InputError: If there is no such checkpoint.
    """
    with self._listing():
      steps = [c.step for c in self._checkpointer.checkpoints]
    if not steps:
      raise self._nothing_there()
    if which == 'last':
      return max(steps)
    if which == 'best' and (best := self.best_step()) is not None:
      return best
    if which.isdecimal() and int(which) in steps:
      return int(which)
    raise errors.InputError(
      f'no checkpoint {which!r} in {self._directory}; allowed are best, last'
      f' and the steps {sorted(steps)}.'
    )

  def best_step(self) -> int | None:
    """The step of the best checkpoint; None where none has a score.

    Raises:
      InputError: If a score is damaged.
    """
    with self._listing():
      scored = {
        c.step: float(c.metrics[BEST_METRIC])
        for c in self._checkpointer.checkpoints
        if c.metrics
      }
    for step in scored:
      folder = self._directory / str(step)
      if (folder / 'metrics').exists():  # Not one that is being removed.
        checkpoint_digests.check(folder, ['metrics/metrics'])
    # Of equals the later, as the policy above does.
    return max(scored, key=lambda s: (scored[s], s)) if scored else None

  @contextlib.contextmanager
  def _listing(self) -> Iterator[None]:
    """Turns what Orbax raises over damaged scores into an `InputError`."""
    try:
      yield
    except Exception as error:
      raise errors.InputError(
        f'the checkpoints in {self._directory} cannot be listed ({error!r});'
        ' the scores of one may be damaged. Remove its folder to fall back on'
        ' another one.'
      ) from error

  def _nothing_there(self) -> errors.InputError:
    if list(self._directory.glob(f'{_ASIDE}*')):
      remedy = 'a run is just replacing it, or was cut off: start that again'
    else:
      remedy = 'train first, with `python -m skinseg_jax.main`'
    return errors.InputError(f'no checkpoint in {self._directory}; {remedy}.')

  def metrics(self, step: int) -> dict[str, float]:
    """The scores that were saved with a checkpoint."""
    found = [c for c in self._checkpointer.checkpoints if c.step == step]
    return found[0].metrics or {}

  def wait(self) -> None:
    """Returns when all saves are on disk.

    Raises:
      InputError: If one could not be written.
    """
    saving, self._saving = self._saving, False
    with self._writing():
      self._checkpointer.wait()
      if saving and jax.process_index() == 0:
        checkpoint_digests.write(self._directory / str(self.latest_step))

  def close(self) -> None:
    """Waits for the saves and ends the threads."""
    self.wait()
    with self._writing():
      self._checkpointer.close()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # Orbax raises whatever its parts raise.
      # Threads of the save that was cut off would print tracebacks.
      logging.getLogger('concurrent.futures').setLevel(logging.CRITICAL)
      if not self._read_only:
        for partial in self._directory.glob('*.orbax-checkpoint-tmp'):
          shutil.rmtree(partial, ignore_errors=True)  # It may fill the disk.
        if jax.process_index() == 0:
          with contextlib.suppress(OSError):
            self._undo_replacements()
      raise errors.InputError(
        f'a checkpoint cannot be written to {self._directory}'
        f' ({_first_line(error)}); those there are whole. Make room or mend'
        ' the folder; the same command goes on from the last one.'
      ) from error

  def _set_aside(self, step: int) -> pathlib.Path:
    """Renames a checkpoint, so that another can take its place."""
    aside = self._directory / f'{_ASIDE}{step}'
    _once((self._directory / str(step)).rename, aside)
    self._checkpointer.reload()
    return aside

  def _undo_replacements(self) -> None:
    """Takes back what was set aside for a save that was cut off."""
    for aside in self._directory.glob(f'{_ASIDE}*'):
      path = self._directory / aside.name.removeprefix(_ASIDE)
      if path.exists():
        shutil.rmtree(aside)
      else:
        aside.rename(path)

  def _load(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    path = self._directory / str(step)
    checkpoint_digests.check(path, [*like, _METADATA])
    try:
      saved = self._checkpointer.checkpointables_metadata(step).metadata
      if saved['model'] is None:  # Orbax logs what it cannot read.
        raise ValueError('no list of arrays')
      _check_fits(path, saved['model'], like['model'])
      abstract = {
        name: jax.tree.map(ocp.arrays.to_shape_dtype_struct, tree)
        for name, tree in like.items()
      }
      return self._checkpointer.load_checkpointables(step, abstract)
    except errors.InputError:
      raise
    except Exception as error:  # Orbax raises whatever its parts raise.
      raise errors.InputError(
        f'the checkpoint {path} cannot be read ({type(error).__name__}); it'
        ' may be damaged. Remove its folder to fall back on another one.'
      ) from error


def _once(action: Callable[..., Any], *args: Any) -> None:
  """Does it in one process; when any goes on, it is done."""
  if jax.process_index() == 0:
    action(*args)
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('checkpoints')


def _first_line(error: Exception) -> str:
  return (str(error) or type(error).__name__).splitlines()[0]


def _check_fits(path: pathlib.Path, saved: Any, like: Any) -> None:
  """Compares the shapes of all arrays of the model."""
  shapes = lambda tree: [leaf.shape for leaf in jax.tree.leaves(tree)]
  if shapes(saved) != shapes(like):
    size = lambda tree: sum(math.prod(shape) for shape in shapes(tree))
    raise errors.InputError(
      f'the checkpoint {path} holds another model ({size(saved):,} values)'
      f' than the config describes ({size(like):,}); set model.width to what'
      ' it was trained with, or choose another --workdir.'
    )
