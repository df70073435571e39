"""1x1 convolutions of stride 1 as matrix products, for CPUs."""

import jax

from skinseg_jax.models import plain
from skinseg_jax.models.cpu import products


def conv(
  x: jax.Array, kernel: jax.Array, geometry: plain.Geometry
) -> jax.Array:
  """What `plain.conv` computes, with a kernel [1, 1, in, out]."""
  del geometry  # Stride 1, no padding.
  return _times(x, kernel[0, 0])


def input_grad(
  dy: jax.Array,
  kernel: jax.Array,
  size: tuple[int, int],
  geometry: plain.Geometry,
) -> jax.Array:
  """What `plain.conv_input_grad` computes."""
  del size, geometry  # As those of dy.
  return _times(dy, kernel[0, 0].T)


def kernel_grad(
  x: jax.Array,
  dy: jax.Array,
  taps: tuple[int, int],
  geometry: plain.Geometry,
) -> jax.Array:
  """What `plain.conv_kernel_grad` computes, [1, 1, in, out]."""
  del taps, geometry
  return products.over_pixels(x, dy)[None, None]


def _times(x, matrix):
  y = x.reshape(-1, x.shape[-1]) @ matrix
  return y.reshape(*x.shape[:-1], -1)
