"""Small networks of every architecture with weights like trained ones."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from skinseg_jax.models import build, layers

# Architecture, encoder, width, size in pixels.
NETWORKS = [
  ('unet', '', 2, 16),
  ('unet', 'efficientnet_lite0', 64, 32),
  ('fcn', 'resnet18', 64, 32),
  ('segnet', '', 2, 64),
  ('deeplabv3', 'resnet18', 64, 32),
  ('deeplabv3plus', 'resnet50', 64, 32),
  ('attention_unet', '', 2, 16),
  ('unetplusplus', 'resnet18', 64, 32),
  ('resunetplusplus', '', 8, 16),
  ('fpn', 'resnet18', 64, 32),
  ('manet', 'resnet18', 64, 64),
  ('linknet', 'resnet18', 64, 32),
  ('pspnet', 'resnet18', 64, 64),
]


def random_state(config):
  """Random weights.

  Kernels keep the variance of what passes through them. Statistics and biases
  differ from channel to channel, so that a mistake in folding them shows.
  """
  rng = np.random.default_rng(0)
  abstract = nnx.eval_shape(lambda: build.create(config, seed=0))

  def draw(leaf):
    if len(leaf.shape) < 2:
      return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
    return rng.normal(0, deviation, leaf.shape).astype(np.float32)

  return jax.tree.map(draw, nnx.state(abstract))


def _normalised(config, state, images):
  """Takes the running statistics from a batch, as training does.

  ResUNet++ multiplies features by each other. Without normalisation they grow
  to 1e8, and their rounding errors say nothing about a trained network.
  """
  abstract = nnx.eval_shape(lambda: build.create(config, seed=0))
  graphdef, parameters, statistics = nnx.split(
    nnx.merge(nnx.graphdef(abstract), state), nnx.Param, nnx.BatchStat
  )

  @jax.jit
  def run(images):
    zeros = jax.tree.map(jnp.zeros_like, statistics)
    model = nnx.merge(graphdef, parameters, zeros)
    model(images.astype(jnp.float32) / 255)
    return nnx.state(model, nnx.BatchStat)

  found = jax.tree.map(lambda x: x / (1 - layers.MOMENTUM), run(images))
  return nnx.merge_state(parameters, found)


def trained_like(config, images):
  """Weights like trained ones: the image reaches the output.

  The head is scaled so that the logits of the pictures have mean 0 and standard
  deviation 2. With larger ones rounding would grow, and with smaller ones
  mistakes would not show.

  Args:
    config: Which network.
    images: Pictures, uint8 [B, H, W, 3].

  Returns:
    Its state, and Flax's probabilities of the pictures, float32 [B, H, W].
  """
  state = random_state(config)
  if config.architecture == 'resunetplusplus':
    state = _normalised(config, state, images)
  graphdef = build.in_evaluation_mode(
    nnx.eval_shape(lambda: build.create(config, seed=0))
  )

  def predict(state, images):
    return nnx.merge(graphdef, state)(images.astype(jnp.float32) / 255)[..., 0]

  # Compiled in half of the time; it runs twice.
  compiled = (
    jax.jit(predict)
    .lower(state, images)
    .compile(compiler_options={'xla_backend_optimization_level': 0})
  )
  logits = np.asarray(compiled(state, images), np.float64)
  scale = 2 / logits.std()

  def fit(path, leaf):
    if 'head' not in str(path[0]):
      return leaf
    # The head is affine: its bias adds to each logit.
    moved = leaf if leaf.ndim > 1 else leaf - logits.mean()
    return np.float32(scale * moved)

  state = jax.tree_util.tree_map_with_path(fit, state)
  probabilities = np.asarray(jax.nn.sigmoid(compiled(state, images)))
  assert 0.05 < probabilities.std() < 0.4
  return state, probabilities
