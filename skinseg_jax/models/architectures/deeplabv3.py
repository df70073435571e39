"""DeepLabV3: dilated convolutions of several rates at stride 8."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import blocks, layers, plain, resampling
from skinseg_jax.models.encoders import interface

_FEATURES = 256


class DeepLabV3(interface.OnEncoder):
  """DeepLabV3 (Chen et al., 2017, arXiv:1706.05587), on a dilated encoder.

  Equal to `deeplabv3_resnet50` of torchvision, without its auxiliary loss.
  torchvision has no other encoder; those here are dilated as
  segmentation-models-pytorch does it. Unlike the paper's, the head has one
  more 3x3 convolution.
  """

  TORCH_NAMES: ClassVar[dict[str, str]] = {
    'encoder': 'backbone',
    'aspp': 'classifier.0',
    'conv': 'classifier.1',
    'norm': 'classifier.2',
    'head': 'classifier.4',
  }

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
      encoder: Its last features are at stride 8.
      remat: Whether blocks are recomputed in the backward pass.
      dtype: Type that is computed in.
      rngs: Source of the initial weights.
    """
    options: dict[str, Any] = {'dtype': dtype, 'rngs': rngs}
    self.encoder, self.remat = encoder, remat
    self.aspp = blocks.AtrousPyramid(
      encoder.features[5], (12, 24, 36), separable=False, **options
    )
    self.conv = layers.Conv(_FEATURES, _FEATURES, **options)
    self.norm = layers.BatchNorm(_FEATURES, rngs=rngs)
    self.head = layers.Conv(_FEATURES, 1, 1, bias=True, **options)

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
    x = self.encoder(images)[5]
    x = layers.runner(self.remat)(self.aspp, x, key)
    x = plain.widened(self.head(self.norm(self.conv(x))))
    return resampling.resize_bilinear(
      x, (images.shape[1], images.shape[2]), align_corners=False
    )
