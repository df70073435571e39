"""Layers that the networks are built of.

Layout NHWC; kernels [height, width, in, out]. Where CPUs need another form of
an operation, `cpu.switch` chooses it when the program is compiled.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from skinseg_jax.models import plain
from skinseg_jax.models.cpu import convolution, reduction, switch

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
  return switch.choose(x, kernel, cpu=convolution.conv3x3, plain=plain.conv3x3)


def _conv3x3_fwd(x, kernel):
  return conv3x3(x, kernel), (x, kernel)


def _conv3x3_bwd(saved, dy):
  x, kernel = saved
  turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
  dkernel = switch.choose(
    x,
    dy,
    cpu=convolution.conv3x3_kernel_grad,
    plain=plain.conv3x3_kernel_grad,
  )
  return conv3x3(dy, turned), dkernel


conv3x3.defvjp(_conv3x3_fwd, _conv3x3_bwd)


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
  wide = plain.widened(x)
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
  wide = plain.widened(x)
  dy = jnp.where(positive, plain.widened(cotangents[0]), 0)
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


def _channel_sum(x: jax.Array) -> jax.Array:
  """Sum over all but the last axis; [B, H, W, C] to [C]."""
  return switch.choose(
    x, cpu=reduction.channel_sum, plain=lambda x: x.sum((0, 1, 2))
  )


def _per_channel(values: jax.Array) -> jax.Array:
  return values.reshape(1, 1, 1, -1)
