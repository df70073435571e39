"""Depthwise convolutions as sums of shifted products, for CPUs.

XLA computes `lax.conv_general_dilated(feature_group_count=C)` 10 to 50 times
slower on a CPU. Here each tap of the kernel is one product of all channels of a
shifted image, and XLA adds them in one loop.

All functions take a stride, a dilation and an explicit padding, each the same
for both axes but for the padding: ((top, bottom), (left, right)), zero or more.
"""

import jax
import jax.numpy as jnp
from jax import lax

from skinseg_jax.models import plain
from skinseg_jax.models.cpu import reduction

Padding = tuple[tuple[int, int], tuple[int, int]]


def conv(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int,
  dilation: int,
  padding: Padding,
) -> jax.Array:
  """Depthwise convolution: each channel has a kernel of its own.

  Args:
    x: Float [B, H, W, C].
    kernel: [k, k, 1, C], of the same type.
    stride: Of the output's pixels.
    dilation: Distance of two taps.
    padding: See above.

  Returns:
    [B, H', W', C], H' = (H + top + bottom - dilation * (k - 1) - 1) // stride
    + 1, W' alike; of x's type.
  """
  taps = len(kernel)
  padded = _padded(x, padding)
  size = _output_size(padded, taps, stride, dilation)
  kernel = plain.widened(kernel)
  return sum(
    _shifted(padded, (i * dilation, j * dilation), size, stride)
    * kernel[i, j, 0]
    for i in range(taps)
    for j in range(taps)
  ).astype(x.dtype)


def input_grad(
  dy: jax.Array,
  kernel: jax.Array,
  *,
  stride: int,
  dilation: int,
  padding: Padding,
  size: tuple[int, int],
) -> jax.Array:
  """Gradient of `conv` with respect to its image.

  Args:
    dy: Cotangent of the result, [B, H', W', C].
    kernel: [k, k, 1, C], of the same type.
    stride: As in `conv`.
    dilation: As in `conv`.
    padding: As in `conv`.
    size: Height and width of the image.

  Returns:
    [B, H, W, C], of dy's type.
  """
  # An image of one pixel in `stride`, at each offset, is a sum over those taps
  # that reach it: no product with the zeros between the pixels of dy.
  kernel = plain.widened(kernel)
  cells = [-(-n // stride) for n in size]
  taps = [
    [_taps_that_reach(a, len(kernel), stride, dilation, pad) for pad in before]
    for before in [(padding[0][0], padding[1][0])]
    for a in range(stride)
  ]
  border = [
    _border([t for row in taps for t in row[axis]], dy.shape[1 + axis], n)
    for axis, n in enumerate(cells)
  ]
  padded = _padded(dy, tuple(border))
  zero = jnp.zeros((len(dy), *cells, dy.shape[-1]), kernel.dtype)
  images = [
    [
      sum(
        (
          _shifted(padded, (border[0][0] + di, border[1][0] + dj), cells, 1)
          * kernel[i, j, 0]
          for i, di in taps[a][0]
          for j, dj in taps[b][1]
        ),
        start=zero,
      )
      for b in range(stride)
    ]
    for a in range(stride)
  ]
  if stride == 1:
    return images[0][0].astype(dy.dtype)
  # Stacked before the channels, not beside them: XLA is slow at the latter.
  dx = jnp.stack([jnp.stack(row, axis=3) for row in images], axis=2)
  dx = dx.reshape(len(dy), *(stride * n for n in cells), dy.shape[-1])
  return dx[:, : size[0], : size[1]].astype(dy.dtype)


def kernel_grad(
  x: jax.Array,
  dy: jax.Array,
  *,
  taps: int,
  stride: int,
  dilation: int,
  padding: Padding,
) -> jax.Array:
  """Gradient of `conv` with respect to its kernel.

  Args:
    x: Float [B, H, W, C].
    dy: Cotangent of the result, [B, H', W', C], of the same type.
    taps: Height and width of the kernel.
    stride: As in `conv`.
    dilation: As in `conv`.
    padding: As in `conv`.

  Returns:
    [taps, taps, 1, C], of x's type.
  """
  padded = _padded(x, padding)
  shifted = lambda i, j: _shifted(
    padded, (i * dilation, j * dilation), dy.shape[1:3], stride
  )
  sums = [
    reduction.channel_sum(shifted(i, j) * plain.widened(dy))
    for i in range(taps)
    for j in range(taps)
  ]
  return jnp.stack(sums).reshape(taps, taps, 1, -1).astype(x.dtype)


def _padded(x, padding):
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  # Kept in memory: each tap reads it, and would compute the border again.
  return plain.widened(lax.optimization_barrier(x))


def _shifted(x, start, size, stride):
  (i, j), (h, w) = start, size
  rows = slice(i, i + (h - 1) * stride + 1, stride)
  columns = slice(j, j + (w - 1) * stride + 1, stride)
  return x[:, rows, columns]


def _output_size(padded, taps, stride, dilation):
  reach = dilation * (taps - 1)
  return tuple((n - reach - 1) // stride + 1 for n in padded.shape[1:3])


def _taps_that_reach(
  offset: int, taps: int, stride: int, dilation: int, before: int
) -> list[tuple[int, int]]:
  """Which pixels of the result a pixel `stride * n + offset` has a part in.

  Returns:
    Pairs of a tap and a distance d: by that tap, it is in pixel n + d.
  """
  reached = [(i, offset + before - i * dilation) for i in range(taps)]
  return [(i, d // stride) for i, d in reached if d % stride == 0]


def _border(taps, size, cells):
  """Zeros before and after dy, so that every tap finds something."""
  distances = [d for _, d in taps]
  before = max(0, -min(distances))
  return before, max(0, cells + max(distances) - size)
