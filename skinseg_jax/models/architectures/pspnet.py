"""PSPNet: means over grids of four sizes beside the features."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import blocks, layers, resampling
from skinseg_jax.models.encoders import interface

_BINS, _FEATURES = (1, 2, 3, 6), 512


class PSPNet(interface.OnEncoder):
  """Pyramid scene parsing network (Zhao et al., 2017, arXiv:1612.01105).

  Equal to `PSPNet` of segmentation-models-pytorch. Unlike the paper's, it uses
  the encoder only down to stride 8, without dilation, joins by a 1x1 instead
  of a 3x3 convolution and has no auxiliary loss. The deeper stages of the
  encoder are there for its weights; they are never computed.
  """

  DEPTH = 3

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
      encoder: Gives features at strides 1, 2, 4 and 8.
      remat: Whether blocks are recomputed in the backward pass.
      dtype: Type that is computed in.
      rngs: Source of the initial weights.
    """
    self.encoder, self.remat = encoder, remat
    self.decoder = _Decoder(
      encoder.features[self.DEPTH], dtype=dtype, rngs=rngs
    )
    self.segmentation_head = blocks.Head(
      _FEATURES, upsampling=8, dtype=dtype, rngs=rngs
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
    features = self.encoder(images, depth=self.DEPTH)
    x = layers.runner(self.remat)(self.decoder, features[-1])
    return self.segmentation_head(layers.dropout(x, 0.2, key, channels=True))


class _Decoder(nnx.Module):
  TORCH_NAMES: ClassVar[dict[str, str]] = {'pools': 'psp.blocks'}

  def __init__(self, features, *, dtype, rngs):
    options = {
      'init': 'he_uniform',
      'dtype': dtype,
      'rngs': rngs,
    }
    self.pools = nnx.List([_Pool(features, size, **options) for size in _BINS])
    self.conv = layers.ConvNorm(2 * features, _FEATURES, 1, **options)

  def __call__(self, x):
    return self.conv(
      jnp.concatenate([*[pool(x) for pool in self.pools], x], axis=-1)
    )


class _Pool(nnx.Module):
  """Mean over a grid, 1x1 convolution, batch norm (not for 1x1), ReLU."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {
    'conv': 'pool.1.0',
    'norm': 'pool.1.1',
  }

  def __init__(self, features, size, *, rngs, **options):
    self.size = size
    self.conv = layers.Conv(
      features, features // len(_BINS), 1, bias=size == 1, rngs=rngs, **options
    )
    if size > 1:  # One pixel an image is too few for statistics.
      self.norm = layers.BatchNorm(features // len(_BINS), rngs=rngs)

  def __call__(self, x):
    y = self.conv(resampling.adaptive_average_pool(x, (self.size, self.size)))
    y = self.norm(y) if self.size > 1 else nnx.relu(y)
    return resampling.resize_bilinear(y, x.shape[1:3], align_corners=True)
