"""Predicts logits and features from uint8 images."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from skinseg_jax.runtime import compilation


class Views(NamedTuple):
  """The predictions of a network for each view of B images.

  Attributes:
    logits: Turned back to the orientation of the images, float32
      [V, B, H, W, 1].
    features: Means of the deepest feature maps over all positions, float32
      [V, B, C].
  """

  logits: jax.Array
  features: jax.Array


# All predictions use this program, so that the same weights and images always
# give the same bits.
@functools.partial(compilation.jit, static_argnames='views')
def each_view(
  eval_graphdef: nnx.GraphDef,
  model_state: Any,
  images: jax.Array,
  *,
  views: str,
) -> Views:
  """Predicts each view of the images.

  Args:
    eval_graphdef: Static structure of the model, in evaluation mode.
    model_state: Its parameters and running statistics.
    images: uint8 [B, H, W, 3].
    views: As in `config.evaluation.test_time_augmentation`. 'off': only the
      image. 'flips': also its three mirror images (up-down, left-right, both).
      'dihedral': also these four rotated by 90 degrees; needs H = W.

  Returns:
    1, 4 or 8 views; the first is of the images themselves.
  """
  model = nnx.merge(eval_graphdef, model_state)

  def predict(images):
    images = images.astype(np.float32) / 255.0
    # The compiler computes the shared part only once.
    deepest = model.deepest(images).astype(np.float32)
    return Views(model(images), deepest.mean(axis=(1, 2)))

  return of_views(predict, images, views)


def of_views(
  predict: Callable[[jax.Array], Views], images: jax.Array, views: str
) -> Views:
  """Predicts turned images, and turns the logits back.

  Args:
    predict: From [B, H, W, C] to logits [B, H, W, 1] and features [B, F].
    images: [B, H, W, C].
    views: As in `each_view`.

  Returns:
    As `each_view` does.
  """
  if views == 'off':
    return jax.tree.map(lambda x: x[None], predict(images))
  maps = _DIHEDRAL if views == 'dihedral' else _DIHEDRAL[:4]
  # `map` predicts one view after the other with one copy of the program.
  turned = jnp.stack([_turn(images, *m) for m in maps])
  logits, features = jax.lax.map(predict, turned)
  # Views are rotated first, then mirrored; this is undone in reverse order.
  upright = [_turn_back(view, *m) for view, m in zip(logits, maps, strict=True)]
  return Views(jnp.stack(upright), features)


@jax.jit
def mean_of_views(logits: jax.Array) -> jax.Array:
  """Logits of the mean probability of views, [V, ...] to float32 [...]."""
  if len(logits) == 1:
    return logits[0]
  # Logarithms keep the precision of probabilities near 0 and 1.
  log_sum = lambda x: jax.nn.logsumexp(jax.nn.log_sigmoid(x), axis=0)
  return log_sum(logits) - log_sum(-logits)


def forward(
  eval_graphdef: nnx.GraphDef,
  model_state: Any,
  images: jax.Array,
  *,
  views: str,
) -> jax.Array:
  """Predicts logits of the mean probability of some views.

  All arguments are those of `each_view`.

  Returns:
    float32 [B, H, W, 1].
  """
  found = each_view(eval_graphdef, model_state, images, views=views)
  return mean_of_views(found.logits)


# Whether to rotate by 90 degrees, to mirror up-down, to mirror left-right.
_DIHEDRAL = tuple(itertools.product((False, True), repeat=3))


def _turn(x: jax.Array, turn: bool, vertical: bool, horizontal: bool):
  """One of the eight views of [B, H, W, C]."""
  x = jnp.rot90(x, axes=(1, 2)) if turn else x
  return x[:, :: -1 if vertical else 1, :: -1 if horizontal else 1]


def _turn_back(x: jax.Array, turn: bool, vertical: bool, horizontal: bool):
  x = x[:, :: -1 if vertical else 1, :: -1 if horizontal else 1]
  return jnp.rot90(x, k=-1, axes=(1, 2)) if turn else x


@jax.jit
def probabilities(logits: jax.Array) -> jax.Array:
  """Probability of lesion, float32 [...], of logits [..., 1]."""
  return jax.nn.sigmoid(logits[..., 0])
