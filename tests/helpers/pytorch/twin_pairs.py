"""A network and its PyTorch twin with the same random weights.

Importing this skips the importing module where a package is missing.
"""

import copy

import jax
import numpy as np
import pytest
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.metrics import cross_entropy
from skinseg_jax.models import build
from skinseg_jax.weights import torch_layouts

twins = pytest.importorskip('twins')
models = pytest.importorskip('torch_models')
torch = twins.torch

# Architecture, encoder or width, and parameters as published or as the twin's
# package counts them.
NETWORKS = [
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


def _config(architecture, encoder_or_width):
  config = config_lib.ModelConfig(architecture=architecture)
  if isinstance(encoder_or_width, str):
    config.encoder = encoder_or_width
  else:
    config.width = encoder_or_width
  return config


def abstract(config):
  """The network as shapes: initial weights would take seconds."""
  return nnx.eval_shape(lambda: build.create(config, seed=0))


class Pair:
  """A network and its twin with the same random weights and statistics."""

  def __init__(self, architecture, encoder_or_width):
    self.config = _config(architecture, encoder_or_width)
    net = twins.build(architecture, self.config.encoder, self.config.width)
    self.net = twins.without_dropout(models.randomise(net))
    model = abstract(self.config)
    self.names = torch_layouts.tensor_names(model)
    self.weights = models.arrays(self.net)
    self.state = torch_layouts.to_flax(self.weights, model)

  def ours(self, images, *, training=False):
    """Logits [B, H, W], float32."""
    graphdef, state = self._split('float32', training)
    run = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))
    return np.asarray(run(state, images))[..., 0]

  def _split(self, dtype, training):
    config = copy.copy(self.config)
    config.compute_dtype = dtype
    model = abstract(config)
    graphdef = nnx.graphdef(nnx.view(model, use_running_average=not training))
    return graphdef, jax.tree.map(lambda x: x.astype(dtype), self.state)

  def our_gradients(self, images):
    """Logits in training, and gradients by name of the loss of random masks.

    In float64, which must be enabled.
    """
    graphdef, state = self._split('float64', training=True)

    @jax.jit
    def loss_and_gradients(state, images, masks):
      def loss_fn(model):
        logits = model(images)
        loss = cross_entropy.bce_with_logits(logits, masks).mean()
        return loss, logits[..., 0]

      model = nnx.merge(graphdef, state)
      return nnx.value_and_grad(loss_fn, has_aux=True)(model)

    masks = _masks(images)
    # Compiled in half of the time; it runs once.
    compiled = loss_and_gradients.lower(state, images, masks).compile(
      compiler_options={'xla_backend_optimization_level': 0}
    )
    (_, logits), grads = compiled(state, images, masks)
    return np.asarray(logits), torch_layouts.by_name(grads, self.names)

  def theirs(self, images, *, training=False):
    """Logits of the twin, in the type of the images."""
    with torch.no_grad():
      return self._call(images, training)[0].numpy()

  def _call(self, images, training):
    net = copy.deepcopy(self.net).to(torch.from_numpy(images).dtype)
    inputs = twins.normalised(images, self.config.encoder)
    inputs = torch.from_numpy(np.moveaxis(inputs, -1, 1).copy())
    return net.train(training)(inputs)[:, 0], net

  def their_gradients(self, images):
    """What `our_gradients` returns, of the twin."""
    logits, net = self._call(images, training=True)
    masks = torch.from_numpy(_masks(images)).to(logits.dtype)
    torch.nn.functional.binary_cross_entropy_with_logits(
      logits, masks
    ).backward()
    grads = {
      name: np.zeros(p.shape) if p.grad is None else p.grad.numpy()
      for name, p in net.named_parameters()
    }
    return logits.detach().numpy(), grads


def noise(batch, size, dtype='float32'):
  return np.random.default_rng(0).random((batch, size, size, 3)).astype(dtype)


def _masks(images):
  return np.random.default_rng(1).integers(0, 2, images.shape[:3])
