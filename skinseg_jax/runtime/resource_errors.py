"""Turns errors of disk and memory into messages for the user."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax

from skinseg_jax.runtime import errors


@contextlib.contextmanager
def explained(workdir: pathlib.Path) -> Iterator[None]:
  """Turns what disk and memory raise into an `InputError`."""
  try:
    yield
  except OSError as error:
    raise errors.InputError(
      f'{workdir} cannot be written ({error}); what was saved is intact. Make'
      ' room or mend the folder; the same command goes on from there.'
    ) from error
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise errors.InputError(
      f'out of memory: {str(error).splitlines()[0]}\n'
      'From the least change to the greatest: train.remat=true;'
      ' train.accumulation_steps=2 or more (the batch in parts); a smaller'
      ' train.batch_size or evaluation.batch_size;'
      " model.compute_dtype='bfloat16'; a smaller model.width or"
      ' data.image_size. What was saved is intact.'
    ) from None
