"""Dilated convolutions of stride 1 as sums of matrix products, for CPUs.

With a dilation near the size of the image, most of what the taps of the kernel
see is the border of zeros. Here each tap multiplies only what it sees of the
image. Where that is most of it, the plain form is as fast, and used.
"""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from skinseg_jax.models import plain
from skinseg_jax.models.cpu import products


def conv(
  x: jax.Array, kernel: jax.Array, geometry: plain.Geometry
) -> jax.Array:
  """What `plain.conv` computes, for results of the image's size."""
  if _sees_most(x.shape[1:3], kernel.shape[:2], geometry):
    return plain.conv(x, kernel, geometry)
  total = jnp.zeros((*x.shape[:3], kernel.shape[-1]), x.dtype)
  total = plain.widened(total)
  for i, j, there, here in _parts(x.shape[1:3], kernel.shape[:2], geometry):
    total = total.at[here].add(_times(x[there], kernel[i, j]))
  return total.astype(x.dtype)


def input_grad(
  dy: jax.Array,
  kernel: jax.Array,
  size: tuple[int, int],
  geometry: plain.Geometry,
) -> jax.Array:
  """What `plain.conv_input_grad` computes, likewise."""
  if _sees_most(size, kernel.shape[:2], geometry):
    return plain.conv_input_grad(dy, kernel, size, geometry)
  total = jnp.zeros((*dy.shape[:3], kernel.shape[2]), dy.dtype)
  total = plain.widened(total)
  for i, j, there, here in _parts(size, kernel.shape[:2], geometry):
    total = total.at[there].add(_times(dy[here], kernel[i, j].T))
  return total.astype(dy.dtype)


def kernel_grad(
  x: jax.Array,
  dy: jax.Array,
  taps: tuple[int, int],
  geometry: plain.Geometry,
) -> jax.Array:
  """What `plain.conv_kernel_grad` computes, likewise."""
  if _sees_most(x.shape[1:3], taps, geometry):
    return plain.conv_kernel_grad(x, dy, taps, geometry)
  total = jnp.zeros((*taps, x.shape[-1], dy.shape[-1]), x.dtype)
  for i, j, there, here in _parts(x.shape[1:3], taps, geometry):
    total = total.at[i, j].set(products.over_pixels(x[there], dy[here]))
  return total


def _sees_most(size, taps, geometry) -> bool:
  """Whether the taps see more of the image than of the border."""
  areas = [
    math.prod(part.stop - part.start for part in here[1:])
    for *_, here in _parts(size, taps, geometry)
  ]
  return sum(areas) > math.prod((*size, *taps)) / 2


def _times(x, matrix):
  """Products over the last axis, at least float32."""
  wide = plain.widened(jnp.zeros((), x.dtype)).dtype
  return jax.lax.dot_general(
    x, matrix, (((3,), (0,)), ((), ())), preferred_element_type=wide
  )


def _parts(
  size: tuple[int, ...], taps: tuple[int, ...], geometry: plain.Geometry
) -> Iterator[tuple[int, int, tuple[slice, ...], tuple[slice, ...]]]:
  """Each tap that sees a part of the image.

  Yields:
    Its row and column, the part that it sees, and the part of the result that
    this contributes to.
  """
  rows, columns = (
    [
      (tap, *_overlap(length, tap * geometry.dilation - before))
      for tap in range(number)
    ]
    for length, number, (before, _) in zip(
      size, taps, geometry.padding, strict=True
    )
  )
  everything = slice(None)
  for i, rows_there, rows_here in rows:
    for j, columns_there, columns_here in columns:
      if rows_there.start < rows_there.stop and (
        columns_there.start < columns_there.stop
      ):
        yield (
          i,
          j,
          (everything, rows_there, columns_there),
          (everything, rows_here, columns_here),
        )


def _overlap(length: int, shift: int) -> tuple[slice, slice]:
  """Pixels that lie `shift` after those of the result, and the latter."""
  there = slice(max(0, shift), length + min(0, shift))
  return there, slice(there.start - shift, there.stop - shift)
