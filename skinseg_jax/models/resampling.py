"""Pooling and resizing, equal to PyTorch's; layout [B, H, W, C]."""

import jax
import jax.numpy as jnp
import numpy as np

from skinseg_jax.models import named, plain


@named.operation
def max_pool(x: jax.Array) -> jax.Array:
  """2x2 maximum with stride 2; [B, H, W, C] to [B, H/2, W/2, C].

  Equal maxima share the gradient (PyTorch gives it to the first). After a ReLU
  only equal positive values can show the difference.
  """
  b, h, w, c = x.shape
  # As a reshape: a window reduction cannot be differentiated in bfloat16.
  return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


@named.operation
def max_pool3x3(x: jax.Array) -> jax.Array:
  """3x3 maximum with stride 2 and a border of one pixel that never wins.

  Equal to `torch.nn.MaxPool2d(3, stride=2, padding=1)` for even sizes. Equal
  maxima share the gradient, as in `max_pool`.

  Args:
    x: Float [B, H, W, C], H and W even.

  Returns:
    Float [B, H/2, W/2, C].
  """
  for axis in (1, 2):
    # Windows hold pixels 2i - 1, 2i and 2i + 1.
    pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    even, odd = (jnp.take(pairs, n, axis + 1) for n in range(2))
    border = [(1, 0) if a == axis else (0, 0) for a in range(4)]
    before = jnp.pad(
      jax.lax.slice_in_dim(odd, 0, odd.shape[axis] - 1, axis=axis),
      border,
      constant_values=-jnp.inf,
    )
    x = jnp.maximum(jnp.maximum(before, even), odd)
  return x


@named.operation
def double(x: jax.Array) -> jax.Array:
  """Repeats each pixel in a 2x2 square; [B, H, W, C] to [B, 2H, 2W, C]."""
  b, h, w, c = x.shape
  squares = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
  return squares.reshape(b, 2 * h, 2 * w, c)


def resize_bilinear(
  x: jax.Array, size: tuple[int, int], *, align_corners: bool
) -> jax.Array:
  """Bilinear resizing without antialiasing, as torch's `interpolate`.

  Args:
    x: Float [B, H, W, C].
    size: New height and width.
    align_corners: Whether the centres of the corner pixels stay where they
      are; otherwise the corners of the image do.

  Returns:
    [B, *size, C], of x's type.
  """
  return _along_both_axes(
    x,
    *(
      _linear(n, m, align_corners)
      for n, m in zip(x.shape[1:3], size, strict=True)
    ),
  )


def adaptive_average_pool(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Means over a grid of `size` cells, as `torch.nn.AdaptiveAvgPool2d`.

  Cell i of n pixels goes from floor(i * n / size) to ceil((i + 1) * n / size):
  neighbours share a pixel where n is no multiple.

  Returns:
    [B, *size, C], of x's type.
  """
  return _along_both_axes(
    x, *(_cells(n, m) for n, m in zip(x.shape[1:3], size, strict=True))
  )


def _along_both_axes(x, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
  """Rows and columns as weighted sums of rows and columns of [B, H, W, C]."""
  wide = plain.widened(x)

  # As matrix products: gathers have slow gradients.
  def product(weights, axes, x, before, after):
    operands = [(axes, jnp.asarray(weights, wide.dtype)), (before, x)]
    # TensorFlow Lite cannot convert weights first for one channel. For more,
    # weights first have faster gradients.
    if x.shape[-1] == 1:
      operands.reverse()
    pattern = ','.join(names for names, _ in operands) + '->' + after
    return jnp.einsum(
      pattern, *(array for _, array in operands), precision='highest'
    )

  wide = product(rows, 'ih', wide, 'bhwc', 'biwc')
  return product(columns, 'jw', wide, 'biwc', 'bijc').astype(x.dtype)


def _linear(n: int, m: int, align_corners: bool) -> np.ndarray:
  """Weights [m, n] that interpolate n values at m places."""
  places = np.arange(m)
  if align_corners:
    source = places * (n - 1) / max(m - 1, 1)
  else:
    source = np.clip((places + 0.5) * n / m - 0.5, 0, n - 1)
  low = np.minimum(source.astype(int), n - 1)
  share = source - low
  weights = np.zeros((m, n))
  weights[places, low] = 1 - share
  weights[places, np.minimum(low + 1, n - 1)] += share
  return weights


def _cells(n: int, m: int) -> np.ndarray:
  """Weights [m, n] of means over m cells of n values."""
  weights = np.zeros((m, n))
  for i in range(m):
    start, stop = i * n // m, -(-(i + 1) * n // m)
    weights[i, start:stop] = 1 / (stop - start)
  return weights


@named.operation
def max_pool_with_places(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """2x2 maximum with stride 2, and where in its window each maximum stood.

  An odd last row or column is left out.

  Args:
    x: Float [B, H, W, C].

  Returns:
    Maxima [B, H / 2, W / 2, C] and places of the same shape, int32: 0 to 3,
    row by row, the first of equals.
  """
  b, h, w, c = x.shape
  h, w = h // 2, w // 2
  windows = x[:, : 2 * h, : 2 * w].reshape(b, h, 2, w, 2, c)
  windows = windows.transpose(0, 1, 3, 5, 2, 4).reshape(b, h, w, c, 4)
  places = windows.argmax(axis=-1)
  return jnp.take_along_axis(windows, places[..., None], -1)[..., 0], places


@named.operation
def unpool(
  x: jax.Array, places: jax.Array, *, size: tuple[int, int]
) -> jax.Array:
  """Puts each value where its maximum stood, with zeros around it.

  Args:
    x: Float [B, H, W, C].
    places: From `max_pool_with_places`, of the same shape.
    size: Height and width before that pooling, 2 H or 2 H + 1, likewise W.

  Returns:
    Float [B, *size, C].
  """
  b, h, w, c = x.shape
  chosen = places[..., None] == jnp.arange(4).reshape(1, 1, 1, 1, 4)
  window = chosen * x[..., None]
  y = window.reshape(b, h, w, c, 2, 2).transpose(0, 1, 4, 2, 5, 3)
  y = y.reshape(b, 2 * h, 2 * w, c)
  rest = (size[0] - 2 * h, size[1] - 2 * w)
  return jnp.pad(y, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0)))
