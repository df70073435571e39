"""Reads and writes named tensors: .safetensors, .pt, .pth and .pth.tar files.

PyTorch is imported only to write its own format.
"""

import collections
import contextlib
import io
import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import BinaryIO

import jax.numpy as jnp
import numpy as np

from skinseg_jax.runtime import errors
from skinseg_jax.weights import torch_pickle

# Types by their names in a safetensors file.
_DTYPES = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': jnp.bfloat16,
  'I64': np.int64,
}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the tensors of a .safetensors, .pt, .pth or .pth.tar file by name.

  Removes the prefixes that nn.DataParallel, DistributedDataParallel and
  torch.compile add to names.

  Raises:
    InputError: If the file cannot be read, is damaged, or holds no tensors or
      two with the same name.
  """
  try:
    file = path.open('rb')
  except OSError as error:
    raise errors.InputError(
      f'cannot read {path}: {error.strerror}; give --weights a file that can'
      ' be read.'
    ) from error
  with file:
    match path.suffix:
      case '.safetensors':
        tensors = _read_safetensors(path, file)
      case '.pt' | '.pth' | '.tar':
        tensors = _read_torch(path, file)
      case _:
        raise _unknown_format(path, '.pt, .pth or .pth.tar')
  return _without_prefixes(path, tensors)


def _without_prefixes(
  path: pathlib.Path, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  # Prefixes nest: torch.compile around DistributedDataParallel adds both.
  names = {
    name: re.sub(r'^((module|_orig_mod)\.)+', '', name) for name in tensors
  }
  counts = collections.Counter(names.values())
  if doubles := [name for name in names if counts[names[name]] > 1]:
    raise errors.InputError(
      f'{path} holds tensors whose names differ only by "module." or'
      ' "_orig_mod.":\n'
      + errors.listing(doubles)
      + '\nSave the weights of one network.'
    )
  return {names[name]: values for name, values in tensors.items()}


def write(path: pathlib.Path, state_dict: Mapping[str, np.ndarray]) -> None:
  """Writes a .safetensors, .pt or .pth file atomically.

  Raises:
    InputError: If the name ends in something else, PyTorch is needed and
      missing, or the file cannot be written.
  """
  match path.suffix:
    case '.safetensors':
      data = _safetensors(state_dict)
    case '.pt' | '.pth':
      data = _torch(path, state_dict)
    case _:
      raise _unknown_format(path, '.pt or .pth')
  temporary = path.with_name(path.name + '.tmp')
  try:
    temporary.write_bytes(data)
    temporary.replace(path)
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink()  # A partial file may have filled the disk.
    raise errors.InputError(
      f'cannot write {path}: {error.strerror}; give --export a name in a folder'
      ' that exists and can be written to.'
    ) from error


def _unknown_format(path: pathlib.Path, of_torch: str) -> errors.InputError:
  return errors.InputError(
    f'{path}: the name must end in .safetensors, {of_torch}.'
  )


def _read_safetensors(
  path: pathlib.Path, file: BinaryIO
) -> dict[str, np.ndarray]:
  """Reads the format of https://github.com/huggingface/safetensors."""
  data = file.read()
  try:
    start = 8 + int.from_bytes(data[:8], 'little')
    header = json.loads(data[8:start])
    header.pop('__metadata__', None)
    tensors = {}
    for name, entry in header.items():
      begin, end = entry['data_offsets']
      dtype, shape = np.dtype(_DTYPES[entry['dtype']]), entry['shape']
      if begin < 0 or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f'{name}: {end - begin} bytes for shape {shape}')
      values = np.frombuffer(data[start + begin : start + end], dtype)
      tensors[name] = values.reshape(shape)
  except (
      ValueError, KeyError, TypeError, AttributeError, RecursionError
  ) as error:  # fmt: skip
    raise errors.InputError(
      f'{path} is not a complete safetensors file with tensors of type'
      f' {", ".join(_DTYPES)} ({error!r}); download or save it again.'
    ) from error
  return tensors


def _safetensors(state_dict: Mapping[str, np.ndarray]) -> bytes:
  names = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
  header, begin = {}, 0
  for name, values in state_dict.items():
    end = begin + values.nbytes
    header[name] = {
      'dtype': names[values.dtype],
      'shape': values.shape,
      'data_offsets': (begin, end),
    }
    begin = end
  text = json.dumps(header).encode()
  text += b' ' * (-len(text) % 8)  # The format requires aligned data.
  bodies = [values.tobytes() for values in state_dict.values()]
  return b''.join([len(text).to_bytes(8, 'little'), text, *bodies])


def _import_torch(path: pathlib.Path):
  try:
    import torch
  except ImportError:
    raise errors.InputError(
      f'{path}: writing it needs PyTorch: pip install "skinseg_jax[torch]", or'
      ' use .safetensors.'
    ) from None
  return torch


def _torch(path: pathlib.Path, state_dict: Mapping[str, np.ndarray]) -> bytes:
  torch = _import_torch(path)
  file = io.BytesIO()
  # Copied, because PyTorch warns about read-only arrays.
  torch.save({n: torch.tensor(v) for n, v in state_dict.items()}, file)
  return file.getvalue()


def _read_torch(path: pathlib.Path, file: BinaryIO) -> dict[str, np.ndarray]:
  try:
    tensors = torch_pickle.read(file.read())
  except ValueError as error:
    raise errors.InputError(
      f'{path} is damaged, or not a PyTorch file that holds only tensors'
      f' ({error}); get it again, or save one with'
      ' torch.save(model.state_dict(), file).'
    ) from error
  if not tensors:
    raise errors.InputError(
      f'{path} holds no named tensors; save them with'
      ' torch.save(model.state_dict(), file).'
    )
  return tensors
