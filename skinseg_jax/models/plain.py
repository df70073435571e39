"""Convolutions in the form that every device can compute."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

LAYOUT = ('NHWC', 'HWIO', 'NHWC')


class Geometry(NamedTuple):
  """What a convolution needs besides image and kernel.

  Attributes:
    stride: Of the windows, in both directions.
    padding: Rows of zeros above and below, columns left and right.
    dilation: Distance of neighbouring taps.
    groups: 1, or the number of channels for a depthwise convolution.
  """

  stride: int = 1
  padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
  dilation: int = 1
  groups: int = 1


def output_size(
  size: Sequence[int], taps: Sequence[int], geometry: Geometry
) -> tuple[int, int]:
  """Height and width of what a convolution of a kernel of `taps` returns."""
  height, width = (
    (n + sum(pad) - geometry.dilation * (k - 1) - 1) // geometry.stride + 1
    for n, k, pad in zip(size, taps, geometry.padding, strict=True)
  )
  return height, width


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
  """Convolution.

  Args:
    x: Float [B, H, W, in].
    kernel: Float [height, width, in / groups, out], of the same type.
    geometry: See there.

  Returns:
    Float [B, H', W', out]; `output_size` says how high and wide.
  """
  return lax.conv_general_dilated(
    x,
    kernel,
    (geometry.stride, geometry.stride),
    geometry.padding,
    rhs_dilation=(geometry.dilation, geometry.dilation),
    dimension_numbers=LAYOUT,
    feature_group_count=geometry.groups,
  )


def conv_input_grad(
  dy: jax.Array,
  kernel: jax.Array,
  size: tuple[int, int],
  geometry: Geometry,
) -> jax.Array:
  """Gradient of `conv` with respect to its image.

  Args:
    dy: Cotangent of the result, [B, H', W', out].
    kernel: Float [height, width, in / groups, out], of the same type.
    size: Height and width of the image.
    geometry: As in `conv`.

  Returns:
    Float [B, *size, in].
  """
  channels = kernel.shape[2] * geometry.groups
  image = jax.ShapeDtypeStruct((len(dy), *size, channels), dy.dtype)
  return jax.linear_transpose(lambda x: conv(x, kernel, geometry), image)(dy)[0]


def conv_kernel_grad(
  x: jax.Array, dy: jax.Array, taps: tuple[int, int], geometry: Geometry
) -> jax.Array:
  """Gradient of `conv` with respect to its kernel.

  Args:
    x: Float [B, H, W, in].
    dy: Cotangent of the result, [B, H', W', out], of the same type.
    taps: Height and width of the kernel.
    geometry: As in `conv`.

  Returns:
    Float [*taps, in / groups, out].
  """
  shape = (*taps, x.shape[-1] // geometry.groups, dy.shape[-1])
  kernel = jax.ShapeDtypeStruct(shape, x.dtype)
  return jax.linear_transpose(lambda k: conv(x, k, geometry), kernel)(dy)[0]


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
