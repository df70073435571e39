"""Convolutions in the form that every device can compute."""

import jax
import jax.numpy as jnp
from jax import lax

LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution with a border of zeros, stride 1.

  Args:
    x: Float [B, H, W, in].
    kernel: Float [3, 3, in, out], of the same type.

  Returns:
    Float [B, H, W, out].
  """
  return lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=LAYOUT
  )


def conv3x3_kernel_grad(x: jax.Array, dy: jax.Array) -> jax.Array:
  """Gradient of `conv3x3` with respect to its kernel.

  Args:
    x: Float [B, H, W, in].
    dy: Cotangent of the result, [B, H, W, out], of the same type.

  Returns:
    Float [3, 3, in, out].
  """
  kernel = jnp.zeros((3, 3, x.shape[-1], dy.shape[-1]), x.dtype)
  _, vjp = jax.vjp(lambda k: conv3x3(x, k), kernel)
  return vjp(dy)[0]


def widened(x: jax.Array) -> jax.Array:
  """At least float32: sums of narrower types would lose digits."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
