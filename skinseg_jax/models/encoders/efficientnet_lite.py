"""EfficientNet-Lite of timm without its classifier (Tan and Le, 2019)."""

import functools
import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import layers
from skinseg_jax.models.encoders import inputs

# Of the batch norms, as in TensorFlow.
_EPSILON = 1e-3
_STEM = 32


class _Stage(NamedTuple):
  """Blocks of one kind; the first of them has the stride."""

  blocks: int
  kernel_size: int
  stride: int
  expansion: int
  features: int


# EfficientNet-B0 (arXiv:1905.11946, table 1).
_STAGES = (
  _Stage(1, 3, 1, 1, 16),
  _Stage(2, 3, 2, 6, 24),
  _Stage(2, 5, 2, 6, 40),
  _Stage(3, 3, 2, 6, 80),
  _Stage(3, 5, 1, 6, 112),
  _Stage(4, 5, 2, 6, 192),
  _Stage(1, 3, 1, 6, 320),
)
# Stages whose output is the last one of its stride.
_LAST_OF_STRIDE = (0, 1, 2, 4, 6)


class EfficientNetLite(nnx.Module):
  """EfficientNet for phones (github.com/tensorflow/tpu, efficientnet/lite).

  Unlike EfficientNet: ReLU6 for swish, no squeeze-and-excitation, and stem,
  first and last stage are not scaled. Parameters are named as those of timm's
  `tf_efficientnet_lite*` within segmentation-models-pytorch.

  Attributes:
    features: Channels of what it returns, at strides 1, 2, 4, 8, 16 and 32.
  """

  MEAN: ClassVar = (0.5, 0.5, 0.5)
  DEVIATION: ClassVar = (0.5, 0.5, 0.5)

  def __init__(
    self,
    *,
    width: float = 1.0,
    depth: float = 1.0,
    output_stride: int = 32,
    dtype: jnp.dtype,
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    """Builds the encoder.

    Args:
      width: Factor of the channels; they are rounded to multiples of 8.
      depth: Factor of the blocks in a stage, rounded up.
      output_stride: 8, 16 or 32: stages beyond it dilate instead of stride.
        The first block of such a stage has the dilation of the stage before.
      dtype: Type that convolutions and activations are computed in.
      remat: Whether the gradient computes what is inside a block again,
        instead of keeping it from the forward pass.
      rngs: Source of the initial weights.
    """
    stages = _scaled_stages(width, depth)
    self.dtype, self.remat = dtype, remat
    self.features = (3, *(stages[i].features for i in _LAST_OF_STRIDE))
    self.model = _Trunk(stages, output_stride, dtype, rngs)

  def __call__(self, images: jax.Array, *, depth: int = 5) -> list[jax.Array]:
    """Computes features.

    Args:
      images: RGB in [0, 1], float, [B, H, W, 3]; H and W multiples of 32.
      depth: Number of features, from 1; deeper stages are not computed.

    Returns:
      The normalised images, then the features, at strides 2, 4, 8, 16 and 32,
      or up to the output stride.
    """
    x = inputs.normalise(images, self.MEAN, self.DEVIATION, self.dtype)
    return [x, *self.model(x, depth, layers.runner(self.remat))]


class _Trunk(nnx.Module):
  """Stem and stages."""

  def __init__(
    self,
    stages: list[_Stage],
    output_stride: int,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    self.conv_stem = layers.Conv(
      3, _STEM, stride=2, same=True, init='he_fan_out', dtype=dtype, rngs=rngs
    )
    self.bn1 = _norm(_STEM, 'relu6', rngs)
    blocks, features, reached, dilation = [], _STEM, 2, 1
    for stage in stages:
      before, stride = dilation, stage.stride
      if stride * reached > output_stride:
        dilation, stride = dilation * stride, 1
      reached *= stride
      kind = _SeparableBlock if stage.expansion == 1 else _InvertedBlock
      block = functools.partial(kind, stage=stage, dtype=dtype, rngs=rngs)
      row = [block(features, stride=stride, dilation=before)]
      features = stage.features
      row += [
        block(features, stride=1, dilation=dilation)
        for _ in range(stage.blocks - 1)
      ]
      blocks.append(nnx.List(row))
    self.blocks = nnx.List(blocks)

  def __call__(
    self, x: jax.Array, depth: int, run: Callable[..., jax.Array]
  ) -> list[jax.Array]:
    """The first `depth` features of normalised images of any size."""
    features, x = [], self.bn1(self.conv_stem(x))
    for number, stage in enumerate(
      self.blocks[: _LAST_OF_STRIDE[depth - 1] + 1]
    ):
      for block in stage:
        x = run(block, x)
      if number in _LAST_OF_STRIDE:
        features.append(x)
    return features


class _SeparableBlock(nnx.Module):
  """Depthwise, then 1x1 convolution; the shortcut where shapes allow it."""

  def __init__(
    self,
    in_features: int,
    *,
    stage: _Stage,
    stride: int,
    dilation: int,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    self.conv_dw = _depthwise(
      in_features, stage.kernel_size, stride, dilation, dtype, rngs
    )
    self.bn1 = _norm(in_features, 'relu6', rngs)
    self.conv_pw = _pointwise(in_features, stage.features, dtype, rngs)
    self.bn2 = _norm(stage.features, 'none', rngs)
    self.has_shortcut = stride == 1 and in_features == stage.features

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, H / stride, W / stride, features]."""
    y = self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))
    return x + y if self.has_shortcut else y


class _InvertedBlock(nnx.Module):
  """1x1 to more channels, depthwise, 1x1; the shortcut where shapes allow it.

  Sandler et al., 2018 (arXiv:1801.04381).
  """

  def __init__(
    self,
    in_features: int,
    *,
    stage: _Stage,
    stride: int,
    dilation: int,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    inner = stage.expansion * in_features
    self.conv_pw = _pointwise(in_features, inner, dtype, rngs)
    self.bn1 = _norm(inner, 'relu6', rngs)
    self.conv_dw = _depthwise(
      inner, stage.kernel_size, stride, dilation, dtype, rngs
    )
    self.bn2 = _norm(inner, 'relu6', rngs)
    self.conv_pwl = _pointwise(inner, stage.features, dtype, rngs)
    self.bn3 = _norm(stage.features, 'none', rngs)
    self.has_shortcut = stride == 1 and in_features == stage.features

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, H / stride, W / stride, features]."""
    y = self.bn1(self.conv_pw(x))
    y = self.bn3(self.conv_pwl(self.bn2(self.conv_dw(y))))
    return x + y if self.has_shortcut else y


def _scaled_stages(width: float, depth: float) -> list[_Stage]:
  """The stages of a wider and deeper network; first and last keep a block."""
  last = len(_STAGES) - 1
  return [
    stage._replace(
      features=_round_to_8(width * stage.features),
      blocks=(
        stage.blocks if number in (0, last) else math.ceil(depth * stage.blocks)
      ),
    )
    for number, stage in enumerate(_STAGES)
  ]


def _round_to_8(features: float) -> int:
  """The nearest multiple of 8, unless it takes more than 10 % off."""
  nearest = max(8, int(features + 4) // 8 * 8)
  return nearest + 8 if nearest < 0.9 * features else nearest


def _norm(features: int, activation: str, rngs: nnx.Rngs) -> layers.BatchNorm:
  return layers.BatchNorm(
    features, activation=activation, epsilon=_EPSILON, rngs=rngs
  )


def _pointwise(
  in_features: int, features: int, dtype: jnp.dtype, rngs: nnx.Rngs
) -> layers.Conv:
  return layers.Conv(
    in_features, features, 1, init='he_fan_out', dtype=dtype, rngs=rngs
  )


def _depthwise(
  features: int,
  kernel_size: int,
  stride: int,
  dilation: int,
  dtype: jnp.dtype,
  rngs: nnx.Rngs,
) -> layers.Conv:
  return layers.Conv(
    features,
    features,
    kernel_size,
    stride=stride,
    dilation=dilation,
    groups=features,
    same=True,
    init='he_fan_in',
    dtype=dtype,
    rngs=rngs,
  )
