"""3x3 convolutions with half the multiplications, for CPUs.

Winograd's F(4, 3) along the rows of an image (Lavin and Gray, 2015,
arXiv:1509.09308, section 4.3): six products give four neighbouring outputs of
three taps, which take twelve otherwise. The other axis of the kernel is summed
as always. The price is a few additions before and after, and rounding some
times that of the plain sum.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
_TILE = 4  # Outputs that are computed together.
# The paper's matrices B^T, G and A^T for the points 0, 1, -1, 2, -2 and
# infinity.
_FROM_IMAGE = (
  (4, 0, -5, 0, 1, 0),
  (0, -4, -4, 1, 1, 0),
  (0, 4, -4, -1, 1, 0),
  (0, -2, -1, 2, 1, 0),
  (0, 2, -1, -2, 1, 0),
  (0, 4, 0, -5, 0, 1),
)
_FROM_KERNEL = (
  (1 / 4, 0, 0),
  (-1 / 6, -1 / 6, -1 / 6),
  (-1 / 6, 1 / 6, -1 / 6),
  (1 / 24, 1 / 12, 1 / 6),
  (1 / 24, -1 / 12, 1 / 6),
  (0, 0, 1),
)
_TO_IMAGE = (
  (1, 1, 1, 1, 1, 0),
  (0, 1, -1, 2, -2, 0),
  (0, 1, 1, 4, 4, 0),
  (0, 1, -1, 8, -8, 1),
)


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution with a border of zeros, stride 1.

  Args:
    x: Float32 or float64 [B, H, W, in].
    kernel: [3, 3, in, out], of the same type.

  Returns:
    [B, H, W, out].
  """
  b, h, w, _ = x.shape
  products = [
    lax.conv_general_dilated(
      tile, taps, (1, 1), ((1, 1), (0, 0)), dimension_numbers=_LAYOUT
    )
    for tile, taps in zip(
      _image_tiles(x),
      _combine(_FROM_KERNEL, [kernel[:, j : j + 1] for j in range(3)]),
      strict=True,
    )
  ]
  y = jnp.stack(_combine(_TO_IMAGE, products), axis=3)
  return y.reshape(b, h, -1, kernel.shape[-1])[:, :, :w]


def kernel_grad(x: jax.Array, dy: jax.Array) -> jax.Array:
  """Gradient of `conv3x3` with respect to its kernel.

  Args:
    x: Float32 or float64 [B, H, W, in].
    dy: Cotangent of the result, [B, H, W, out], of the same type.

  Returns:
    [3, 3, in, out].
  """
  (_, h, w, c_in), c_out = x.shape, dy.shape[-1]
  dy = jnp.pad(dy, ((0, 0), (1, 1), (0, -w % _TILE), (0, 0)))
  columns = [dy[:, :, j::_TILE] for j in range(_TILE)]
  # The transpose of each of the three steps of the convolution.
  products = []
  for tile, column in zip(
    _image_tiles(x),
    _combine(zip(*_TO_IMAGE, strict=True), columns),
    strict=True,
  ):
    rows = jnp.concatenate([column[:, 2 - i : 2 - i + h] for i in range(3)], -1)
    product = tile.reshape(-1, c_in).T @ rows.reshape(-1, 3 * c_out)
    products.append(product.reshape(c_in, 3, c_out).transpose(1, 0, 2))
  taps = _combine(zip(*_FROM_KERNEL, strict=True), products)
  return jnp.stack(taps, axis=1)


def _image_tiles(x: jax.Array) -> list[jax.Array]:
  """[B, H, W, C] to six of [B, H, W / 4, C], rounded up."""
  w = x.shape[2]
  last = _TILE * (-(-w // _TILE) - 1)
  # One column of zeros before the first, and up to the end of the last tile.
  x = jnp.pad(x, ((0, 0), (0, 0), (1, last + _TILE + 1 - w), (0, 0)))
  columns = [x[:, :, j : j + last + 1 : _TILE] for j in range(_TILE + 2)]
  return _combine(_FROM_IMAGE, columns)


def _combine(matrix, values: Sequence[jax.Array]) -> list[jax.Array]:
  """The matrix times a vector of arrays."""
  return [
    sum(
      factor * value
      for factor, value in zip(row, values, strict=True)
      if factor
    )
    for row in matrix
  ]
