"""FCN: a classifier at every position of a dilated encoder."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import layers, plain, resampling
from skinseg_jax.models.encoders import interface


class FCN(interface.OnEncoder):
  """Fully convolutional network (Long et al., 2015, arXiv:1411.4038).

  Equal to `fcn_resnet50` of torchvision, without its auxiliary loss.
  torchvision has no other encoder; those here are dilated as
  segmentation-models-pytorch does it. The paper's network has a VGG-16 without
  dilation, and adds predictions at strides 8, 16 and 32 by learned upsampling.
  """

  TORCH_NAMES: ClassVar[dict[str, str]] = {
    'encoder': 'backbone',
    'conv': 'classifier.0',
    'norm': 'classifier.1',
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
      remat: Whether the gradient computes each block of the encoder again.
      dtype: Type that is computed in.
      rngs: Source of the initial weights.
    """
    del remat  # The head is one block, and small.
    options: dict[str, Any] = {'dtype': dtype, 'rngs': rngs}
    self.encoder = encoder
    features = encoder.features[5] // 4
    self.conv = layers.Conv(encoder.features[5], features, **options)
    self.norm = layers.BatchNorm(features, rngs=rngs)
    self.head = layers.Conv(features, 1, 1, bias=True, **options)

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
    x = self.norm(self.conv(self.encoder(images)[5]))
    x = plain.widened(self.head(layers.dropout(x, 0.1, key)))
    return resampling.resize_bilinear(
      x, (images.shape[1], images.shape[2]), align_corners=False
    )
