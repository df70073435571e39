"""Layers that the networks are built of.

Layout NHWC; kernels [height, width, in, out]. Parameters and statistics are
float32; what a layer computes has the type that its `dtype` names.

Modules carry the names that PyTorch's implementations use, so that weights can
be exchanged. Where PyTorch has a number in a sequence, `TORCH_NAMES` of the
class maps our name to it.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import operations

# PyTorch's momentum of 0.1 in the sense of Flax.
MOMENTUM = 0.9

_scaled = nnx.initializers.variance_scaling
# Initial kernels by name, with the source of each.
_KERNELS: dict[str, nnx.Initializer] = {
  # PyTorch's default: uniform in +-1 / sqrt(fan_in), also for biases
  # (torch.nn.init.kaiming_uniform_ with a = sqrt(5)).
  'torch': _scaled(1 / 3, 'fan_in', 'uniform'),
  # Flax's default, with biases of 0.
  'flax': nnx.initializers.lecun_normal(),
  # He et al., 2015 (arXiv:1502.01852), with biases of 0: decoders of
  # segmentation-models-pytorch, and torchvision's ResNets.
  'he_uniform': _scaled(2.0, 'fan_in', 'uniform'),
  'he_fan_out': _scaled(2.0, 'fan_out', 'normal'),
  'he_fan_in': _scaled(2.0, 'fan_in', 'normal'),
  # Glorot and Bengio, 2010, with biases of 0: heads of
  # segmentation-models-pytorch.
  'glorot': _scaled(1.0, 'fan_avg', 'uniform'),
}


def initializers(
  name: str, fan_in: int
) -> tuple[nnx.Initializer, nnx.Initializer]:
  """Initialisers of kernel and bias.

  Args:
    name: 'torch', 'flax', 'he_uniform', 'he_fan_out', 'he_fan_in' or
      'glorot'.
    fan_in: Number of inputs that each output adds up.
  """
  if name not in _KERNELS:
    raise ValueError(f'initializer must be one of {[*_KERNELS]}: {name!r}')
  if name != 'torch':
    return _KERNELS[name], nnx.initializers.zeros

  def bias(key, shape, dtype=jnp.float32):
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return _KERNELS[name], bias


class Conv(nnx.Module):
  """Convolution; at stride 1, height and width stay."""

  def __init__(
    self,
    in_features: int,
    features: int,
    kernel_size: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
    same: bool = False,
    init: str = 'torch',
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    """Builds the layer.

    Args:
      in_features: Channels of the input.
      features: Channels of the output.
      kernel_size: Height and width of the kernel.
      stride: Distance of neighbouring windows.
      dilation: Distance of neighbouring taps.
      groups: 1, or `in_features` for a depthwise convolution.
      bias: Whether to add one.
      same: Pad as TensorFlow's 'SAME' does, with more below and to the right,
        instead of equally on all sides.
      init: Name of the initialiser, see `initializers`.
      dtype: Type that is computed in.
      rngs: Source of the initial weights.
    """
    shape = (kernel_size, kernel_size, in_features // groups, features)
    fan_in = kernel_size**2 * in_features // groups
    kernel_init, bias_init = initializers(init, fan_in)
    self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
    if bias:
      self.bias = nnx.Param(bias_init(rngs.params(), (features,), jnp.float32))
    self.has_bias, self.dtype = bias, dtype
    self.stride, self.dilation, self.groups = stride, dilation, groups
    self.same = same

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, H / stride, W / stride, features]."""
    y = operations.conv(
      x.astype(self.dtype),
      self.kernel[...].astype(self.dtype),
      stride=self.stride,
      padding=(self._padding(x.shape[1]), self._padding(x.shape[2])),
      dilation=self.dilation,
      groups=self.groups,
    )
    if self.has_bias:
      y = y + operations.per_channel(self.bias[...].astype(self.dtype))
    return y

  def _padding(self, size: int) -> tuple[int, int]:
    reach = self.dilation * (self.kernel.shape[0] - 1)
    if not self.same:
      return reach // 2, reach // 2
    total = max(
      0, (-(-size // self.stride) - 1) * self.stride + reach + 1 - size
    )
    return total // 2, total - total // 2


class ConvTranspose(nnx.Module):
  """Transposed convolution of stride 2; doubles height and width."""

  def __init__(
    self,
    in_features: int,
    features: int,
    kernel_size: int = 2,
    *,
    init: str = 'torch',
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    # PyTorch's weight [in, out, k, k], permuted by (2, 3, 1, 0).
    shape = (kernel_size, kernel_size, features, in_features)
    # PyTorch takes the number of outputs for the fan-in here.
    kernel_init, bias_init = initializers(init, kernel_size**2 * features)
    self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
    self.bias = nnx.Param(bias_init(rngs.params(), (features,), jnp.float32))
    self.dtype = dtype

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, 2H, 2W, features]."""
    kernel, bias = (p[...].astype(self.dtype) for p in (self.kernel, self.bias))
    x = x.astype(self.dtype)
    if kernel.shape[0] == 2:
      y = operations.conv_transpose2x2(x, kernel)
    else:
      y = operations.conv_transpose(x, kernel)
    return y + operations.per_channel(bias)


class BatchNorm(nnx.Module):
  """Batch normalisation (Ioffe and Szegedy, 2015), then an activation.

  Statistics and parameters are float32. The running variance is the biased
  one of each batch; PyTorch's is greater by n / (n - 1), n = B * H * W.
  """

  def __init__(
    self,
    features: int,
    *,
    activation: str = 'relu',
    epsilon: float = 1e-5,
    rngs: nnx.Rngs,
  ):
    """Builds the layer.

    Args:
      features: Channels.
      activation: 'none', 'relu' or 'relu6'.
      epsilon: Added to the variance.
      rngs: Not used; every layer takes it.
    """
    del rngs  # Nothing here is random.
    self.scale = nnx.Param(jnp.ones(features))
    self.bias = nnx.Param(jnp.zeros(features))
    self.mean = nnx.BatchStat(jnp.zeros(features))
    self.var = nnx.BatchStat(jnp.ones(features))
    self.activation, self.epsilon = activation, epsilon
    self.use_running_average = False

  def set_view(self, use_running_average: bool | None = None) -> None:
    """Lets `nnx.view` switch to the running statistics."""
    if use_running_average is not None:
      self.use_running_average = use_running_average

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, features] to the same shape and type."""
    scale, bias = self.scale[...], self.bias[...]
    if self.use_running_average:
      mean, var = self.mean[...], self.var[...]
      return operations.normalise(
        x, scale, bias, mean, var, self.epsilon, self.activation
      )
    y, mean, var = operations.batch_norm(
      x, scale, bias, self.epsilon, self.activation
    )
    for running, batch in ((self.mean, mean), (self.var, var)):
      running[...] = MOMENTUM * running[...] + (1 - MOMENTUM) * batch
    return y


class ConvNorm(nnx.Module):
  """Convolution, batch norm, activation."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {'conv': '0', 'norm': '1'}

  def __init__(
    self,
    in_features: int,
    features: int,
    kernel_size: int = 3,
    *,
    activation: str = 'relu',
    rngs: nnx.Rngs,
    **options: Any,
  ):
    """Builds the layers.

    Args:
      in_features: Channels of the input.
      features: Channels of the output.
      kernel_size: Height and width of the kernel.
      activation: 'none', 'relu' or 'relu6'.
      rngs: Source of the initial weights.
      **options: Of `Conv`.
    """
    self.conv = Conv(in_features, features, kernel_size, rngs=rngs, **options)
    self.norm = BatchNorm(features, activation=activation, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, H / stride, W / stride, features]."""
    return self.norm(self.conv(x))


def dropout(
  x: jax.Array, rate: float, key: jax.Array | None, *, channels: bool = False
) -> jax.Array:
  """Sets values to 0 at random and scales up the others.

  Args:
    x: Float [B, H, W, C].
    rate: Probability of a 0, in [0, 1).
    key: Of the random numbers; None leaves x as it is.
    channels: Whether whole channels of an image are set to 0.
  """
  if key is None:
    return x
  shape = (x.shape[0], 1, 1, x.shape[3]) if channels else x.shape
  kept = jax.random.bernoulli(key, 1 - rate, shape)
  return jnp.where(kept, x / (1 - rate), 0)


def runner(remat: bool) -> Callable[..., Any]:
  """Returns a function that calls a block.

  Args:
    remat: Whether the gradient computes what is inside the block again,
      instead of keeping it from the forward pass.
  """
  return nnx.remat(_call) if remat else _call


def _call(block: Callable[..., Any], *args: jax.Array) -> Any:
  return block(*args)
