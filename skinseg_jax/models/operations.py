"""Operations that the layers are built of, in forms that XLA runs fast.

Layout NHWC; kernels [height, width, in, out]. Where CPUs need another form of
an operation, `cpu.switch` chooses it when the program is compiled.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from skinseg_jax.models import named, plain
from skinseg_jax.models.cpu import (
  convolution,
  forms,
  fusion,
  reduction,
  switch,
)

# Zeros above and below, left and right.
Padding = tuple[tuple[int, int], tuple[int, int]]


def conv(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: Padding = ((0, 0), (0, 0)),
  dilation: int = 1,
  groups: int = 1,
) -> jax.Array:
  """Convolution, in the form that is fastest for its shape.

  Args:
    x: Float [B, H, W, in].
    kernel: Float [height, width, in / groups, out], of the same type.
    stride: Of the windows, in both directions.
    padding: Rows of zeros above and below, columns left and right.
    dilation: Distance of neighbouring taps.
    groups: 1, or `in` for a depthwise convolution.

  Returns:
    Float [B, H', W', out].
  """
  size = kernel.shape[:2]
  if size == (1, 1) and groups == 1 and not any(map(any, padding)):
    if stride > 1:
      # Not by indexing: where the batch is symbolic, that becomes a gather.
      x = lax.slice(x, (0,) * 4, x.shape, (1, stride, stride, 1))
    return _conv(x, kernel, plain.Geometry())
  simple = (stride, dilation, groups) == (1, 1, 1)
  if simple and size == (3, 3) and padding == ((1, 1), (1, 1)):
    return conv3x3(x, kernel)
  geometry = plain.Geometry(stride, padding, dilation, groups)
  return _conv(x, kernel, geometry)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, kernel, geometry):
  form = forms.conv_form(kernel.shape, geometry)
  return switch.choose(
    x,
    kernel,
    cpu=functools.partial(form.conv, geometry=geometry),
    plain=functools.partial(plain.conv, geometry=geometry),
  )


def _conv_fwd(x, kernel, geometry):
  return _conv(x, kernel, geometry), (x, kernel)


def _conv_bwd(geometry, saved, dy):
  x, kernel = saved
  form = forms.conv_form(kernel.shape, geometry)
  choose = lambda *args, cpu, plain, size: switch.choose(
    *args,
    cpu=lambda *args: cpu(*args, size, geometry),
    plain=lambda *args: plain(*args, size, geometry),
  )
  dx = choose(
    dy,
    kernel,
    cpu=form.input_grad,
    plain=plain.conv_input_grad,
    size=x.shape[1:3],
  )
  dkernel = choose(
    x,
    dy,
    cpu=form.kernel_grad,
    plain=plain.conv_kernel_grad,
    size=kernel.shape[:2],
  )
  return dx, dkernel


_conv.defvjp(_conv_fwd, _conv_bwd)


@named.operation
def conv_transpose(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Transposed convolution of stride 2 with a 3x3 or 4x4 kernel.

  As `torch.nn.ConvTranspose2d` with padding 1, and output padding 1 where the
  kernel is odd.

  Args:
    x: Float [B, H, W, in].
    kernel: Float [k, k, out, in], of the same type.

  Returns:
    Float [B, 2H, 2W, out].
  """
  odd = kernel.shape[0] % 2
  # TensorFlow Lite's converter swaps sides of different widths, without a word:
  # both have the wider one, and what is too much is cut off.
  sides = (kernel.shape[0] - 2 + odd,) * 2
  y = lax.conv_general_dilated(
    x,
    kernel[::-1, ::-1].transpose(0, 1, 3, 2),
    (1, 1),
    (sides, sides),
    lhs_dilation=(2, 2),
    dimension_numbers=plain.LAYOUT,
  )
  return lax.slice(y, (0, odd, odd, 0), y.shape)


@named.operation
def conv_transpose2x2(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Transposed convolution with a 2x2 kernel and stride 2.

  Args:
    x: Float [B, H, W, in].
    kernel: Float [2, 2, out, in], of the same type.

  Returns:
    Float [B, 2H, 2W, out].
  """
  b, h, w, c = x.shape
  # No two windows overlap: one matrix product.
  y = x.reshape(-1, c) @ kernel.reshape(-1, c).T
  y = y.reshape(b, h, w, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
  return y.reshape(b, 2 * h, 2 * w, -1)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  epsilon: float,
  activation: str,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Batch normalisation, then the activation; with the batch's statistics.

  Args:
    x: Float [B, H, W, C].
    scale: Float32 [C].
    bias: Float32 [C].
    epsilon: Added to the variance.
    activation: 'none', 'relu' or 'relu6'.

  Returns:
    Output [B, H, W, C] of x's type, mean [C] and biased variance [C], float32.
    The statistics are for the running averages: no gradient goes through them.
  """
  return _batch_norm_fwd(x, scale, bias, epsilon, activation)[0]


def _batch_norm_fwd(x, scale, bias, epsilon, activation):
  count = x.size // x.shape[-1]
  wide = plain.widened(x)
  # One pass over the data. A rough mean is subtracted first: where values are
  # far from 0, the difference of two squares would lose its digits.
  near = wide[:, x.shape[1] // 2].mean((0, 1))
  wide = wide - per_channel(near)
  rest = _channel_sum(wide) / count
  mean = near + rest
  var = jnp.maximum(_channel_sum(wide * wide) / count - rest * rest, 0)
  rstd = lax.rsqrt(var + epsilon)
  y = activate(_normalise(x, scale, bias, mean, rstd), activation)
  return (y.astype(x.dtype), mean, var), (x, scale, bias, mean, rstd)


def _batch_norm_bwd(epsilon, activation, saved, cotangents):
  # Section 3 of the paper. The mask of the activation's flat parts is
  # recomputed, not stored.
  x, scale, bias, mean, rstd = saved
  count = x.size // x.shape[-1]
  gain = rstd * scale
  dy = cotangents[0]
  if activation != 'relu':
    # After a ReLU, the paper's U-Net keeps the bits it had without this.
    dy = switch.choose(dy, cpu=fusion.kept, plain=lambda dy: dy)
  wide, dy = plain.widened(x), plain.widened(dy)
  if activation != 'none':
    y = _normalise(x, scale, bias, mean, rstd)
    slopes = (y > 0) & (y < 6) if activation == 'relu6' else y > 0
    dy = jnp.where(slopes, dy, 0)
  dbias = _channel_sum(dy)
  dscale = _channel_sum(dy * (wide - per_channel(mean))) * rstd
  slope = gain * rstd * dscale / count
  shift = mean * slope - gain * dbias / count
  dx = dy * per_channel(gain) - wide * per_channel(slope) + per_channel(shift)
  return dx.astype(x.dtype), dscale, dbias


batch_norm.defvjp(_batch_norm_fwd, _batch_norm_bwd)


def normalise(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  mean: jax.Array,
  variance: jax.Array,
  epsilon: float,
  activation: str,
) -> jax.Array:
  """Batch normalisation by given statistics, then the activation."""
  rstd = lax.rsqrt(variance + epsilon)
  y = activate(_normalise(x, scale, bias, mean, rstd), activation)
  return y.astype(x.dtype)


def activate(x: jax.Array, activation: str) -> jax.Array:
  """Applies 'none', 'relu' or 'relu6'."""
  match activation:
    case 'none':
      return x
    case 'relu':
      return jnp.maximum(x, 0)
    case 'relu6':
      return jnp.clip(x, 0, 6)
  raise ValueError(f'unknown activation {activation!r}')


def _normalise(x, scale, bias, mean, rstd):
  gain = rstd * scale
  return x * per_channel(gain) + per_channel(bias - mean * gain)


def _channel_sum(x: jax.Array) -> jax.Array:
  """Sum over all but the last axis; [B, H, W, C] to [C]."""
  return switch.choose(
    x, cpu=reduction.channel_sum, plain=lambda x: x.sum((0, 1, 2))
  )


def per_channel(values: jax.Array) -> jax.Array:
  """[C] to [1, 1, 1, C]."""
  return values.reshape(1, 1, 1, -1)
