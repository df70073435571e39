"""FPN: a pyramid of features, each level made a part of the answer."""

import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import blocks, layers, resampling
from skinseg_jax.models.encoders import interface

_PYRAMID, _SEGMENTATION = 256, 128


class FPN(interface.OnEncoder):
  """Feature pyramid network for segmentation, on an encoder.

  The pyramid is that of Lin et al., 2017 (arXiv:1612.03144), the branches those
  of Kirillov et al., 2019 (arXiv:1901.02446). Equal to `FPN` of
  segmentation-models-pytorch. Unlike the papers', the pyramid has no 3x3
  convolutions after its sums.
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
    self.segmentation_head = blocks.Head(
      _SEGMENTATION, 1, upsampling=4, dtype=dtype, rngs=rngs
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
    x = self.decoder(self.encoder(images), layers.runner(self.remat))
    return self.segmentation_head(layers.dropout(x, 0.2, key, channels=True))


class _Decoder(nnx.Module):
  def __init__(self, features, *, dtype, rngs):
    options = {'dtype': dtype, 'rngs': rngs}
    self.p5 = layers.Conv(
      features[5], _PYRAMID, 1, bias=True, init='he_uniform', **options
    )
    self.p4, self.p3, self.p2 = (
      _Lateral(features[i], **options) for i in (4, 3, 2)
    )
    self.seg_blocks = nnx.List(
      [_Branch(upsamplings, **options) for upsamplings in (3, 2, 1, 0)]
    )

  def __call__(self, features, run):
    p5 = self.p5(features[5])
    p4 = self.p4(p5, features[4])
    p3 = self.p3(p4, features[3])
    p2 = self.p2(p3, features[2])
    pairs = zip(self.seg_blocks, (p5, p4, p3, p2), strict=True)
    return sum(run(branch, level) for branch, level in pairs)


class _Lateral(nnx.Module):
  """What comes from above, upsampled, plus a 1x1 convolution of the skip."""

  def __init__(self, skip_features, *, dtype, rngs):
    self.skip_conv = layers.Conv(
      skip_features,
      _PYRAMID,
      1,
      bias=True,
      init='he_uniform',
      dtype=dtype,
      rngs=rngs,
    )

  def __call__(self, x, skip):
    return resampling.double(x) + self.skip_conv(skip)


class _Branch(nnx.Module):
  """Brings a level of the pyramid to a quarter of the image's size."""

  def __init__(self, upsamplings, *, dtype, rngs):
    self.upsamplings = upsamplings
    widths = [_PYRAMID] + [_SEGMENTATION] * max(1, upsamplings)
    self.block = nnx.List(
      [
        _ConvGroupNorm(i, o, dtype=dtype, rngs=rngs)
        for i, o in itertools.pairwise(widths)
      ]
    )

  def __call__(self, x):
    for conv in self.block:
      x = conv(x)
      if self.upsamplings:
        size = (2 * x.shape[1], 2 * x.shape[2])
        x = resampling.resize_bilinear(x, size, align_corners=True)
    return x


class _ConvGroupNorm(nnx.Module):
  """3x3 convolution, group normalisation, ReLU."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {'conv': 'block.0', 'norm': 'block.1'}

  def __init__(self, in_features, features, *, dtype, rngs):
    self.conv = layers.Conv(
      in_features, features, init='he_uniform', dtype=dtype, rngs=rngs
    )
    self.norm = nnx.GroupNorm(
      features,
      num_groups=32,
      epsilon=1e-5,
      use_fast_variance=False,
      dtype=dtype,
      rngs=rngs,
    )

  def __call__(self, x):
    return nnx.relu(self.norm(self.conv(x)))
