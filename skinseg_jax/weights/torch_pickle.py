"""Reads PyTorch's files of tensors without PyTorch, and runs nothing in them.

Such a file describes its tensors by a program for pickle's stack machine. Here
that program is only parsed. An interpreter of our own knows the few operations
that a dictionary of tensors needs, and no function is ever called by its name.
The two formats are those of torch.save since 2016 (a sequence of pickles, then
the data) and since 2020 (a zip of one pickle and a file per tensor).
"""

import functools
import io
import math
import pickletools
import warnings
import zipfile
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

_TYPES = {
  'torch DoubleStorage': np.float64,
  'torch BFloat16Storage': jnp.bfloat16,
  'torch FloatStorage': np.float32,
  'torch HalfStorage': np.float16,
  'torch LongStorage': np.int64,
  'torch IntStorage': np.int32,
  'torch ShortStorage': np.int16,
  'torch CharStorage': np.int8,
  'torch ByteStorage': np.uint8,
  'torch BoolStorage': np.bool_,
}
_DICTIONARY = 'collections OrderedDict'
_TENSOR = 'torch._utils _rebuild_tensor_v2'
_PARAMETER = 'torch._utils _rebuild_parameter'
_SIZE = 'torch Size'
# First number in a file of the older format.
_MAGIC = 0x1950A86A20F9469CFC6C
# Pickles before the data of the older format: magic number, version, machine,
# tensors, names of their storages.
_PICKLES = 5
# Tensors may share values: their bytes in all, as a multiple of the file's.
_MOST_SHARED = 4


class _Name(NamedTuple):
  """A function or class that the file names; it stays a name."""

  name: str


class _Tensor(NamedTuple):
  """Where the values of a tensor lie."""

  storage: str
  dtype: np.dtype
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def read(data: bytes) -> dict[str, np.ndarray]:
  """Reads the tensors of a state_dict.

  Args:
    data: The whole file.

  Returns:
    Arrays by name; what is no tensor is left out.

  Raises:
    ValueError: If the file is damaged, or holds anything beyond a dictionary of
      tensors.
  """
  file = io.BytesIO(data)
  try:
    if zipfile.is_zipfile(file):
      return _read_zip(file, len(data))
    file.seek(0)
    return _read_sequence(file, len(data))
  except (
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    MemoryError,
    zipfile.BadZipFile,
    RuntimeError,  # Also of what is not implemented, and of depth.
  ) as error:
    raise ValueError(f'{type(error).__name__}: {error}') from error  # fmt: skip


def _read_zip(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(file) as parts:
    for info in parts.infolist():
      # Compressed, a small file could fill the memory.
      if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f'{info.filename} is compressed')
    (name,) = (n for n in parts.namelist() if n.endswith('/data.pkl'))
    root = name.removesuffix('data.pkl')
    described = _Machine().run(io.BytesIO(parts.read(name)))
    read_once = functools.cache(lambda key: parts.read(f'{root}data/{key}'))
    return _arrays(described, read_once, size)


def _read_sequence(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
  magic = _Machine().run(file)
  if magic != _MAGIC:
    raise ValueError('no file of torch.save')
  machines = [_Machine() for _ in range(_PICKLES - 1)]
  _, _, described, keys = (machine.run(file) for machine in machines)
  itemsizes = machines[2].itemsizes
  storages = {}
  for key in keys:
    count = int.from_bytes(file.read(8), 'little')
    storages[key] = file.read(count * itemsizes[key])
  return _arrays(described, storages.__getitem__, size)


def _arrays(described: Any, storage, size: int) -> dict[str, np.ndarray]:
  if not isinstance(described, dict):
    raise ValueError('no dictionary')
  described = described.get('state_dict', described)  # As checkpoints nest it.
  tensors = {
    str(name): tensor
    for name, tensor in described.items()
    if isinstance(tensor, _Tensor)
  }
  # The same values, named by many tensors, could fill the memory.
  wanted = sum(
    math.prod(tensor.shape) * tensor.dtype.itemsize
    for tensor in tensors.values()
  )
  if wanted > _MOST_SHARED * size:
    raise ValueError(f'tensors of {wanted} bytes in a file of {size}')
  return {
    name: _array(tensor, storage(tensor.storage))
    for name, tensor in tensors.items()
  }


def _array(tensor: _Tensor, data: bytes) -> np.ndarray:
  values = np.frombuffer(data, tensor.dtype)
  _, _, offset, shape, strides = tensor
  last = offset + sum(
    (n - 1) * stride for n, stride in zip(shape, strides, strict=True)
  )
  # A stride of 0 would let a few values fill the memory.
  if min(offset, *shape, *strides, 0) < 0 or math.prod(shape) > len(values):
    raise ValueError(f'no data for a tensor of shape {shape}')
  if math.prod(shape) and last >= len(values):
    raise ValueError(f'no data for a tensor of shape {shape}')
  size = values.itemsize
  view = np.lib.stride_tricks.as_strided(
    values[offset:], shape, [size * stride for stride in strides]
  )
  return view.copy()


class _Machine:
  """Pickle's stack machine without its calls.

  Attributes:
    itemsizes: Bytes of a value, by the names of the storages that were met.
  """

  def __init__(self) -> None:
    self.itemsizes: dict[str, int] = {}
    self._stack: list[Any] = []
    self._marks: list[int] = []
    self._memo: dict[int, Any] = {}

  def run(self, file: BinaryIO) -> Any:
    """Reads one pickle from where the file stands; returns what it builds."""
    with warnings.catch_warnings():
      # Of damaged text; it is refused below.
      warnings.simplefilter('ignore', DeprecationWarning)
      for opcode, argument, _ in pickletools.genops(file):
        self._do(opcode.name, argument)
    return self._stack.pop()

  def _do(self, name: str, argument: Any) -> None:
    stack = self._stack
    match name:
      case 'PROTO' | 'FRAME' | 'STOP':
        pass
      case 'MARK':
        self._marks.append(len(stack))
      case 'NONE':
        stack.append(None)
      case 'NEWTRUE' | 'NEWFALSE':
        stack.append(name == 'NEWTRUE')
      case 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINFLOAT':
        stack.append(argument)
      case 'BINUNICODE' | 'SHORT_BINUNICODE':
        stack.append(argument)
      case 'EMPTY_DICT':
        stack.append({})
      case 'EMPTY_LIST':
        stack.append([])
      case 'EMPTY_TUPLE' | 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
        count = 0 if name == 'EMPTY_TUPLE' else int(name[-1])
        stack[len(stack) - count :] = [tuple(stack[len(stack) - count :])]
      case 'TUPLE':
        stack.append(tuple(self._since_mark()))
      case 'BINPUT' | 'LONG_BINPUT':
        self._memo[argument] = stack[-1]
      case 'MEMOIZE':
        self._memo[len(self._memo)] = stack[-1]
      case 'BINGET' | 'LONG_BINGET':
        stack.append(self._memo[argument])
      case 'GLOBAL':
        stack.append(_Name(argument))
      case 'STACK_GLOBAL':
        stack[-2:] = [_Name(f'{stack[-2]} {stack[-1]}')]
      case 'BINPERSID':
        stack.append(self._storage(stack.pop()))
      case 'REDUCE' | 'BUILD':
        last = stack.pop()
        # A state that BUILD would set, such as versions, says nothing here.
        if name == 'REDUCE':
          stack.append(_reduced(stack.pop(), last))
      case _:
        self._fill(name)

  def _fill(self, name: str) -> None:
    """Puts values into the list or dictionary below them."""
    single = {'SETITEM': 2, 'APPEND': 1}
    if name in single:
      self._marks.append(len(self._stack) - single[name])
    elif name not in ('SETITEMS', 'APPENDS'):
      raise ValueError(f'no file of tensors needs the operation {name}')
    values = self._since_mark()
    if name.startswith('APPEND'):
      self._stack[-1].extend(values)
    else:
      # Others could take for ever to compare: tuples of tuples.
      if not all(isinstance(key, (str, int)) for key in values[::2]):
        raise ValueError('a dictionary has keys that are no text')
      self._stack[-1].update(zip(values[::2], values[1::2], strict=True))

  def _since_mark(self) -> list[Any]:
    mark = self._marks.pop()
    values = self._stack[mark:]
    del self._stack[mark:]
    return values

  def _storage(self, identity: tuple[Any, ...]) -> tuple[str, np.dtype]:
    kind, storage_type, key = identity[:3]
    if kind != 'storage' or storage_type.name not in _TYPES:
      raise ValueError(f'the type {storage_type.name} is not known')
    if not isinstance(key, str):
      raise ValueError('a storage has a name that is no text')
    dtype = np.dtype(_TYPES[storage_type.name])
    self.itemsizes[key] = dtype.itemsize
    return key, dtype


def _reduced(function: Any, arguments: tuple[Any, ...]) -> Any:
  """What the known functions would return."""
  if function == _Name(_DICTIONARY):
    return dict(*arguments)
  if function in (_Name(_PARAMETER), _Name(_SIZE)):
    return arguments[0]  # Its tensor; its sizes.
  if function != _Name(_TENSOR):
    name = getattr(function, 'name', type(function).__name__)
    raise ValueError(f'it calls {name}, which no file of tensors needs')
  (key, dtype), offset, shape, strides = arguments[:4]
  return _Tensor(key, dtype, offset, shape, strides)
