"""PyTorch's files of tensors, read without PyTorch."""

import contextlib
import io
import zipfile

import numpy as np
import pytest

from skinseg_jax.weights import torch_pickle


def _saved(torch, value, *, in_zip):
  file = io.BytesIO()
  torch.save(value, file, _use_new_zipfile_serialization=in_zip)
  return file.getvalue()


def _tensors(torch):
  table = torch.arange(24.0).reshape(4, 6)
  return {
    'weight': torch.randn(3, 2, 5, 5),
    'turned': table.T,  # Not contiguous.
    'row': table[2],  # A part of the same storage.
    'half': torch.tensor([1.5, -2.0], dtype=torch.float16),
    'double': torch.tensor([[np.pi]], dtype=torch.float64),
    'count': torch.tensor(7),
    'bytes': torch.tensor([0, 255], dtype=torch.uint8),
    'truth': torch.tensor([True, False]),
    'parameter': torch.nn.Parameter(torch.randn(2, 3)),
    'empty': torch.zeros(0, 3),
  }


@pytest.mark.torch
@pytest.mark.parametrize('in_zip', [False, True])
@pytest.mark.parametrize('nested', [False, True])
def test_both_formats_are_read_as_by_torch(in_zip, nested):
  torch = pytest.importorskip('torch')
  tensors = _tensors(torch)
  about = {'epoch': 3, 'size': torch.Size([1, 2])}
  value = {'state_dict': tensors, **about} if nested else tensors
  found = torch_pickle.read(_saved(torch, value, in_zip=in_zip))
  assert found.keys() == tensors.keys()
  for name, values in found.items():
    expected = tensors[name].detach().numpy()
    assert (values.dtype, values.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(values, expected)


@pytest.mark.torch
@pytest.mark.parametrize('in_zip', [False, True])
def test_bfloat16_is_read(in_zip):
  torch = pytest.importorskip('torch')
  values = torch.tensor([1.5, -3.0, 2.0**100], dtype=torch.bfloat16)
  found = torch_pickle.read(_saved(torch, {'x': values}, in_zip=in_zip))['x']
  np.testing.assert_array_equal(
    found.astype(np.float32), values.float().numpy()
  )


@pytest.mark.torch
def test_a_module_s_state_dict_is_read():
  torch = pytest.importorskip('torch')
  net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
  for in_zip in (False, True):
    found = torch_pickle.read(_saved(torch, net.state_dict(), in_zip=in_zip))
    assert found.keys() == net.state_dict().keys()


@pytest.mark.torch
@pytest.mark.parametrize('in_zip', [False, True])
def test_a_file_cut_short_is_refused(in_zip):
  torch = pytest.importorskip('torch')
  data = _saved(torch, _tensors(torch), in_zip=in_zip)
  for share in (0.0, 0.01, 0.1, 0.5, 0.9, 0.99):
    with pytest.raises(ValueError):  # noqa: PT011 - any message.
      torch_pickle.read(data[: int(share * len(data))])


@pytest.mark.torch
def test_a_compressed_file_is_refused():
  torch = pytest.importorskip('torch')
  data, packed = io.BytesIO(_saved(torch, {}, in_zip=True)), io.BytesIO()
  with (
    zipfile.ZipFile(data) as stored,
    zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as compressed,
  ):
    for name in stored.namelist():
      compressed.writestr(name, stored.read(name))
  with pytest.raises(ValueError, match='is compressed'):
    torch_pickle.read(packed.getvalue())


def _zipped(program):
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as parts:
    parts.writestr('archive/data.pkl', program)
    parts.writestr('archive/data/0', np.zeros(4, np.float32).tobytes())
  return file.getvalue()


def test_a_program_in_the_file_is_not_run(tmp_path):
  # What pickle makes of an object whose __reduce__ is (os.system, (...,)).
  mark = tmp_path / 'ran'
  command = f'touch {mark}'.encode()
  size = len(command).to_bytes(4, 'little')
  program = b'\x80\x02cos\nsystem\nX' + size + command + b'\x85R.'
  with pytest.raises(ValueError, match='os system'):
    torch_pickle.read(_zipped(program))
  assert not mark.exists()


def _tensor_program(shape, strides):
  """One tensor 'x' in storage '0' of four float32, by pickle's operations."""
  number = lambda n: b'J' + n.to_bytes(4, 'little', signed=True)
  text = lambda t: b'X' + len(t).to_bytes(4, 'little') + t.encode()
  row = lambda values: b'(' + b''.join(map(number, values)) + b't'
  storage = (
    b'(' + text('storage') + b'ctorch\nFloatStorage\n' + text('0')
    + text('cpu') + number(4) + b'tQ'
  )  # fmt: skip
  tensor = (
    b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + number(0) + row(shape)
    + row(strides) + b'\x89}tR'
  )  # fmt: skip
  return b'\x80\x02}' + text('x') + tensor + b's.'


def test_a_tensor_that_fits_its_storage_is_read():
  found = torch_pickle.read(_zipped(_tensor_program((2, 2), (2, 1))))
  assert found['x'].shape == (2, 2)


@pytest.mark.parametrize(
  ('shape', 'strides'),
  [((5,), (1,)), ((2, 2), (3, 1)), ((100, 100), (0, 0)), ((-1,), (1,)),
   ((2,), (-1,))],
)  # fmt: skip
def test_a_tensor_beyond_its_storage_is_refused(shape, strides):
  with pytest.raises(ValueError, match='no data|bytes in a file'):
    torch_pickle.read(_zipped(_tensor_program(shape, strides)))


def test_values_shared_by_many_tensors_are_bounded():
  one = _tensor_program((2, 2), (2, 1))
  head, item, end = one[:3], one[3:-2], one[-2:]
  assert torch_pickle.read(_zipped(head + item + end))['x'].size == 4
  text = lambda t: b'X' + len(t).to_bytes(4, 'little') + t.encode()
  many = b''.join(
    item.replace(text('x'), text(f'x{i}'), 1) + b's' for i in range(3000)
  )
  # The file grows by 100 bytes a tensor, so each has to be larger than that.
  assert len(torch_pickle.read(_zipped(head + many + b'.'))) == 3000
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as parts:
    large = many.replace(b'J' + (2).to_bytes(4, 'little'),
                         b'J' + (64).to_bytes(4, 'little'))  # fmt: skip
    parts.writestr('archive/data.pkl', head + large + b'.')
    parts.writestr('archive/data/0', bytes(4 * 64 * 64 * 64))
  with pytest.raises(ValueError, match='bytes in a file of'):
    torch_pickle.read(file.getvalue())


def test_nested_tuples_as_keys_are_refused_at_once():
  # 200 times (x, x): to compare or print it takes for ever.
  doubled = b''.join(
    b'q' + bytes([i]) + b'h' + bytes([i]) + b'\x86' for i in range(200)
  )
  for after in (b'K\x01s.', b'R.'):
    program = b'\x80\x02}' + b')' + doubled + after
    with pytest.raises(ValueError):  # noqa: PT011 - any message.
      torch_pickle.read(_zipped(program))


@pytest.mark.torch
@pytest.mark.parametrize('in_zip', [False, True])
def test_any_damage_ends_in_one_kind_of_error(in_zip):
  torch = pytest.importorskip('torch')
  data = _saved(torch, _tensors(torch), in_zip=in_zip)
  rng = np.random.default_rng(0)
  for _ in range(1500):
    damaged = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 6)):
      damaged[place] = rng.choice([0, 255, rng.integers(0, 256)])
    with contextlib.suppress(ValueError):
      torch_pickle.read(bytes(damaged))
