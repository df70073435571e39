"""1x1 convolutions as matrix products, for CPUs."""

import jax

from skinseg_jax.models.cpu import products


def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """1x1 convolution; [B, H, W, in] and [1, 1, in, out] to [B, H, W, out]."""
  return _times(x, kernel[0, 0])


def input_grad(dy: jax.Array, kernel: jax.Array) -> jax.Array:
  """Gradient of `conv` with respect to its image, like the image."""
  return _times(dy, kernel[0, 0].T)


def kernel_grad(x: jax.Array, dy: jax.Array) -> jax.Array:
  """Gradient of `conv` with respect to its kernel, [1, 1, in, out]."""
  return products.over_pixels(x, dy)[None, None]


def _times(x, matrix):
  y = x.reshape(-1, x.shape[-1]) @ matrix
  return y.reshape(*x.shape[:-1], -1)
