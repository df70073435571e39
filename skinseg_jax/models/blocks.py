"""Blocks that several architectures share."""

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import doubled, layers, plain, resampling


class DownAndUp(nnx.Module):
  """A network that goes down and up again.

  `_down` returns the deepest features first.
  """

  def deepest(self, images: jax.Array) -> jax.Array:
    """The deepest features of the network.

    Args:
      images: RGB in [0, 1], float, [B, H, W, 3].

    Returns:
      [B, h, w, C].
    """
    return self._down(images)[0]

  def _down(self, images: jax.Array) -> tuple[jax.Array, Any]:
    raise NotImplementedError


class Head(nnx.Module):
  """Convolution to one channel, then bilinear upsampling: the logits.

  As in segmentation-models-pytorch, the centres of corner pixels are aligned.
  """

  TORCH_NAMES: ClassVar[dict[str, str]] = {'conv': '0'}

  def __init__(
    self,
    in_features: int,
    kernel_size: int = 3,
    *,
    upsampling: int = 1,
    init: str = 'glorot',
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    """Builds the head.

    Args:
      in_features: Channels of the input.
      kernel_size: Of the convolution.
      upsampling: Factor by which height and width grow.
      init: Name of the initialiser, see `layers.initializers`.
      dtype: Type that is computed in.
      rngs: Source of the initial weights.
    """
    self.conv = layers.Conv(
      in_features,
      1,
      kernel_size,
      bias=True,
      init=init,
      dtype=dtype,
      rngs=rngs,
    )
    self.upsampling = upsampling

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to logits [B, H', W', 1], float32."""
    x = plain.widened(self.conv(x))
    if self.upsampling == 1:
      return x
    size = (x.shape[1] * self.upsampling, x.shape[2] * self.upsampling)
    return resampling.resize_bilinear(x, size, align_corners=True)


class UpBlock(nnx.Module):
  """Nearest upsampling, concatenation with a skip, two convolutions."""

  def __init__(
    self,
    in_features: int,
    skip_features: int,
    features: int,
    *,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    conv = functools.partial(
      layers.ConvNorm, init='he_uniform', dtype=dtype, rngs=rngs
    )
    self.conv1 = conv(in_features + skip_features, features)
    self.conv2 = conv(features, features)

  def __call__(self, x: jax.Array, skip: jax.Array | None = None) -> jax.Array:
    """Maps [B, H, W, C] and a skip [B, 2H, 2W, S] to [B, 2H, 2W, features]."""
    conv, dtype = self.conv1.conv, self.conv1.conv.dtype
    x = x.astype(dtype)
    skip = None if skip is None else skip.astype(dtype)
    x = doubled.conv3x3(x, skip, conv.kernel[...].astype(dtype))
    return self.conv2(self.conv1.norm(x))


class SeparableConv(nnx.Module):
  """Depthwise 3x3 convolution, then a 1x1 convolution; nothing between."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {'depthwise': '0', 'pointwise': '1'}

  def __init__(
    self,
    in_features: int,
    features: int,
    *,
    dilation: int = 1,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    self.depthwise = layers.Conv(
      in_features,
      in_features,
      dilation=dilation,
      groups=in_features,
      dtype=dtype,
      rngs=rngs,
    )
    self.pointwise = layers.Conv(
      in_features, features, 1, dtype=dtype, rngs=rngs
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, H, W, features]."""
    return self.pointwise(self.depthwise(x))


class SeparableConvNorm(nnx.Module):
  """Separable convolution, batch norm, ReLU."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {'conv': '0', 'norm': '1'}

  def __init__(
    self, in_features: int, features: int, *, rngs: nnx.Rngs, **options: Any
  ):
    """Builds the layers.

    Args:
      in_features: Channels of the input.
      features: Channels of the output.
      rngs: Source of the initial weights.
      **options: Of `SeparableConv`.
    """
    self.conv = SeparableConv(in_features, features, rngs=rngs, **options)
    self.norm = layers.BatchNorm(features, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, H, W, features]."""
    return self.norm(self.conv(x))


class _ImagePooling(nnx.Module):
  """Mean over the image, 1x1 convolution, batch norm, ReLU."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {'conv': '1', 'norm': '2'}

  def __init__(self, in_features: int, features: int, *, dtype, rngs):
    self.conv = layers.Conv(in_features, features, 1, dtype=dtype, rngs=rngs)
    self.norm = layers.BatchNorm(features, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    y = self.norm(self.conv(x.mean(axis=(1, 2), keepdims=True)))
    return jnp.broadcast_to(y, (*x.shape[:3], y.shape[-1]))


class AtrousPyramid(nnx.Module):
  """Atrous spatial pyramid pooling (Chen et al., 2017, arXiv:1706.05587)."""

  def __init__(
    self,
    in_features: int,
    rates: Sequence[int],
    *,
    separable: bool,
    features: int = 256,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    """Builds the five branches and what joins them.

    Args:
      in_features: Channels of the input.
      rates: Dilations of the three 3x3 branches.
      separable: Whether these are separable.
      features: Channels of each branch and of the output.
      dtype: Type that is computed in.
      rngs: Source of the initial weights.
    """
    options: dict[str, Any] = {'dtype': dtype, 'rngs': rngs}
    atrous = SeparableConvNorm if separable else layers.ConvNorm
    self.convs = nnx.List(
      [
        layers.ConvNorm(in_features, features, 1, **options),
        *[
          atrous(in_features, features, dilation=rate, **options)
          for rate in rates
        ],
        _ImagePooling(in_features, features, **options),
      ]
    )
    self.project = layers.ConvNorm(5 * features, features, 1, **options)

  def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
    """Maps [B, H, W, in_features] to [B, H, W, features]."""
    x = jnp.concatenate([conv(x) for conv in self.convs], axis=-1)
    return layers.dropout(self.project(x), 0.5, key)
