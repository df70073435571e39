"""The paper's U-Net: four levels down, a bottleneck, four levels up."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import layers, plain

# PyTorch's default for convolutions: uniform in +-1 / sqrt(fan_in), for
# kernels (torch.nn.init.kaiming_uniform_ with a = sqrt(5)) and for biases.
_TORCH_KERNEL = nnx.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def _torch_bias(fan_in: int) -> nnx.Initializer:
  def init(key, shape, dtype=jnp.float32):
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def _init(initializer: str, fan_in: int) -> dict[str, Any]:
  """Initialisers of kernel and bias by name: 'torch' or 'flax'."""
  match initializer:
    case 'torch':
      return {'kernel_init': _TORCH_KERNEL, 'bias_init': _torch_bias(fan_in)}
    case 'flax':
      return {
        'kernel_init': nnx.initializers.lecun_normal(),
        'bias_init': nnx.initializers.zeros,
      }
  raise ValueError(f"initializer must be 'torch' or 'flax': {initializer!r}")


class DoubleConv(nnx.Module):
  """(3x3 convolution, batch norm, ReLU) twice; height and width stay."""

  def __init__(
    self,
    in_features: int,
    features: int,
    *,
    dtype: jnp.dtype,
    initializer: str,
    rngs: nnx.Rngs,
  ):
    conv = functools.partial(
      layers.Conv3x3,
      dtype=dtype,
      kernel_init=_init(initializer, in_features)['kernel_init'],
      rngs=rngs,
    )
    norm = functools.partial(layers.BatchNormRelu, features, rngs=rngs)
    self.conv1, self.norm1 = conv(in_features, features), norm()
    self.conv2, self.norm2 = conv(features, features), norm()

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, H, W, features]."""
    return self.norm2(self.conv2(self.norm1(self.conv1(x))))


class UNet(nnx.Module):
  """U-Net with batch norm, after Ronneberger et al., 2015 (arXiv:1505.04597).

  Unlike theirs, convolutions are padded, so that the output has the size of
  the input. At `width=64` it has 31,037,633 parameters.
  """

  def __init__(
    self,
    width: int,
    *,
    dtype: jnp.dtype = jnp.float32,
    initializer: str = 'torch',
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    """Builds the model.

    Args:
      width: Channels of the first level; doubled at each of four levels.
      dtype: Type that convolutions and activations are computed in;
        parameters and statistics are float32.
      initializer: 'torch' or 'flax', whose defaults to start from.
      remat: Whether the gradient computes what is inside a block anew, rather
        than keep it from the forward pass.
      rngs: Source of the initial weights.
    """
    block = functools.partial(
      DoubleConv, dtype=dtype, initializer=initializer, rngs=rngs
    )
    widths = [width * 2**level for level in range(5)]
    self.dtype, self.remat = dtype, remat
    self.downs = nnx.List(
      [block(i, o) for i, o in zip([3, *widths], widths[:4], strict=False)]
    )
    self.bottleneck = block(widths[3], widths[4])
    self.ups = nnx.List(
      [
        layers.ConvTranspose2x2(
          2 * features,
          features,
          dtype=dtype,
          rngs=rngs,
          **_init(initializer, 4 * features),
        )
        for features in reversed(widths[:4])
      ]
    )
    self.up_blocks = nnx.List(
      [block(2 * features, features) for features in reversed(widths[:4])]
    )
    self.head = nnx.Conv(
      width, 1, (1, 1), dtype=dtype, rngs=rngs, **_init(initializer, width)
    )

  def __call__(self, images: jax.Array) -> jax.Array:
    """Predicts logits.

    Args:
      images: RGB in [0, 1], float, [B, H, W, 3]; H and W multiples of 16.

    Returns:
      Logits of lesion, float32, [B, H, W, 1].

    Raises:
      ValueError: If H or W is no multiple of 16.
    """
    if images.shape[1] % 16 or images.shape[2] % 16:
      raise ValueError(
        'height and width must be multiples of 16 (four poolings halve'
        f' them), got {images.shape[1:3]}.'
      )
    run = nnx.remat(_run) if self.remat else _run
    x, skips = images.astype(self.dtype), []
    for down in self.downs:
      x = run(down, x)
      skips.append(x)
      x = layers.max_pool(x)
    x = run(self.bottleneck, x)
    for up, block in zip(self.ups, self.up_blocks, strict=True):
      x = run(block, jnp.concatenate([skips.pop(), up(x)], axis=-1))
    return plain.widened(self.head(x))


def _run(block: DoubleConv, x: jax.Array) -> jax.Array:
  return block(x)
