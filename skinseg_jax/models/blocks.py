"""Layers of the U-Net, in forms that XLA runs fast.

Each computes what the plain operation does, in another order of summation.
Layout NHWC; kernels [height, width, in, out]. Where a form pays on CPUs alone,
`lax.platform_dependent` chooses it when the program is compiled.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from skinseg_jax.models import winograd

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
# On a CPU, a convolution of up to this many channels leaves vector units idle.
_FEW_CHANNELS = 16
# torch's momentum of 0.1; and its epsilon.
MOMENTUM, _EPSILON = 0.9, 1e-5


class Conv3x3(nnx.Module):
  """3x3 convolution with a border of zeros, stride 1, without bias."""

  def __init__(
    self,
    in_features: int,
    features: int,
    *,
    dtype: jnp.dtype,
    kernel_init: nnx.Initializer,
    rngs: nnx.Rngs,
  ):
    shape = (3, 3, in_features, features)
    self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
    self.dtype = dtype

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, H, W, features]."""
    return conv3x3(x.astype(self.dtype), self.kernel[...].astype(self.dtype))


class BatchNormRelu(nnx.Module):
  """Batch normalisation (Ioffe and Szegedy, 2015), then ReLU.

  Statistics and parameters are float32. The running variance is the biased
  one of each batch; PyTorch's is greater by n / (n - 1), n = B * H * W.
  """

  def __init__(self, features: int, *, rngs: nnx.Rngs):
    del rngs  # Nothing here is random.
    self.scale = nnx.Param(jnp.ones(features))
    self.bias = nnx.Param(jnp.zeros(features))
    self.mean = nnx.BatchStat(jnp.zeros(features))
    self.var = nnx.BatchStat(jnp.ones(features))
    self.use_running_average = False

  def set_view(self, use_running_average: bool | None = None) -> None:
    """Lets `nnx.view` switch to the running statistics."""
    if use_running_average is not None:
      self.use_running_average = use_running_average

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, features] to the same shape and type."""
    scale, bias = self.scale[...], self.bias[...]
    if self.use_running_average:
      rstd = lax.rsqrt(self.var[...] + _EPSILON)
      y = _normalise(x, scale, bias, self.mean[...], rstd)
      return jnp.maximum(y, 0).astype(x.dtype)
    y, mean, var = batch_norm_relu(x, scale, bias)
    for running, batch in ((self.mean, mean), (self.var, var)):
      running[...] = MOMENTUM * running[...] + (1 - MOMENTUM) * batch
    return y


class ConvTranspose2x2(nnx.Module):
  """2x2 transposed convolution of stride 2; doubles height and width."""

  def __init__(
    self,
    in_features: int,
    features: int,
    *,
    dtype: jnp.dtype,
    kernel_init: nnx.Initializer,
    bias_init: nnx.Initializer,
    rngs: nnx.Rngs,
  ):
    # torch's weight [in, out, 2, 2], permuted by (2, 3, 1, 0).
    shape = (2, 2, features, in_features)
    self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
    self.bias = nnx.Param(bias_init(rngs.params(), (features,), jnp.float32))
    self.dtype = dtype

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, 2H, 2W, features]."""
    b, h, w, c = x.shape
    kernel, bias = (p[...].astype(self.dtype) for p in (self.kernel, self.bias))
    # No two windows overlap: one matrix product.
    y = x.astype(self.dtype).reshape(-1, c) @ kernel.reshape(-1, c).T
    y = y.reshape(b, h, w, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, 2 * h, 2 * w, -1) + _per_channel(bias)


def max_pool(x: jax.Array) -> jax.Array:
  """2x2 maximum with stride 2; [B, H, W, C] to [B, H/2, W/2, C].

  Equal maxima share the gradient (PyTorch gives it to the first). After a ReLU
  only equal positive values can show the difference.
  """
  b, h, w, c = x.shape
  # As a reshape: a window reduction cannot be differentiated in bfloat16.
  return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


@jax.custom_vjp
def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution with a border of zeros, stride 1.

  Args:
    x: Float [B, H, W, in].
    kernel: Float [3, 3, in, out], of the same type.

  Returns:
    Float [B, H, W, out].
  """
  return lax.platform_dependent(
    x, kernel, cpu=_cpu_conv3x3, default=_plain_conv3x3
  )


def _conv3x3_fwd(x, kernel):
  return conv3x3(x, kernel), (x, kernel)


def _conv3x3_bwd(saved, dy):
  x, kernel = saved
  turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
  dkernel = lax.platform_dependent(
    x, dy, cpu=_cpu_kernel_grad, default=_plain_kernel_grad
  )
  return conv3x3(dy, turned), dkernel


conv3x3.defvjp(_conv3x3_fwd, _conv3x3_bwd)


def _plain_conv3x3(x, kernel):
  return lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=_LAYOUT
  )


def _cpu_conv3x3(x, kernel):
  if _winograd_pays(x, *kernel.shape[2:]):
    return winograd.conv3x3(x, kernel)
  if max(kernel.shape[2:]) > _FEW_CHANNELS or x.shape[2] % 2:
    return _plain_conv3x3(x, kernel)
  # Two columns at once, as a 3x4 kernel of column stride 2: twice the channels.
  left = jnp.pad(kernel, ((0, 0), (0, 1), (0, 0), (0, 0)))
  right = jnp.pad(kernel, ((0, 0), (1, 0), (0, 0), (0, 0)))
  y = lax.conv_general_dilated(
    x,
    jnp.concatenate([left, right], -1),
    (1, 2),
    ((1, 1), (1, 1)),
    dimension_numbers=_LAYOUT,
  )
  return y.reshape(*x.shape[:3], kernel.shape[-1])


def _plain_kernel_grad(x, dy):
  kernel = jnp.zeros((3, 3, x.shape[-1], dy.shape[-1]), x.dtype)
  _, vjp = jax.vjp(lambda k: _plain_conv3x3(x, k), kernel)
  return vjp(dy)[0]


def _winograd_pays(x: jax.Array, c_in: int, c_out: int) -> bool:
  """Whether the products that are saved take longer than what they cost."""
  # Fewer pixels than channels: transforming the kernel would take longest.
  many_pixels = x.size // x.shape[-1] >= max(c_in, c_out)
  return min(c_in, c_out) >= 64 and many_pixels and x.dtype != jnp.bfloat16


def _cpu_kernel_grad(x, dy):
  c_in, c_out = x.shape[-1], dy.shape[-1]
  if _winograd_pays(x, c_in, c_out) and max(c_in, c_out) >= 128:
    return winograd.kernel_grad(x, dy)
  if c_out <= _FEW_CHANNELS:
    return _pairs_kernel_grad(x, dy)
  if min(c_in, c_out) >= 64 and min(x.shape[1:3]) >= 64:
    return _strips_kernel_grad(x, dy)
  return _plain_kernel_grad(x, dy)


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
  return widened(jnp.zeros((3, 3, x.shape[-1], dy.shape[-1]), x.dtype))


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


@jax.custom_vjp
def batch_norm_relu(
  x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """ReLU of batch normalisation, and the statistics of this batch.

  Args:
    x: Float [B, H, W, C].
    scale: Float32 [C].
    bias: Float32 [C].

  Returns:
    Output [B, H, W, C] of x's type, mean [C] and biased variance [C], float32.
    The statistics are for the running averages: no gradient goes through them.
  """
  return _batch_norm_relu_fwd(x, scale, bias)[0]


def _batch_norm_relu_fwd(x, scale, bias):
  count = x.size // x.shape[-1]
  wide = widened(x)
  # The variance in one pass, about a mean of few pixels: about 0, what is far
  # from it would lose its digits in the difference of two squares.
  near = wide[:, x.shape[1] // 2].mean((0, 1))
  wide = wide - _per_channel(near)
  rest = _channel_sum(wide) / count
  mean = near + rest
  var = jnp.maximum(_channel_sum(wide * wide) / count - rest * rest, 0)
  rstd = lax.rsqrt(var + _EPSILON)
  y = jnp.maximum(_normalise(x, scale, bias, mean, rstd), 0)
  return (y.astype(x.dtype), mean, var), (x, scale, bias, mean, rstd)


def _batch_norm_relu_bwd(saved, cotangents):
  # Section 3 of the paper; the ReLU's mask is computed again, not kept.
  x, scale, bias, mean, rstd = saved
  count = x.size // x.shape[-1]
  gain = rstd * scale
  positive = _normalise(x, scale, bias, mean, rstd) > 0
  wide = widened(x)
  dy = jnp.where(positive, widened(cotangents[0]), 0)
  dbias = _channel_sum(dy)
  dscale = _channel_sum(dy * (wide - _per_channel(mean))) * rstd
  slope = gain * rstd * dscale / count
  shift = mean * slope - gain * dbias / count
  dx = (
    dy * _per_channel(gain) - wide * _per_channel(slope) + _per_channel(shift)
  )
  return dx.astype(x.dtype), dscale, dbias


batch_norm_relu.defvjp(_batch_norm_relu_fwd, _batch_norm_relu_bwd)


def _normalise(x, scale, bias, mean, rstd):
  gain = rstd * scale
  return x * _per_channel(gain) + _per_channel(bias - mean * gain)


def widened(x: jax.Array) -> jax.Array:
  """At least float32: sums of narrower types would lose digits."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _channel_sum(x: jax.Array) -> jax.Array:
  """Sum over all but the last axis; [B, H, W, C] to [C]."""
  return lax.platform_dependent(
    x, cpu=_cpu_channel_sum, default=lambda x: x.sum((0, 1, 2))
  )


def _cpu_channel_sum(x):
  # In two stages: XLA runs one big reduction on a single core.
  width, channels = x.shape[2:]
  run = max(r for r in range(1, 33) if width % r == 0)
  partial = x.reshape(-1, run, channels).sum(1)
  return jnp.ones(partial.shape[0], x.dtype) @ partial


def _per_channel(values: jax.Array) -> jax.Array:
  return values.reshape(1, 1, 1, -1)
