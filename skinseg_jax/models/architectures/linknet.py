"""LinkNet: a light decoder that adds the skips."""

import functools
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import blocks, layers
from skinseg_jax.models.encoders import interface

_LAST = 32


class LinkNet(interface.OnEncoder):
  """LinkNet (Chaurasia and Culurciello, 2017, arXiv:1707.03718), on an encoder.

  Equal to `Linknet` of segmentation-models-pytorch. Unlike the paper's, the
  transposed convolutions are 4x4 and the head is one 1x1 convolution after a
  fifth block without a skip.
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
    self.segmentation_head = blocks.Head(_LAST, 1, dtype=dtype, rngs=rngs)

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
    widths = (*features[:0:-1], _LAST)
    self.blocks = nnx.List(
      [
        _Block(i, o, dtype=dtype, rngs=rngs)
        for i, o in itertools.pairwise(widths)
      ]
    )

  def __call__(self, features, run):
    x, *skips = features[:0:-1]
    for block, skip in zip(self.blocks, [*skips, None], strict=True):
      x = run(block, x)
      if skip is not None:
        x = x + skip
    return x


class _Block(nnx.Module):
  """1x1 convolution, upsampling by a transposed one, 1x1 convolution."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {
    'reduce': 'block.0',
    'up': 'block.1.0',
    'norm': 'block.1.1',
    'expand': 'block.2',
  }

  def __init__(self, in_features, features, *, dtype, rngs):
    conv = functools.partial(
      layers.ConvNorm, kernel_size=1, init='he_uniform', dtype=dtype, rngs=rngs
    )
    inner = in_features // 4
    self.reduce = conv(in_features, inner)
    self.up = layers.ConvTranspose(inner, inner, 4, dtype=dtype, rngs=rngs)
    self.norm = layers.BatchNorm(inner, rngs=rngs)
    self.expand = conv(inner, features)

  def __call__(self, x):
    return self.expand(self.norm(self.up(self.reduce(x))))
