"""Small networks of every architecture with weights like trained ones."""

import jax
import numpy as np
from flax import nnx

from skinseg_jax.models import build

# Architecture, encoder, width, size in pixels.
NETWORKS = [
  ('unet', '', 2, 16),
  ('unet', 'efficientnet_lite0', 64, 32),
  ('fcn', 'resnet18', 64, 32),
  ('segnet', '', 2, 48),  # 3 pixels, an odd number, reach the last pooling.
  ('deeplabv3', 'resnet18', 64, 32),
  ('deeplabv3plus', 'resnet18', 64, 32),
  ('attention_unet', '', 2, 16),
  ('unetplusplus', 'resnet18', 64, 32),
  ('resunetplusplus', '', 8, 16),
  ('fpn', 'resnet18', 64, 32),
  ('manet', 'resnet18', 64, 64),
  ('linknet', 'resnet18', 64, 32),
  ('pspnet', 'resnet18', 64, 64),
]


def random_state(config):
  """Weights like trained ones: the image reaches the output.

  Kernels keep the variance of what passes through them. Statistics and biases
  differ from channel to channel, so that a mistake in folding them shows.
  """
  rng = np.random.default_rng(0)
  abstract = nnx.eval_shape(lambda: build.create(config, seed=0))

  def draw(leaf):
    if len(leaf.shape) < 2:
      return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
    if leaf.shape[-1] == 1:
      # The head: logits stay below 20, as in trained networks. Rounding grows
      # with them: at 170, float32 alone costs 1e-4 of probability.
      deviation /= 10
    return rng.normal(0, deviation, leaf.shape).astype(np.float32)

  return jax.tree.map(draw, nnx.state(abstract))
