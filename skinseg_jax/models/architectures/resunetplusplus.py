"""ResUNet++: residual blocks, channel gates, dilated bridges, attention."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import blocks, layers, plain, resampling

_RATES = (1, 6, 12, 18)


class ResUNetPlusPlus(blocks.DownAndUp):
  """ResUNet++ (Jha et al., 2019, arXiv:1911.07067).

  No package publishes it. The structure and, at `width=16`, the 4,062,993
  parameters are those of the authors' PyTorch file. Their attention multiplies
  without a sigmoid, and their dilated branches are added up.
  """

  def __init__(
    self,
    width: int,
    *,
    remat: bool = False,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    """Builds the network.

    Args:
      width: Channels of the stem; doubled at each of three stages and by the
        bridge. A multiple of 8.
      remat: Whether blocks are recomputed in the backward pass.
      dtype: Type that is computed in.
      rngs: Source of the initial weights.
    """
    w = width
    options: dict[str, Any] = {'dtype': dtype, 'rngs': rngs}
    self.remat = remat
    self.stem = _Stem(w, **options)
    self.downs = nnx.List(
      [_Residual(w * n, 2 * w * n, stride=2, **options) for n in (1, 2, 4)]
    )
    self.bridge = _Pyramid(8 * w, 16 * w, **options)
    self.ups = nnx.List(
      [
        _Decoder(skip * w, below * w, below * w // 2, **options)
        for skip, below in ((4, 16), (2, 8), (1, 4))
      ]
    )
    self.pyramid = _Pyramid(2 * w, w, **options)
    self.head = layers.Conv(w, 1, 1, bias=True, **options)

  def __call__(
    self, images: jax.Array, *, key: jax.Array | None = None
  ) -> jax.Array:
    """Predicts logits.

    Args:
      images: RGB in [0, 1], float, [B, H, W, 3]; H and W multiples of 8.
      key: Of dropout, which this network does not have.

    Returns:
      Logits of lesion, float32, [B, H, W, 1].
    """
    del key
    run = layers.runner(self.remat)
    x, features = self._down(images)
    for up in self.ups:
      x = run(up, features.pop(), x)
    return plain.widened(self.head(run(self.pyramid, x)))

  def _down(self, images):
    """The output of the bridge, and those of the stages above it."""
    run = layers.runner(self.remat)
    features = [run(self.stem, images)]
    for down in self.downs:
      features.append(run(down, features[-1]))
    return run(self.bridge, features.pop()), features


class _NormReluConv(nnx.Module):
  """Batch norm, ReLU, 3x3 convolution with bias."""

  def __init__(self, in_features, features, *, stride=1, dtype, rngs):
    self.norm = layers.BatchNorm(in_features, rngs=rngs)
    self.conv = layers.Conv(
      in_features, features, stride=stride, bias=True, dtype=dtype, rngs=rngs
    )

  def __call__(self, x):
    return self.conv(self.norm(x))


class _Shortcut(nnx.Module):
  """1x1 convolution with bias, batch norm."""

  def __init__(self, in_features, features, *, stride=1, dtype, rngs):
    self.conv = layers.Conv(
      in_features, features, 1, stride=stride, bias=True, dtype=dtype, rngs=rngs
    )
    self.norm = layers.BatchNorm(features, activation='none', rngs=rngs)

  def __call__(self, x):
    return self.norm(self.conv(x))


class _ChannelGate(nnx.Module):
  """Squeeze and excitation (Hu et al., 2018), reduced by 8, without biases."""

  def __init__(self, features, *, dtype, rngs):
    conv = functools.partial(layers.Conv, kernel_size=1, dtype=dtype, rngs=rngs)
    self.reduce = conv(features, features // 8)
    self.expand = conv(features // 8, features)

  def __call__(self, x):
    mean = x.mean(axis=(1, 2), keepdims=True)
    return x * nnx.sigmoid(self.expand(nnx.relu(self.reduce(mean))))


class _Stem(nnx.Module):
  """The first residual block; its convolutions see the image itself."""

  def __init__(self, features, *, dtype, rngs):
    options = {'dtype': dtype, 'rngs': rngs}
    self.conv = layers.Conv(3, features, bias=True, **options)
    self.after = _NormReluConv(features, features, **options)
    self.shortcut = _Shortcut(3, features, **options)
    self.gate = _ChannelGate(features, **options)

  def __call__(self, x):
    return self.gate(self.after(self.conv(x)) + self.shortcut(x))


class _Residual(nnx.Module):
  """Two convolutions beside a shortcut, then a channel gate."""

  def __init__(self, in_features, features, *, stride=1, dtype, rngs):
    options = {'dtype': dtype, 'rngs': rngs}
    self.first = _NormReluConv(in_features, features, stride=stride, **options)
    self.second = _NormReluConv(features, features, **options)
    self.shortcut = _Shortcut(in_features, features, stride=stride, **options)
    self.gate = _ChannelGate(features, **options)

  def __call__(self, x):
    return self.gate(self.second(self.first(x)) + self.shortcut(x))


class _Pyramid(nnx.Module):
  """Dilated convolutions of four rates, added up, then a 1x1 convolution."""

  def __init__(self, in_features, features, *, dtype, rngs):
    conv = functools.partial(layers.Conv, bias=True, dtype=dtype, rngs=rngs)
    self.convs = nnx.List(
      [conv(in_features, features, dilation=rate) for rate in _RATES]
    )
    self.norms = nnx.List(
      [layers.BatchNorm(features, activation='none', rngs=rngs) for _ in _RATES]
    )
    self.project = conv(features, features, 1)

  def __call__(self, x):
    pairs = zip(self.convs, self.norms, strict=True)
    return self.project(sum(norm(conv(x)) for conv, norm in pairs))


class _Decoder(nnx.Module):
  """Attention by the skip, upsampling, concatenation, a residual block."""

  def __init__(self, skip_features, in_features, features, *, dtype, rngs):
    options = {'dtype': dtype, 'rngs': rngs}
    self.from_skip = _NormReluConv(skip_features, in_features, **options)
    self.from_below = _NormReluConv(in_features, in_features, **options)
    self.attend = _NormReluConv(in_features, in_features, **options)
    self.block = _Residual(in_features + skip_features, features, **options)

  def __call__(self, skip, x):
    pooled = resampling.max_pool(self.from_skip(skip))
    x = x * self.attend(pooled + self.from_below(x))
    x = jnp.concatenate([resampling.double(x), skip], axis=-1)
    return self.block(x)
