"""UNet++: a U-Net whose skips are dense."""

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import blocks, layers
from skinseg_jax.models.encoders import interface

_WIDTHS = (256, 128, 64, 32, 16)


class UNetPlusPlus(interface.OnEncoder):
  """UNet++ (Zhou et al., 2018, arXiv:1807.10165) on an encoder.

  Equal to `UnetPlusPlus` of segmentation-models-pytorch. Unlike the paper's,
  it has an encoder, which can be pretrained, instead of its own, nearest
  instead of bilinear upsampling, a last block without a skip, and no deep
  supervision.

  Node x_d_l of the figure takes what is below it (x_d_(l-1), upsampled), the
  nodes x_(d+1)_l to x_l_l on its left, and the encoder's features of the same
  size.
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
    return self.segmentation_head(self.decoder(self.encoder(images), run))


class _Decoder(nnx.Module):
  def __init__(self, features, *, dtype, rngs):
    skips = features[:0:-1]  # The deepest first, without the image.
    inputs, last = (skips[0], *_WIDTHS[:-1]), len(_WIDTHS) - 1

    def node(depth, level):
      """Node x_depth_level; its row of the figure is `level`."""
      beside = level + 1 - depth
      below = inputs[level] if depth == 0 else skips[level]
      return blocks.UpBlock(
        below,
        skips[level + 1] * beside,
        _WIDTHS[level] if depth == 0 else skips[level + 1],
        dtype=dtype,
        rngs=rngs,
      )

    self.blocks = nnx.Dict(
      {
        f'x_{depth}_{level}': node(depth, level)
        for level in range(last)
        for depth in range(level + 1)
      }
    )
    self.blocks[f'x_0_{last}'] = blocks.UpBlock(
      inputs[last], 0, _WIDTHS[last], dtype=dtype, rngs=rngs
    )

  def __call__(self, features, run):
    skips, last = features[:0:-1], len(_WIDTHS) - 1
    nodes = {}
    for column in range(last):
      for depth in range(last - column):
        level = depth + column
        below = nodes[depth, level - 1] if column else skips[depth]
        beside = [nodes[other, level] for other in range(depth + 1, level + 1)]
        skip = jnp.concatenate([*beside, skips[level + 1]], axis=-1)
        nodes[depth, level] = run(
          self.blocks[f'x_{depth}_{level}'], below, skip
        )
    return run(self.blocks[f'x_0_{last}'], nodes[0, last - 1])
