"""Each network equals its public PyTorch twin, with the same weights."""

import copy
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.metrics import cross_entropy
from skinseg_jax.models import build
from skinseg_jax.training import train_state
from skinseg_jax.weights import torch_layouts

pytestmark = [pytest.mark.torch, pytest.mark.twins]
twins = pytest.importorskip('twins')
models = pytest.importorskip('torch_models')
torch = twins.torch

# Architecture, encoder or width, and parameters as published or as the twin's
# package counts them.
_NETWORKS = [
  ('unet', 'resnet18', 14_328_209),
  ('unet', 'resnet50', 32_521_105),
  ('unet', 'efficientnet_lite0', 5_198_161),
  ('unet', 'efficientnet_lite1', None),
  ('unet', 'efficientnet_lite2', None),
  ('unetplusplus', 'efficientnet_lite0', 5_429_681),
  ('unetplusplus', 'resnet34', 26_078_609),
  ('fpn', 'efficientnet_lite0', 4_710_785),
  ('fpn', 'resnet18', None),
  ('manet', 'efficientnet_lite0', 8_033_159),
  ('manet', 'resnet18', None),
  ('linknet', 'efficientnet_lite0', 3_117_233),
  ('linknet', 'resnet18', 11_663_777),
  ('pspnet', 'efficientnet_lite0', 3_007_111),
  ('pspnet', 'resnet34', 21_437_985),
  ('fcn', 'resnet50', 32_946_753),
  ('fcn', 'resnet18', None),
  ('fcn', 'efficientnet_lite0', None),
  ('deeplabv3', 'resnet50', 39_633_729),
  ('deeplabv3', 'efficientnet_lite0', 6_255_873),
  ('deeplabv3plus', 'resnet18', 12_329_297),
  ('deeplabv3plus', 'efficientnet_lite0', 3_858_769),
  ('attention_unet', 16, 1_987_705),
  ('segnet', 8, None),
  ('resunetplusplus', 16, 4_062_993),
]
_SIZE = 64


def _config(architecture, encoder_or_width):
  config = config_lib.ModelConfig(architecture=architecture)
  if isinstance(encoder_or_width, str):
    config.encoder = encoder_or_width
  else:
    config.width = encoder_or_width
  return config


def _abstract(config):
  """The network as shapes: initial weights would take seconds."""
  return nnx.eval_shape(lambda: build.create(config, seed=0))


class Pair:
  """A network and its twin with the same random weights and statistics."""

  def __init__(self, architecture, encoder_or_width):
    self.config = _config(architecture, encoder_or_width)
    net = twins.build(architecture, self.config.encoder, self.config.width)
    self.net = twins.without_dropout(models.randomise(net))
    model = _abstract(self.config)
    self.names = torch_layouts.tensor_names(model)
    self.weights = models.arrays(self.net)
    self.state = torch_layouts.to_flax(self.weights, model)

  def ours(self, images, *, dtype='float32', training=False):
    """Logits [B, H, W], and gradients by name of the loss of random masks."""
    config = copy.copy(self.config)
    config.compute_dtype = dtype
    model = _abstract(config)
    graphdef = nnx.graphdef(nnx.view(model, use_running_average=not training))
    state = jax.tree.map(lambda x: x.astype(dtype), self.state)
    if not training:
      run = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))
      return np.asarray(run(state, images))[..., 0]

    @jax.jit
    def loss_and_gradients(state, images, masks):
      def loss_fn(model):
        logits = model(images)
        loss = cross_entropy.bce_with_logits(logits, masks).mean()
        return loss, logits[..., 0]

      model = nnx.merge(graphdef, state)
      return nnx.value_and_grad(loss_fn, has_aux=True)(model)

    (_, logits), grads = loss_and_gradients(state, images, _masks(images))
    return np.asarray(logits), torch_layouts.by_name(grads, self.names)

  def theirs(self, images, *, training=False):
    """Likewise, of the twin, in the type of the images."""
    net = copy.deepcopy(self.net).to(torch.from_numpy(images).dtype)
    inputs = twins.normalised(images, self.config.encoder)
    inputs = torch.from_numpy(np.moveaxis(inputs, -1, 1).copy())
    if not training:
      with torch.no_grad():
        return net.eval()(inputs)[:, 0].numpy()
    logits = net.train()(inputs)[:, 0]
    masks = torch.from_numpy(_masks(images)).to(logits.dtype)
    torch.nn.functional.binary_cross_entropy_with_logits(
      logits, masks
    ).backward()
    grads = {
      name: np.zeros(p.shape) if p.grad is None else p.grad.numpy()
      for name, p in net.named_parameters()
    }
    return logits.detach().numpy(), grads


def _images(batch, size, dtype='float32'):
  return np.random.default_rng(0).random((batch, size, size, 3)).astype(dtype)


def _masks(images):
  return np.random.default_rng(1).integers(0, 2, images.shape[:3])


def _relative(ours, theirs):
  return np.abs(ours - theirs).max() / np.abs(theirs).max()


@functools.cache
def _pair(architecture, encoder_or_width):
  return Pair(architecture, encoder_or_width)


networks = pytest.mark.parametrize(
  ('architecture', 'variant', 'parameters'),
  _NETWORKS,
  ids=[f'{name}-{variant}' for name, variant, _ in _NETWORKS],
)


@networks
def test_parameters_and_names_are_the_twins(architecture, variant, parameters):
  pair = _pair(architecture, variant)
  theirs = sum(p.numel() for p in pair.net.parameters())
  ours = train_state.count(pair.state, nnx.Param)
  assert ours == theirs
  assert ours == (parameters or ours)
  # And back, every bit.
  model = _abstract(pair.config)
  nnx.update(model, pair.state)
  back = torch_layouts.from_flax(model)
  assert back.keys() == pair.weights.keys()
  for name, values in back.items():
    if not name.endswith('num_batches_tracked'):
      assert np.array_equal(values, pair.weights[name]), name


@networks
def test_logits_in_evaluation_are_the_twins(architecture, variant, parameters):
  pair = _pair(architecture, variant)
  images = _images(1, 128)
  assert _relative(pair.ours(images), pair.theirs(images)) < 1e-4


@networks
def test_logits_and_gradients_in_training_are_the_twins(
  architecture, variant, parameters
):
  pair = _pair(architecture, variant)
  images = _images(2, _SIZE, 'float64')
  with jax.enable_x64(True):
    logits, grads = pair.ours(images, dtype='float64', training=True)
  their_logits, their_grads = pair.theirs(images, training=True)
  assert _relative(logits, their_logits) < 1e-9
  assert grads.keys() == their_grads.keys()
  # Of what a batch norm takes away again, nothing but rounding is left.
  whole = max(np.abs(g).max() for g in their_grads.values())
  for name, theirs in their_grads.items():
    scale = max(np.abs(theirs).max(), 1e-6 * whole)
    assert np.abs(grads[name] - theirs).max() / scale < 1e-7, name
