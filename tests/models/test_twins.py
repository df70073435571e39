"""Each network equals its public PyTorch twin, with the same weights."""

import jax
import numpy as np
import pytest
from flax import nnx

from skinseg_jax.models import blocks
from skinseg_jax.training import train_state
from skinseg_jax.weights import torch_layouts

pytestmark = [pytest.mark.torch, pytest.mark.twins, pytest.mark.slow]
twin_pairs = pytest.importorskip('twin_pairs')

_SIZE = 64


def _relative(ours, theirs):
  return np.abs(ours - theirs).max() / np.abs(theirs).max()


# Each decoder and each kind of block: a gradient takes 20 seconds to compile.
_TRAINED = {
  ('unet', 'resnet50'),
  ('unet', 'efficientnet_lite0'),
  ('unetplusplus', 'efficientnet_lite0'),
  ('fpn', 'resnet18'),
  ('manet', 'resnet18'),
  ('linknet', 'resnet18'),
  ('pspnet', 'efficientnet_lite0'),
  ('fcn', 'resnet18'),
  ('deeplabv3', 'efficientnet_lite0'),
  ('deeplabv3plus', 'resnet18'),
  ('attention_unet', 16),
  ('segnet', 8),
  ('resunetplusplus', 16),
}


# One after the other: all of them at once would take gigabytes.
@pytest.fixture(scope='module')
def network(request):
  architecture, variant, parameters = request.param
  return twin_pairs.Pair(architecture, variant), parameters


def test_those_trained_are_there():
  assert {row[:2] for row in twin_pairs.NETWORKS} >= _TRAINED


def _each(networks):
  return pytest.mark.parametrize(
    'network',
    networks,
    indirect=True,
    ids=[f'{name}-{variant}' for name, variant, _ in networks],
    scope='module',
  )


_all_networks = _each(twin_pairs.NETWORKS)


@_all_networks
def test_parameters_and_names_are_the_twins(network):
  pair, parameters = network
  theirs = sum(p.numel() for p in pair.net.parameters())
  ours = train_state.count(pair.state, nnx.Param)
  assert ours == theirs
  assert ours == (parameters or ours)
  # And back, every bit.
  model = twin_pairs.abstract(pair.config)
  nnx.update(model, pair.state)
  back = torch_layouts.from_flax(model)
  assert back.keys() == pair.weights.keys()
  for name, values in back.items():
    if not name.endswith('num_batches_tracked'):
      assert np.array_equal(values, pair.weights[name]), name


@pytest.mark.parametrize('separable', [False, True])
def test_atrous_pyramids_are_the_twins(separable):
  # Large enough that every tap lies inside: 64 px leave the centre alone.
  channels, rates = 6, (12, 24, 36)
  theirs = twin_pairs.twins.atrous_pyramid(channels, rates, separable)
  theirs = twin_pairs.models.randomise(theirs)
  ours = nnx.eval_shape(
    lambda: blocks.AtrousPyramid(
      channels, rates, separable=separable, features=8,
      dtype=np.float32, rngs=nnx.Rngs(0),
    )
  )  # fmt: skip
  state = torch_layouts.to_flax(twin_pairs.models.arrays(theirs), ours)
  graphdef = nnx.graphdef(nnx.view(ours, use_running_average=True))
  x = np.random.default_rng(0).random((1, 80, 80, channels), np.float32)
  found = nnx.merge(graphdef, state)(x, None)
  with twin_pairs.torch.no_grad():
    inputs = twin_pairs.torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    expected = theirs.eval()(inputs).numpy()
  assert _relative(np.moveaxis(np.asarray(found), -1, 1), expected) < 1e-5


@_all_networks
def test_logits_in_evaluation_are_the_twins(network):
  pair, _ = network
  images = twin_pairs.noise(1, 128)
  assert _relative(pair.ours(images), pair.theirs(images)) < 1e-4


@_each([row for row in twin_pairs.NETWORKS if row[:2] in _TRAINED])
def test_logits_and_gradients_in_training_are_the_twins(network):
  pair, _ = network
  images = twin_pairs.noise(2, _SIZE, 'float64')
  with jax.enable_x64(True):
    logits, grads = pair.our_gradients(images)
  their_logits, their_grads = pair.their_gradients(images)
  assert _relative(logits, their_logits) < 1e-9
  assert grads.keys() == their_grads.keys()
  # Of what a batch norm takes away again, nothing but rounding is left.
  whole = max(np.abs(g).max() for g in their_grads.values())
  for name, theirs in their_grads.items():
    scale = max(np.abs(theirs).max(), 1e-6 * whole)
    assert np.abs(grads[name] - theirs).max() / scale < 1e-7, name
