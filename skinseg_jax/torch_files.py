"""Files of named tensors: .safetensors, and PyTorch's .pt and .pth.

PyTorch is imported for its own files alone, when one is read or written.
"""

import json
import math
import pathlib
import zipfile
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from skinseg_jax import errors

# By their names in a safetensors file.
_DTYPES = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': jnp.bfloat16,
  'I64': np.int64,
}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the tensors of a .safetensors, .pt or .pth file by name.

  Raises:
    InputError: If the file is missing or damaged, holds no tensors, or needs
      PyTorch where there is none.
  """
  if not path.is_file():
    raise errors.InputError(f'{path}: no such file (--weights).')
  match path.suffix:
    case '.safetensors':
      tensors = _read_safetensors(path)
    case '.pt' | '.pth' | '.tar':
      tensors = _read_torch(path)
    case _:
      raise _unknown_format(path)
  # What nn.DataParallel and torch.compile put before the names.
  return {
    name.removeprefix('module.').removeprefix('_orig_mod.'): values
    for name, values in tensors.items()
  }


def write(path: pathlib.Path, state_dict: Mapping[str, np.ndarray]) -> None:
  """Writes a .safetensors, .pt or .pth file, whole or not at all.

  Raises:
    InputError: If the name ends otherwise, or PyTorch is needed and missing.
  """
  temporary = path.with_name(path.name + '.tmp')
  match path.suffix:
    case '.safetensors':
      temporary.write_bytes(_safetensors(state_dict))
    case '.pt' | '.pth':
      torch = _import_torch(path)
      tensors = {n: torch.from_numpy(v) for n, v in state_dict.items()}
      torch.save(tensors, temporary)
    case _:
      raise _unknown_format(path)
  temporary.replace(path)


def _unknown_format(path: pathlib.Path) -> errors.InputError:
  return errors.InputError(
    f'{path}: allowed are names that end in .safetensors, .pt or .pth.'
  )


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the format of https://github.com/huggingface/safetensors."""
  data = path.read_bytes()
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
      f'{path} is no whole safetensors file of'
      f' {", ".join(_DTYPES)} ({error!r}); get it again.'
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
  text += b' ' * (-len(text) % 8)  # The format asks for aligned data.
  bodies = [values.tobytes() for values in state_dict.values()]
  return b''.join([len(text).to_bytes(8, 'little'), text, *bodies])


def _import_torch(path: pathlib.Path):
  try:
    import torch
  except ImportError:
    raise errors.InputError(
      f'{path}: .pt files need PyTorch: pip install "skinseg_jax[torch]", or'
      ' use .safetensors.'
    ) from None
  return torch


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  torch = _import_torch(path)
  try:
    _check_stored(path)
    # Without weights_only a file could run any program.
    loaded = torch.load(path, map_location='cpu', weights_only=True)
    if isinstance(loaded, Mapping):
      loaded = loaded.get('state_dict', loaded)  # As checkpoints nest it.
    items = loaded.items() if isinstance(loaded, Mapping) else ()
    tensors = {
      str(name): value.float().numpy()
      for name, value in items
      if isinstance(value, torch.Tensor)
    }
  except Exception as error:  # A damaged one raises whatever it runs into.
    raise errors.InputError(
      f'{path} is no PyTorch file of tensors alone ({type(error).__name__});'
      ' save one by torch.save(model.state_dict(), file).'
    ) from error
  if not tensors:
    raise errors.InputError(
      f'{path} holds no tensors by name; save them by'
      ' torch.save(model.state_dict(), file).'
    )
  return tensors


def _check_stored(path: pathlib.Path) -> None:
  """Refuses what would unpack to more than the file holds: PyTorch's does not.

  Raises:
    ValueError: If a part is compressed.
  """
  if zipfile.is_zipfile(path):
    with zipfile.ZipFile(path) as file:
      for info in file.infolist():
        if info.compress_type != zipfile.ZIP_STORED:
          raise ValueError(f'{info.filename} is compressed')
