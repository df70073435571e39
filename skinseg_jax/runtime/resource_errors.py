"""Turns disk and memory errors into messages for the user."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax

from skinseg_jax.runtime import errors


@contextlib.contextmanager
def explained(workdir: pathlib.Path) -> Iterator[None]:
  """Turns disk and memory errors into an `InputError`."""
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
      f'out of memory: {str(error).splitlines()[0]}\n'
      'Try these, smallest change first: train.remat=true;'
      ' train.accumulation_steps=2 or more (splits the batch); a smaller'
      ' train.batch_size or evaluation.batch_size;'
      " model.compute_dtype='bfloat16'; a smaller model.width or"
      ' data.image_size. Saved files are intact.'
    ) from None
