import errno
import json
import pathlib
import re
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import remedies

from skinseg_jax.runtime import errors
from skinseg_jax.weights import tensor_files


def _equal(one, other):
  assert one.keys() == other.keys()
  for name, values in one.items():
    np.testing.assert_array_equal(values, other[name], name, strict=True)


@pytest.mark.torch
def test_read_only_arrays_are_written_without_a_warning(tmp_path):
  pytest.importorskip('torch')
  values = np.ones(2, np.float32)
  values.flags.writeable = False  # Like arrays from JAX.
  path = tmp_path / 'weights.pt'
  tensor_files.write(path, {'a': values})
  _equal({'a': values}, tensor_files.read(path))


@pytest.mark.torch
def test_parameters_and_narrow_types_are_read(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'my_checkpoint.pth.tar'
  parameter = torch.nn.Parameter(torch.tensor([1.5]))
  assert parameter.requires_grad
  tensors = {
    'parameter': parameter,
    'half': torch.tensor([1.5], dtype=torch.float16),
    'brain': torch.tensor([1.5], dtype=torch.bfloat16),
  }
  torch.save({'state_dict': tensors, 'optimizer': {'state': {}}}, path)
  types = (np.float32, np.float16, jnp.bfloat16)
  expected = {
    name: np.array([1.5], dtype)
    for name, dtype in zip(tensors, types, strict=True)
  }
  _equal(expected, tensor_files.read(path))


@pytest.mark.parametrize(
  'prefix', ['module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.']
)
def test_names_come_without_what_wrappers_put_before(tmp_path, prefix):
  path = tmp_path / 'x.safetensors'
  values = np.ones(2, np.float32)
  tensor_files.write(path, {f'{prefix}a.module.b': values})
  _equal({'a.module.b': values}, tensor_files.read(path))


def test_two_tensors_of_one_name_are_refused(tmp_path):
  path = tmp_path / 'x.safetensors'
  values = np.ones(2, np.float32)
  tensor_files.write(path, {'module.a': values, 'a': 2 * values, 'b': values})
  with pytest.raises(errors.InputError) as error:
    tensor_files.read(path)
  assert '\n  module.a\n  a\n' in str(error.value)
  assert '  b\n' not in str(error.value)


@pytest.mark.torch
def test_a_pickled_program_is_not_run(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'model.pt'
  torch.save(torch.nn.Linear(1, 1), path)
  with pytest.raises(errors.InputError, match='model.state_dict()'):
    tensor_files.read(path)
  torch.save({'epoch': 3}, path)
  with pytest.raises(errors.InputError, match='no named tensors'):
    tensor_files.read(path)


def test_safetensors_by_hand(tmp_path):
  # Two tensors: a = [[1, 2]] in float32, b = 1.5 in bfloat16 (0x3FC0).
  header = json.dumps(
    {
      '__metadata__': {'format': 'pt'},
      'a': {'dtype': 'F32', 'shape': [1, 2], 'data_offsets': [0, 8]},
      'b': {'dtype': 'BF16', 'shape': [], 'data_offsets': [8, 10]},
    }
  ).encode()
  body = np.array([1, 2], '<f4').tobytes() + b'\xc0\x3f'
  path = tmp_path / 'x.safetensors'
  path.write_bytes(len(header).to_bytes(8, 'little') + header + body)
  tensors = tensor_files.read(path)
  assert tensors['a'].tolist() == [[1.0, 2.0]]
  assert float(tensors['b']) == 1.5


@pytest.mark.parametrize('keep', [4, 40, -3])
def test_cut_file_is_refused(tmp_path, keep):
  path = tmp_path / 'weights.safetensors'
  tensor_files.write(path, {'a': np.ones((2, 3), np.float32)})
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(errors.InputError, match='not a complete safetensors'):
    tensor_files.read(path)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('none.safetensors', 'No such file.*--weights'),
    ('weights.h5', 'end in .safetensors, .pt, .pth or .pth.tar'),
  ],
)
def test_other_files_are_refused(tmp_path, name, message):
  (tmp_path / 'weights.h5').write_bytes(b'')
  with pytest.raises(errors.InputError, match=message):
    tensor_files.read(tmp_path / name)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
  path = tmp_path / 'x.safetensors'
  tensor_files.write(path, {'a': np.ones(2, np.float32)})

  # chmod would not stop root.
  def refuse(*args, **kwargs):
    raise PermissionError(errno.EACCES, 'Permission denied')

  monkeypatch.setattr(pathlib.Path, 'open', refuse)
  with pytest.raises(errors.InputError, match='Permission denied.*--weights'):
    tensor_files.read(path)


@pytest.mark.parametrize(
  'name', ['x.safetensors', pytest.param('x.pt', marks=pytest.mark.torch)]
)
def test_a_file_that_cannot_be_written(tmp_path, name):
  if name.endswith('.pt'):
    pytest.importorskip('torch')
  path = tmp_path / 'missing' / name
  with pytest.raises(errors.InputError, match=f'{path}.*--export'):
    tensor_files.write(path, {'a': np.ones(2, np.float32)})
  taken = tmp_path / name
  taken.mkdir()
  with pytest.raises(errors.InputError, match=f'{taken}.*--export'):
    tensor_files.write(taken, {'a': np.ones(2, np.float32)})
  assert list(tmp_path.iterdir()) == [taken]


# --- Remedies: applied as the message says them ------------------------------

_ONE = {'a': np.ones(2, np.float32)}


def test_remedy_of_two_tensors_of_one_name(tmp_path):
  path = tmp_path / 'x.safetensors'
  tensor_files.write(path, {'module.a': _ONE['a'], 'a': 2 * _ONE['a']})
  with pytest.raises(
    errors.InputError, match='Save the weights of one network'
  ):
    tensor_files.read(path)
  tensor_files.write(path, {'module.a': _ONE['a']})
  _equal(_ONE, tensor_files.read(path))


def _safetensors(dtype, size):
  entry = {'dtype': dtype, 'shape': [2], 'data_offsets': [0, size]}
  header = json.dumps({'a': entry}).encode()
  return len(header).to_bytes(8, 'little') + header + bytes(size)


def test_remedy_of_a_type_that_is_not_read(tmp_path):
  path = tmp_path / 'x.safetensors'
  path.write_bytes(_safetensors('I16', 4))
  with pytest.raises(errors.InputError, match='save it again') as caught:
    tensor_files.read(path)
  (types,) = re.findall(r'tensors of type (.+?) \(', str(caught.value))
  sizes = {'F64': 16, 'F32': 8, 'F16': 4, 'BF16': 4, 'I64': 16}
  for dtype in types.split(', '):
    path.write_bytes(_safetensors(dtype, sizes[dtype]))
    assert tensor_files.read(path)['a'].tolist() == [0, 0]


def test_remedy_of_a_cut_file(tmp_path):
  path = tmp_path / 'x.safetensors'
  tensor_files.write(path, _ONE)
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(errors.InputError, match='download or save it again'):
    tensor_files.read(path)
  tensor_files.write(path, _ONE)
  _equal(_ONE, tensor_files.read(path))


def test_remedies_of_files_that_cannot_be_opened(tmp_path):
  path = tmp_path / 'gone' / 'x.safetensors'
  with pytest.raises(errors.InputError, match='a file that can be read'):
    tensor_files.read(path)
  with pytest.raises(errors.InputError, match='in a folder that exists'):
    tensor_files.write(path, _ONE)
  path.parent.mkdir()
  tensor_files.write(path, _ONE)
  _equal(_ONE, tensor_files.read(path))


def _endings(action):
  with pytest.raises(errors.InputError, match='must end in') as caught:
    action()
  return re.findall(r'\.[a-z.]*[a-z]', str(caught.value).partition('end in')[2])


@pytest.mark.torch
def test_remedy_of_other_endings(tmp_path):
  torch = pytest.importorskip('torch')
  other = tmp_path / 'x.h5'
  other.write_bytes(b'')
  written = _endings(lambda: tensor_files.write(other, _ONE))
  assert written == ['.safetensors', '.pt', '.pth']
  for ending in written:
    tensor_files.write(tmp_path / f'x{ending}', _ONE)
    _equal(_ONE, tensor_files.read(tmp_path / f'x{ending}'))
  read = _endings(lambda: tensor_files.read(other))
  assert read == [*written, '.pth.tar']
  torch.save({'a': torch.ones(2)}, tmp_path / 'x.pth.tar')
  _equal(_ONE, tensor_files.read(tmp_path / 'x.pth.tar'))


@pytest.mark.torch
@pytest.mark.parametrize('whole_model', [True, False])
def test_remedy_of_a_file_of_other_things(tmp_path, whole_model):
  torch = pytest.importorskip('torch')
  model, file = torch.nn.Linear(1, 1), tmp_path / 'model.pt'
  torch.save(model if whole_model else {'epoch': 3}, file)
  with pytest.raises(errors.InputError) as caught:
    tensor_files.read(file)
  (call,) = re.findall(r'torch\.save\(.*\)', str(caught.value))
  assert call == 'torch.save(model.state_dict(), file)'
  torch.save(model.state_dict(), file)
  assert set(tensor_files.read(file)) == {'weight', 'bias'}


def test_remedies_without_pytorch(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(errors.InputError, match='or use .safetensors') as caught:
    tensor_files.write(tmp_path / 'x.pt', _ONE)
  assert 'torch' in remedies.extra(caught.value)
  tensor_files.write(tmp_path / 'x.safetensors', _ONE)
  _equal(_ONE, tensor_files.read(tmp_path / 'x.safetensors'))
