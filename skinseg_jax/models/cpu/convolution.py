"""3x3 convolutions of stride 1, for CPUs."""

import jax
import jax.numpy as jnp
from jax import lax

from skinseg_jax.models import plain
from skinseg_jax.models.cpu import winograd

# A convolution of up to this many channels leaves vector units idle.
_FEW_CHANNELS = 16


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """What `plain.conv3x3` computes, in the form that is fastest here."""
  if _winograd_pays(x, *kernel.shape[2:]):
    return winograd.conv3x3(x, kernel)
  if max(kernel.shape[2:]) > _FEW_CHANNELS or x.shape[2] % 2:
    return plain.conv3x3(x, kernel)
  # Two columns at once, as a 3x4 kernel of column stride 2: twice the channels.
  left = jnp.pad(kernel, ((0, 0), (0, 1), (0, 0), (0, 0)))
  right = jnp.pad(kernel, ((0, 0), (1, 0), (0, 0), (0, 0)))
  y = lax.conv_general_dilated(
    x,
    jnp.concatenate([left, right], -1),
    (1, 2),
    ((1, 1), (1, 1)),
    dimension_numbers=plain.LAYOUT,
  )
  return y.reshape(*x.shape[:3], kernel.shape[-1])


def _winograd_pays(x: jax.Array, c_in: int, c_out: int) -> bool:
  """Whether Winograd saves more time than its transformations cost."""
  # Fewer pixels than channels: transforming the kernel would take longest.
  many_pixels = x.size // x.shape[-1] >= max(c_in, c_out)
  return min(c_in, c_out) >= 64 and many_pixels and x.dtype != jnp.bfloat16


def conv3x3_kernel_grad(x: jax.Array, dy: jax.Array) -> jax.Array:
  """What `plain.conv3x3_kernel_grad` computes, likewise."""
  c_in, c_out = x.shape[-1], dy.shape[-1]
  if _winograd_pays(x, c_in, c_out) and max(c_in, c_out) >= 128:
    return winograd.kernel_grad(x, dy)
  if c_out <= _FEW_CHANNELS:
    return _pairs_kernel_grad(x, dy)
  if min(c_in, c_out) >= 64 and min(x.shape[1:3]) >= 64:
    return _strips_kernel_grad(x, dy)
  return plain.conv3x3_kernel_grad(x, dy)


def _pairs_kernel_grad(x, dy):
  """Two images at a time, so that the shifted copies stay in the cache."""
  size = 2 if x.shape[0] % 2 == 0 else 1
  x, dy = _pad(x, axis=2), _pad(dy, axis=1)
  pairs = [a.reshape(-1, size, *a.shape[1:]) for a in (x, dy)]
  add = lambda total, pair: (total + _cross_kernel_grad(*pair), None)
  return lax.scan(add, _zero_kernel(x, dy), pairs)[0].astype(x.dtype)


def _strips_kernel_grad(x, dy):
  """As above, some rows of an image at a time, for their many channels."""
  images, height = x.shape[:2]
  rows = max(n for n in range(1, 9) if height % n == 0)
  x, dy = _pad(x, axis=2), _pad(dy, axis=1)

  def add(total, index):
    image, strip = jnp.divmod(index, height // rows)
    cut = lambda a, n: lax.dynamic_slice(
      a, (image, strip * rows, 0, 0), (1, n, *a.shape[2:])
    )
    return total + _cross_kernel_grad(cut(x, rows), cut(dy, rows + 2)), None

  strips = jnp.arange(images * (height // rows))
  return lax.scan(add, _zero_kernel(x, dy), strips)[0].astype(x.dtype)


def _pad(x, axis):
  return jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(4)])


def _zero_kernel(x, dy):
  return plain.widened(jnp.zeros((3, 3, x.shape[-1], dy.shape[-1]), x.dtype))


def _cross_kernel_grad(x, dy):
  """Kernel gradient of some images as one matrix product.

  Three column shifts of x [B, H, W + 2, in] against three row shifts of dy
  [B, H + 2, W, out] give all nine taps: [3 * in, B * H * W] times
  [B * H * W, 3 * out].
  """
  (_, h, _, c_in), (_, _, w, c_out) = x.shape, dy.shape
  columns = jnp.concatenate([x[:, :, j : j + w] for j in range(3)], -1)
  rows = jnp.concatenate([dy[:, 2 - i : 2 - i + h] for i in range(3)], -1)
  taps = columns.reshape(-1, 3 * c_in).T @ rows.reshape(-1, 3 * c_out)
  return taps.reshape(3, c_in, 3, c_out).transpose(2, 0, 1, 3)
