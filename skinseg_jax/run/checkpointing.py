"""Saves and restores model, optimiser, input position and progress."""

import contextlib
import dataclasses
import json
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

# Score that selects the best checkpoint; saved with each.
BEST_METRIC = 'validation/dice'
_ASIDE = '.replaced-'
_METADATA = '_CHECKPOINT_METADATA'  # Orbax writes it next to the parts.


@dataclasses.dataclass
class Checkpoint:
  """Everything that is saved at one step.

  Attributes:
    model: State of the model: parameters and running statistics.
    optimizer: State of the optimiser.
    data: State of the input iterator.
    progress: Python numbers that the training loop carries between steps.
  """

  model: Any
  optimizer: Any
  data: Any
  progress: Any


class Checkpoints:
  """The checkpoints of one run; keeps the last and the best.

  A checkpoint is written under a temporary name and renamed when it is
  complete. Old ones are removed only after that. A partly removed checkpoint
  may therefore exist, but it is neither the last nor the best.
  """

  def __init__(self, directory: pathlib.Path, *, read_only: bool = False):
    """Opens a directory.

    Args:
      directory: Folder of one run's checkpoints; created if missing.
      read_only: Create and remove nothing, because the run may be training.

    Raises:
      InputError: If the directory is missing with `read_only`, its checkpoints
        cannot be listed, or the scores of one are damaged.
    """
    self._directory = directory.absolute()
    self._saving, self._read_only = False, read_only
    if read_only and not directory.is_dir():
      raise self._nothing_there()
    if not read_only:
      _in_process_0(self._undo_replacements)
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
      self.best_step()  # Damaged scores would make it remove the wrong one.

  def save(
    self, step: int, checkpoint: Checkpoint, metrics: dict[str, float] | None
  ) -> None:
    """Saves a checkpoint; writing to disk continues in the background.

    Args:
      step: Number of updates made. An earlier checkpoint of this step, which
        has no scores, is replaced.
      checkpoint: What to save.
      metrics: Scores that select the best; None without an evaluation.

    Raises:
      InputError: If this checkpoint or the one before cannot be written.
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
      _in_process_0(shutil.rmtree, before)

  @property
  def latest_step(self) -> int | None:
    """Step of the last checkpoint, even if it is still being written."""
    latest = self._checkpointer.latest
    return latest and latest.step

  def check(self) -> None:
    """Raises an error if the last save has failed; does not wait for it.

    Raises:
      InputError: If the checkpoint could not be written.
    """
    if self._saving and not self._checkpointer.is_saving_in_progress():
      self.wait()

  def restore_latest(self, like: Checkpoint) -> tuple[int, Checkpoint] | None:
    """Loads the last complete checkpoint; returns None if there is none.

    Args:
      like: Arrays or shapes, with the sharding that the result gets.
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
      # A process that was killed after a save leaves one without digests.
      for checkpoint in self._checkpointer.checkpoints:
        checkpoint_digests.write_missing(self._directory / str(checkpoint.step))
    return step, Checkpoint(**items)

  def restore_model(self, step: int, like: Any) -> Any:
    """Loads only the model's state.

    Raises:
      InputError: If the checkpoint does not fit `like` or is damaged.
    """
    return self._load(step, {'model': like})['model']

  def resolve(self, which: str) -> int:
    """Returns the step that 'best', 'last' or a number stands for.

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
    # Imported weights have no score yet.
    names = 'last' if self.best_step() is None else 'best, last'
    raise errors.InputError(
      f'no checkpoint {which!r} in {self._directory}; allowed are {names}'
      f' and the steps {sorted(steps)}.'
    )

  def best_step(self) -> int | None:
    """Returns the step of the best checkpoint; None if none has a score.

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
      if (folder / 'metrics').exists():  # Missing while it is being removed.
        checkpoint_digests.check(folder, ['metrics/metrics'])
    # On a tie take the later one, as the policy above does.
    return max(scored, key=lambda s: (scored[s], s)) if scored else None

  @contextlib.contextmanager
  def _listing(self) -> Iterator[None]:
    """Turns Orbax's errors about damaged scores into an `InputError`."""
    try:
      yield
    except Exception as error:
      damaged = [f'{path}' for path in self._with_damaged_scores()]
      remedy = (
        'the scores in these folders are damaged; remove them to fall back on'
        ' another checkpoint:\n' + errors.listing(damaged)
        if damaged
        else 'try again; a run may be removing one right now.'
      )
      raise errors.InputError(
        f'the checkpoints in {self._directory} cannot be listed ({error!r});'
        f' {remedy}'
      ) from error

  def _with_damaged_scores(self) -> Iterator[pathlib.Path]:
    for folder in sorted(self._directory.glob('[0-9]*')):
      scores = folder / 'metrics' / 'metrics'
      try:
        if scores.exists():
          float(json.loads(scores.read_text('utf-8'))[BEST_METRIC])
      except (OSError, ValueError, LookupError, TypeError, RecursionError):
        yield folder

  def _nothing_there(self) -> errors.InputError:
    if list(self._directory.glob(f'{_ASIDE}*')):
      remedy = (
        'a run is replacing it right now, or was interrupted: start that run'
        ' again'
      )
    else:
      remedy = 'train first, with `python -m skinseg_jax.main`'
    return errors.InputError(f'no checkpoint in {self._directory}; {remedy}.')

  def metrics(self, step: int) -> dict[str, float]:
    """Returns the scores that were saved with a checkpoint."""
    found = [c for c in self._checkpointer.checkpoints if c.step == step]
    return found[0].metrics or {}

  def wait(self) -> None:
    """Waits until all checkpoints are on disk.

    Raises:
      InputError: If one could not be written.
    """
    saving, self._saving = self._saving, False
    with self._writing():
      self._checkpointer.wait()
      if saving and jax.process_index() == 0:
        checkpoint_digests.write(self._directory / str(self.latest_step))

  def close(self) -> None:
    """Waits until all checkpoints are on disk and ends the threads."""
    self.wait()
    with self._writing():
      self._checkpointer.close()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # Orbax may raise any type.
      # Threads of the interrupted save would print tracebacks.
      logging.getLogger('concurrent.futures').setLevel(logging.CRITICAL)
      if not self._read_only:
        for partial in self._directory.glob('*.orbax-checkpoint-tmp'):
          shutil.rmtree(partial, ignore_errors=True)  # Frees a full disk.
        if jax.process_index() == 0:
          with contextlib.suppress(OSError):
            self._undo_replacements()
      raise errors.InputError(
        f'a checkpoint cannot be written to {self._directory}'
        f' ({_first_line(error)}); earlier ones are intact. Free some space or'
        ' make the folder writable, then run the same command again to resume'
        ' from the last checkpoint.'
      ) from error

  def _set_aside(self, step: int) -> pathlib.Path:
    """Renames a checkpoint so that another can take its place."""
    aside = self._directory / f'{_ASIDE}{step}'
    _in_process_0((self._directory / str(step)).rename, aside)
    self._checkpointer.reload()
    return aside

  def _undo_replacements(self) -> None:
    """Restores checkpoints set aside for a save that was interrupted."""
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
      if saved['model'] is None:  # Orbax only logs that it cannot read it.
        raise ValueError('no list of arrays')
      _check_fits(path, saved['model'], like['model'])
      abstract = {
        name: jax.tree.map(ocp.arrays.to_shape_dtype_struct, tree)
        for name, tree in like.items()
      }
      return self._checkpointer.load_checkpointables(step, abstract)
    except errors.InputError:
      raise
    except Exception as error:  # Orbax may raise any type.
      raise errors.InputError(
        f'the checkpoint {path} cannot be read ({type(error).__name__}); it'
        ' may be damaged. Remove its folder to fall back on another checkpoint.'
      ) from error


def _in_process_0(action: Callable[..., Any], *args: Any) -> None:
  """Calls `action` in process 0; all processes wait until it is done."""
  if jax.process_index() == 0:
    action(*args)
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('checkpoints')


def _first_line(error: Exception) -> str:
  return (str(error) or type(error).__name__).splitlines()[0]


def _check_fits(path: pathlib.Path, saved: Any, like: Any) -> None:
  """Raises an `InputError` if the shapes of the model's arrays differ."""
  shapes = lambda tree: [leaf.shape for leaf in jax.tree.leaves(tree)]
  if shapes(saved) != shapes(like):
    size = lambda tree: sum(math.prod(shape) for shape in shapes(tree))
    raise errors.InputError(
      f'the checkpoint {path} holds another model ({size(saved):,} values)'
      f' than the config describes ({size(like):,}); set model.architecture,'
      ' model.encoder and model.width to the values it was trained with, or'
      ' choose another --workdir.'
    )
