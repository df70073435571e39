"""Turns disk and memory errors into messages for the user."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax

from skinseg_jax.runtime import errors

TRAINING = (
  'Run the same command again to resume, with one or both of\n'
  '  --config.train.remat=true\n'
  '  a smaller --config.evaluation.batch_size\n'
  'or start again with a new --workdir and one of these, the smallest change'
  ' first:\n'
  '  --config.train.accumulation_steps=2 or more (splits the batch)\n'
  '  a smaller --config.train.batch_size\n'
  '  --config.model.compute_dtype=bfloat16\n'
  '  a smaller --config.model.width or --config.data.image_size'
)


def scoring(workdir: pathlib.Path) -> str:
  """What to do when scoring a run needs too much memory."""
  return (
    f'Set batch_size to a smaller number under evaluation in'
    f' {workdir / "config.json"}, then run the same command again.'
  )


@contextlib.contextmanager
def explained(
  workdir: pathlib.Path, *, memory: str = TRAINING
) -> Iterator[None]:
  """Turns disk and memory errors into an `InputError`.

  Args:
    workdir: Folder of the run.
    memory: What to do when memory runs out.
  """
  try:
    yield
  except OSError as error:
    raise errors.InputError(
      f'{workdir} cannot be written ({error}); saved files are intact. Free'
      ' some space or make the folder writable, then run the same command'
      ' again to resume.'
    ) from error
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise errors.InputError(
      f'out of memory: {str(error).splitlines()[0]}\nSaved files are intact.'
      f' {memory}'
    ) from None
