"""ResNets of torchvision without their classifier (He et al., 2016)."""

import functools
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import layers, resampling
from skinseg_jax.models.encoders import inputs


class ResNet(nnx.Module):
  """ResNet v1 (arXiv:1512.03385), parameters named as torchvision's.

  Like torchvision, and unlike the paper, the 3x3 convolution of a bottleneck
  has the stride, not the 1x1 convolution before it.

  Attributes:
    features: Channels of what it returns, at strides 1, 2, 4, 8, 16 and 32.
  """

  # Of ImageNet's training images.
  MEAN: ClassVar = (0.485, 0.456, 0.406)
  DEVIATION: ClassVar = (0.229, 0.224, 0.225)

  def __init__(
    self,
    blocks: Sequence[int],
    *,
    bottleneck: bool = False,
    output_stride: int = 32,
    dilate_first: bool = True,
    dtype: jnp.dtype,
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    """Builds the encoder.

    Args:
      blocks: Number of blocks in each of the four stages.
      bottleneck: Whether a block is 1x1, 3x3, 1x1 instead of two 3x3.
      output_stride: 8, 16 or 32: stages beyond it dilate instead of stride.
      dilate_first: Whether the first block of such a stage has the stage's
        dilation (segmentation-models-pytorch) or that of the stage before
        (torchvision). The parameters fit both; the functions differ.
      dtype: Type that convolutions and activations are computed in.
      remat: Whether the gradient computes what is inside a block again,
        instead of keeping it from the forward pass.
      rngs: Source of the initial weights.
    """
    conv = functools.partial(
      layers.Conv, init='he_fan_out', dtype=dtype, rngs=rngs
    )
    block = functools.partial(
      _Bottleneck if bottleneck else _BasicBlock, dtype=dtype, rngs=rngs
    )
    self.dtype, self.remat = dtype, remat
    self.conv1 = conv(3, 64, 7, stride=2)
    self.bn1 = layers.BatchNorm(64, rngs=rngs)
    widths = [64, 128, 256, 512]
    factor = 4 if bottleneck else 1
    self.features = (3, 64, *(factor * width for width in widths))
    features, stages, reached, dilation = 64, [], 4, 1
    for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
      stride, before = 1 if number == 0 else 2, dilation
      if stride * reached > output_stride:
        dilation, stride = dilation * stride, 1
      reached *= stride
      first = dilation if dilate_first else before
      stage = [block(features, width, stride=stride, dilation=first)]
      features = factor * width
      stage += [
        block(features, width, stride=1, dilation=dilation)
        for _ in range(count - 1)
      ]
      stages.append(nnx.List(stage))
    self.layer1, self.layer2, self.layer3, self.layer4 = stages

  def __call__(self, images: jax.Array, *, depth: int = 5) -> list[jax.Array]:
    """Computes features.

    Args:
      images: RGB in [0, 1], float, [B, H, W, 3]; H and W multiples of 32.
      depth: Number of features, from 2; deeper stages are not computed.

    Returns:
      The normalised images, then the features: after the stem and each stage,
      at strides 2, 4, 8, 16 and 32, or up to the output stride.
    """
    run = layers.runner(self.remat)
    x = inputs.normalise(images, self.MEAN, self.DEVIATION, self.dtype)
    features = [x, self.bn1(self.conv1(x))]
    x = resampling.max_pool3x3(features[-1])
    stages = (self.layer1, self.layer2, self.layer3, self.layer4)
    for stage in stages[: depth - 1]:
      for block in stage:
        x = run(block, x)
      features.append(x)
    return features


class _BasicBlock(nnx.Module):
  """Two 3x3 convolutions beside a shortcut."""

  def __init__(
    self,
    in_features: int,
    width: int,
    *,
    stride: int,
    dilation: int,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    conv = functools.partial(
      layers.Conv, dilation=dilation, init='he_fan_out', dtype=dtype, rngs=rngs
    )
    norm = functools.partial(layers.BatchNorm, width, rngs=rngs)
    self.conv1, self.bn1 = conv(in_features, width, stride=stride), norm()
    self.conv2, self.bn2 = conv(width, width), norm(activation='none')
    self.downsample = _shortcut(in_features, width, stride, dtype, rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, H / stride, W / stride, width]."""
    y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
    return nnx.relu(y + (self.downsample(x) if self.downsample else x))


class _Bottleneck(nnx.Module):
  """1x1, 3x3 and 1x1 convolution beside a shortcut; four times `width` out."""

  def __init__(
    self,
    in_features: int,
    width: int,
    *,
    stride: int,
    dilation: int,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    conv = functools.partial(
      layers.Conv, init='he_fan_out', dtype=dtype, rngs=rngs
    )
    norm = functools.partial(layers.BatchNorm, rngs=rngs)
    self.conv1, self.bn1 = conv(in_features, width, 1), norm(width)
    self.conv2 = conv(width, width, stride=stride, dilation=dilation)
    self.bn2 = norm(width)
    self.conv3 = conv(width, 4 * width, 1)
    self.bn3 = norm(4 * width, activation='none')
    self.downsample = _shortcut(in_features, 4 * width, stride, dtype, rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, H / stride, W / stride, 4 * width]."""
    y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
    y = self.bn3(self.conv3(y))
    return nnx.relu(y + (self.downsample(x) if self.downsample else x))


def _shortcut(
  in_features: int,
  features: int,
  stride: int,
  dtype: jnp.dtype,
  rngs: nnx.Rngs,
) -> layers.ConvNorm | None:
  """A projection where the block changes the shape; None: the identity."""
  if stride == 1 and in_features == features:
    return None
  return layers.ConvNorm(
    in_features,
    features,
    1,
    stride=stride,
    activation='none',
    init='he_fan_out',
    dtype=dtype,
    rngs=rngs,
  )
