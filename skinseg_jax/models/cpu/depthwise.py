"""Depthwise convolutions as sums of shifted products, for CPUs.

XLA computes `lax.conv_general_dilated(feature_group_count=C)` 10 to 50 times
slower on a CPU. Here each tap of the kernel is one product of all channels with
a shifted image, and XLA adds the products in one loop.
"""

import jax
import jax.numpy as jnp

from skinseg_jax.models import plain
from skinseg_jax.models.cpu import fusion, reduction


def conv(
  x: jax.Array, kernel: jax.Array, geometry: plain.Geometry
) -> jax.Array:
  """What `plain.conv` computes, with a kernel [k, k, 1, C]."""
  padded = _padded(x, geometry.padding)
  size = plain.output_size(x.shape[1:3], kernel.shape[:2], geometry)
  kernel = plain.widened(kernel)
  return fusion.kept(
    sum(
      _shifted(padded, i, j, size, geometry) * kernel[i : i + 1, j : j + 1]
      for i, j in _taps(kernel.shape[:2])
    ).astype(x.dtype)
  )


def input_grad(
  dy: jax.Array,
  kernel: jax.Array,
  size: tuple[int, int],
  geometry: plain.Geometry,
) -> jax.Array:
  """What `plain.conv_input_grad` computes, with a kernel [k, k, 1, C]."""
  # dx in parts: one of `stride` rows and columns, starting at each offset. A
  # part needs only some taps, and no zeros between the pixels of dy.
  stride = geometry.stride
  cells = tuple(-(-n // stride) for n in size)
  rows, columns = (
    [
      _taps_that_reach(offset, kernel.shape[axis], before, geometry)
      for offset in range(stride)
    ]
    for axis, (before, _) in enumerate(geometry.padding)
  )
  top, bottom = _border(rows, dy.shape[1], cells[0])
  left, right = _border(columns, dy.shape[2], cells[1])
  padded = _padded(dy, ((top, bottom), (left, right)))
  kernel = plain.widened(kernel)
  shape = (len(dy), *cells, dy.shape[-1])

  def part(rows, columns):
    total = sum(
      padded[:, top + di :, left + dj :][:, : cells[0], : cells[1]]
      * kernel[i : i + 1, j : j + 1]
      for i, di in rows
      for j, dj in columns
    )
    # No tap may reach an offset, as with 1x1 kernels.
    return total if rows and columns else jnp.zeros(shape, kernel.dtype)

  if stride == 1:
    return fusion.kept(part(rows[0], columns[0]).astype(dy.dtype))
  # Stacked before the channels, not beside them: XLA is slow at the latter.
  dx = jnp.stack(
    [jnp.stack([part(r, c) for c in columns], axis=3) for r in rows], axis=2
  )
  dx = dx.reshape(len(dy), *(stride * n for n in cells), dy.shape[-1])
  return fusion.kept(dx[:, : size[0], : size[1]].astype(dy.dtype))


def kernel_grad(
  x: jax.Array,
  dy: jax.Array,
  taps: tuple[int, int],
  geometry: plain.Geometry,
) -> jax.Array:
  """What `plain.conv_kernel_grad` computes, [k, k, 1, C]."""
  padded, dy = (
    _padded(x, geometry.padding),
    plain.widened(fusion.kept(dy)),
  )
  sums = [
    reduction.channel_sum(_shifted(padded, i, j, dy.shape[1:3], geometry) * dy)
    for i, j in _taps(taps)
  ]
  return jnp.stack(sums).reshape(*taps, 1, -1).astype(x.dtype)


def _taps(size):
  return [(i, j) for i in range(size[0]) for j in range(size[1])]


def _padded(x, padding):
  return plain.widened(fusion.kept(jnp.pad(x, ((0, 0), *padding, (0, 0)))))


def _shifted(x, i, j, size, geometry):
  rows, columns = (
    slice(start, start + (n - 1) * geometry.stride + 1, geometry.stride)
    for start, n in zip(
      (i * geometry.dilation, j * geometry.dilation), size, strict=True
    )
  )
  return x[:, rows, columns]


def _taps_that_reach(
  offset: int, taps: int, before: int, geometry: plain.Geometry
) -> list[tuple[int, int]]:
  """Finds the outputs that input pixel `stride * n + offset` contributes to.

  Returns:
    Pairs of a tap and a distance d: by that tap, it reaches output n + d.
  """
  reached = [(i, offset + before - i * geometry.dilation) for i in range(taps)]
  return [
    (i, d // geometry.stride) for i, d in reached if d % geometry.stride == 0
  ]


def _border(taps, size, cells):
  """Zeros before and after dy, so that every tap finds something."""
  distances = [d for pairs in taps for _, d in pairs]
  return max(0, -min(distances)), max(0, cells + max(distances) - size)
