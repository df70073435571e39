"""U-Net with a classification network for its way down."""

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import blocks, layers
from skinseg_jax.models.encoders import interface

_WIDTHS = (256, 128, 64, 32, 16)


class EncoderUNet(interface.OnEncoder):
  """U-Net (Ronneberger et al., 2015, arXiv:1505.04597) on an encoder.

  Equal to `Unet` of segmentation-models-pytorch. Unlike the paper's: the
  encoder is a residual network, maps grow by repeating pixels instead of by
  transposed convolutions, convolutions are padded and have batch norm, a fifth
  block has no skip connection, and the last convolution is 3x3.
  """

  def __init__(
    self,
    encoder: interface.Encoder,
    *,
    remat: bool = False,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    """Builds the network.

    Args:
      encoder: Gives features at strides 1, 2, 4, 8, 16 and 32.
      remat: Whether blocks are recomputed in the backward pass.
      dtype: Type that is computed in.
      rngs: Source of the initial weights.
    """
    self.encoder, self.remat = encoder, remat
    self.decoder = _Decoder(encoder.features, dtype=dtype, rngs=rngs)
    self.segmentation_head = blocks.Head(_WIDTHS[-1], dtype=dtype, rngs=rngs)

  def __call__(
    self, images: jax.Array, *, key: jax.Array | None = None
  ) -> jax.Array:
    """Predicts logits.

    Args:
      images: RGB in [0, 1], float, [B, H, W, 3]; H and W multiples of 32.
      key: Of dropout, which this network does not have.

    Returns:
      Logits of lesion, float32, [B, H, W, 1].
    """
    del key
    run = layers.runner(self.remat)
    *skips, x = self.encoder(images)[1:]
    for block, skip in zip(
      self.decoder.blocks, (*reversed(skips), None), strict=True
    ):
      x = run(block, x, skip)
    return self.segmentation_head(x)


class _Decoder(nnx.Module):
  """Five blocks, each at twice the size of the one before."""

  def __init__(
    self, features: tuple[int, ...], *, dtype: jnp.dtype, rngs: nnx.Rngs
  ):
    *skips, deepest = features[1:]
    self.blocks = nnx.List(
      [
        blocks.UpBlock(below, skip, width, dtype=dtype, rngs=rngs)
        for below, skip, width in zip(
          (deepest, *_WIDTHS[:-1]), (*reversed(skips), 0), _WIDTHS, strict=True
        )
      ]
    )
