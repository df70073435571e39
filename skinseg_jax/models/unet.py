"""The paper's U-Net: four levels down, a bottleneck, four levels up."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import blocks, layers, plain, resampling


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
      layers.Conv, init=initializer, dtype=dtype, rngs=rngs
    )
    norm = functools.partial(layers.BatchNorm, features, rngs=rngs)
    self.conv1, self.norm1 = conv(in_features, features), norm()
    self.conv2, self.norm2 = conv(features, features), norm()

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, H, W, features]."""
    return self.norm2(self.conv2(self.norm1(self.conv1(x))))


class UNet(blocks.DownAndUp):
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
      remat: Whether the gradient computes what is inside a block again,
        instead of keeping it from the forward pass.
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
        layers.ConvTranspose(
          2 * features, features, init=initializer, dtype=dtype, rngs=rngs
        )
        for features in reversed(widths[:4])
      ]
    )
    self.up_blocks = nnx.List(
      [block(2 * features, features) for features in reversed(widths[:4])]
    )
    kernel_init, bias_init = layers.initializers(initializer, width)
    self.head = nnx.Conv(
      width,
      1,
      (1, 1),
      dtype=dtype,
      kernel_init=kernel_init,
      bias_init=bias_init,
      rngs=rngs,
    )

  def __call__(
    self, images: jax.Array, *, key: jax.Array | None = None
  ) -> jax.Array:
    """Predicts logits.

    Args:
      images: RGB in [0, 1], float, [B, H, W, 3]; H and W multiples of 16.
      key: Of dropout, which this network does not have.

    Returns:
      Logits of lesion, float32, [B, H, W, 1].

    Raises:
      ValueError: If H or W is no multiple of 16.
    """
    del key
    run = layers.runner(self.remat)
    x, skips = self._down(images)
    for up, block in zip(self.ups, self.up_blocks, strict=True):
      x = run(block, jnp.concatenate([skips.pop(), up(x)], axis=-1))
    return plain.widened(self.head(x))

  def _down(self, images):
    """The output of the bottleneck, and those of the levels above it."""
    if images.shape[1] % 16 or images.shape[2] % 16:
      raise ValueError(
        'height and width must be multiples of 16 (four poolings halve'
        f' them), got {images.shape[1:3]}.'
      )
    run = layers.runner(self.remat)
    x, skips = images.astype(self.dtype), []
    for down in self.downs:
      x = run(down, x)
      skips.append(x)
      x = resampling.max_pool(x)
    return run(self.bottleneck, x), skips
