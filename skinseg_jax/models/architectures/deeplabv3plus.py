"""DeepLabV3+: DeepLabV3 at stride 16, refined with features of stride 4."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import blocks, layers, resampling
from skinseg_jax.models.encoders import interface

_FEATURES, _SKIP = 256, 48


class DeepLabV3Plus(interface.OnEncoder):
  """DeepLabV3+ (Chen et al., 2018, arXiv:1802.02611), on a dilated encoder.

  Equal to `DeepLabV3Plus` of segmentation-models-pytorch. Unlike the paper's,
  the rates are 12, 24, 36 at stride 16 (the paper has 6, 12, 18 there), and
  one separable convolution follows the concatenation, not two.
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
      encoder: Its last features are at stride 16.
      remat: Whether blocks are recomputed in the backward pass.
      dtype: Type that is computed in.
      rngs: Source of the initial weights.
    """
    self.encoder, self.remat = encoder, remat
    self.decoder = _Decoder(encoder.features, dtype=dtype, rngs=rngs)
    self.segmentation_head = blocks.Head(
      _FEATURES, 1, upsampling=4, init='torch', dtype=dtype, rngs=rngs
    )

  def __call__(
    self, images: jax.Array, *, key: jax.Array | None = None
  ) -> jax.Array:
    """Predicts logits.

    Args:
      images: RGB in [0, 1], float, [B, H, W, 3]; H and W multiples of 32.
      key: Of dropout; None for none.

    Returns:
      Logits of lesion, float32, [B, H, W, 1].
    """
    features = self.encoder(images)
    run = layers.runner(self.remat)
    x = run(self.decoder, features[5], features[2], key)
    return self.segmentation_head(x)


class _Decoder(nnx.Module):
  TORCH_NAMES: ClassVar[dict[str, str]] = {
    'pyramid': 'aspp.0',
    'conv': 'aspp.1',
    'norm': 'aspp.2',
    'skip': 'block1',
    'merge': 'block2',
  }

  def __init__(self, features, *, dtype, rngs):
    options = {'dtype': dtype, 'rngs': rngs}
    self.pyramid = blocks.AtrousPyramid(
      features[5], (12, 24, 36), separable=True, **options
    )
    self.conv = blocks.SeparableConv(_FEATURES, _FEATURES, **options)
    self.norm = layers.BatchNorm(_FEATURES, rngs=rngs)
    self.skip = layers.ConvNorm(features[2], _SKIP, 1, **options)
    self.merge = blocks.SeparableConvNorm(
      _FEATURES + _SKIP, _FEATURES, **options
    )

  def __call__(self, deep, shallow, key):
    x = self.norm(self.conv(self.pyramid(deep, key)))
    x = resampling.resize_bilinear(x, shallow.shape[1:3], align_corners=True)
    return self.merge(jnp.concatenate([x, self.skip(shallow)], axis=-1))
