"""3x3 convolutions of images that were doubled, for CPUs.

`double` repeats each pixel in a 2x2 square. A window of 3x3 such pixels covers
2x2 pixels of the small image, so the large one need not be made: each row of
the result is a sum over two small rows. Two columns of the result are computed
at once, as twice the channels, which needs no copy.
"""

import jax
import jax.numpy as jnp
from jax import lax

from skinseg_jax.models import plain
from skinseg_jax.models.cpu import fusion, products

# With more channels, doubling and Winograd's products are as fast.
_MOST_CHANNELS = 128
# Which taps of the kernel see the small column before, at and after the place
# of a doubled pixel: those of its left and of its right half.
_FIRST = ((1, 0, 0), (0, 1, 1), (0, 0, 0))
_SECOND = ((0, 0, 0), (1, 1, 0), (0, 0, 1))


def pays(channels: int) -> bool:
  """Whether this is faster than doubling an image of so many channels."""
  return channels <= _MOST_CHANNELS


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Doubles an image, then convolves it with a border of zeros.

  Args:
    x: Float [B, H, W, in].
    kernel: [3, 3, in, out], of the same type.

  Returns:
    [B, 2H, 2W, out].
  """
  b, h, w, _ = x.shape
  pairs = _column_pairs(kernel)
  # Even rows see the small rows before and at their place, odd ones those at
  # their place and after.
  even, odd = (
    _conv(x, rows, border)
    for rows, border in (
      (jnp.stack([pairs[0], pairs[1] + pairs[2]]), (1, 0)),
      (jnp.stack([pairs[0] + pairs[1], pairs[2]]), (0, 1)),
    )
  )
  return jnp.stack([even, odd], axis=2).reshape(b, 2 * h, 2 * w, -1)


def input_grad(dy: jax.Array, kernel: jax.Array) -> jax.Array:
  """Gradient of `conv3x3` with respect to its image; [B, H, W, in]."""
  b, h, w, _ = dy.shape
  pairs = _column_pairs(kernel)
  rows = jnp.stack([
    pairs[2], pairs[1] + pairs[2], pairs[0] + pairs[1], pairs[0],
  ])  # fmt: skip
  # Turned columns, from the channels of dy to those of x.
  return lax.conv_general_dilated(
    dy.reshape(b, h, w // 2, -1),
    rows[:, ::-1].transpose(0, 1, 3, 2),
    (2, 1),
    ((1, 1), (1, 1)),
    dimension_numbers=plain.LAYOUT,
  )


def kernel_grad(x: jax.Array, dy: jax.Array) -> jax.Array:
  """Gradient of `conv3x3` with respect to its kernel; [3, 3, in, out]."""
  b, h, w, c_in = x.shape
  c_out = dy.shape[-1]
  # A pixel of x, at the three places in a window, and the four rows of dy that
  # it has a part in.
  x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
  dy = fusion.kept(jnp.pad(dy, ((0, 0), (1, 1), (0, 0), (0, 0))))
  columns = jnp.stack([x[:, :, j : j + w] for j in range(3)], axis=3)
  dy = dy.reshape(b, 2 * h + 2, w, 2 * c_out)
  rows = jnp.stack([dy[:, i : i + 2 * h : 2] for i in range(4)], axis=3)
  taps = products.over_pixels(
    columns.reshape(b, h, w, -1), rows.reshape(b, h, w, -1)
  ).reshape(3, c_in, 4, 2, c_out)
  # Row i marks the rows of dy that receive tap i; the columns likewise.
  reached = jnp.array([[0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]], taps.dtype)
  both = jnp.array([_FIRST, _SECOND], taps.dtype)  # [side, place, tap].
  return jnp.einsum(
    'ir,spj,pcrso->ijco', reached, both, taps, precision='highest'
  )


def _column_pairs(kernel):
  """[3, 3, in, out] to [3, 3, in, 2 * out], columns -1, 0, 1 of the small."""
  sides = [
    jnp.einsum(
      'pj,ijco->ipco',
      jnp.array(side, kernel.dtype),
      kernel,
      precision='highest',
    )
    for side in (_FIRST, _SECOND)
  ]
  return jnp.concatenate(sides, axis=-1)


def _conv(x, kernel, border):
  return lax.conv_general_dilated(
    x, kernel, (1, 1), (border, (1, 1)), dimension_numbers=plain.LAYOUT
  )
