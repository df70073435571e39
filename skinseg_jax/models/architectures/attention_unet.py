"""Attention U-Net: a U-Net that weights each position of its skips."""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import layers, plain


class AttentionUNet(nnx.Module):
  """Attention U-Net (Oktay et al., 2018, arXiv:1804.03999).

  Equal to `AttentionUnet` of MONAI with five levels. Unlike the paper's, it is
  two-dimensional, goes down by strided convolutions instead of pooling, up by
  transposed ones, gates the highest skip as well, computes each gate at its
  skip's own size, and has no deep supervision.
  """

  TORCH_NAMES: ClassVar[dict[str, str]] = {
    'first': 'model.0',
    'level': 'model.1',
    'head': 'model.2.conv',
  }

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
      width: Channels of the first level; they double at each of four more.
      remat: Whether blocks are recomputed in the backward pass.
      dtype: Type that is computed in.
      rngs: Source of the initial weights.
    """
    widths = [width * 2**level for level in range(5)]
    options: dict[str, Any] = {'dtype': dtype, 'rngs': rngs}
    self.remat = remat
    self.first = _DoubleConv(3, width, **options)
    level = _Bottom(*widths[3:], **options)
    for features, deeper in ((2, 3), (1, 2), (0, 1)):
      level = _Level(widths[features], widths[deeper], level, **options)
    self.level = level
    self.head = layers.Conv(width, 1, 1, bias=True, **options)

  def __call__(
    self, images: jax.Array, *, key: jax.Array | None = None
  ) -> jax.Array:
    """Predicts logits.

    Args:
      images: RGB in [0, 1], float, [B, H, W, 3]; H and W multiples of 16.
      key: Of dropout, which this network does not have.

    Returns:
      Logits of lesion, float32, [B, H, W, 1].
    """
    del key
    run = layers.runner(self.remat)
    x = self.level(run(self.first, images), run)
    return plain.widened(self.head(x))

  def deepest(self, images: jax.Array) -> jax.Array:
    """The deepest features of the network.

    Args:
      images: As for `__call__`.

    Returns:
      [B, h, w, C].
    """
    run = layers.runner(self.remat)
    return self.level.deepest(run(self.first, images), run)


class _Bottom(nnx.Module):
  """The lowest level of the figure, and the way up from it."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {
    'down': 'submodule',
    'up': 'upconv.up',
    'gate': 'attention',
  }

  def __init__(self, features, deeper, *, dtype, rngs):
    options = {'dtype': dtype, 'rngs': rngs}
    self.down = _DoubleConv(features, deeper, stride=2, **options)
    self.up = _Up(deeper, features, **options)
    self.gate = Gate(features, **options)
    self.merge = _Merge(2 * features, features, **options)

  def __call__(self, x, run):
    return self._join(x, self.deepest(x, run), run)

  def deepest(self, x, run):
    return run(self.down, x)

  def _join(self, x, below, run):
    below = run(self.up, below)
    return run(self.merge, run(self.gate, below, x), below)


class _Level(_Bottom):
  """A level of the figure with another one below it."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {
    **_Bottom.TORCH_NAMES,
    'down': 'submodule.0',
    'below': 'submodule.1',
  }

  def __init__(self, features, deeper, below, *, dtype, rngs):
    super().__init__(features, deeper, dtype=dtype, rngs=rngs)
    self.below = below

  def __call__(self, x, run):
    return self._join(x, self.below(run(self.down, x), run), run)

  def deepest(self, x, run):
    return self.below.deepest(run(self.down, x), run)


class _ConvNorm(layers.ConvNorm):
  """Convolution with bias, batch norm, ReLU, as MONAI names them."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {'conv': 'conv', 'norm': 'adn.N'}


class _DoubleConv(nnx.Module):
  TORCH_NAMES: ClassVar[dict[str, str]] = {'convs': 'conv'}

  def __init__(self, in_features, features, *, stride=1, dtype, rngs):
    conv = functools.partial(_ConvNorm, bias=True, dtype=dtype, rngs=rngs)
    self.convs = nnx.List(
      [conv(in_features, features, stride=stride), conv(features, features)]
    )

  def __call__(self, x):
    for conv in self.convs:
      x = conv(x)
    return x


class _Up(nnx.Module):
  """Transposed 3x3 convolution of stride 2, batch norm, ReLU."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {'conv': 'conv', 'norm': 'adn.N'}

  def __init__(self, in_features, features, *, dtype, rngs):
    self.conv = layers.ConvTranspose(
      in_features, features, 3, dtype=dtype, rngs=rngs
    )
    self.norm = layers.BatchNorm(features, rngs=rngs)

  def __call__(self, x):
    return self.norm(self.conv(x))


class _Projection(layers.ConvNorm):
  """1x1 convolution with bias and batch norm, as MONAI names them."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {'conv': '0.conv', 'norm': '1'}


class Gate(nnx.Module):
  """Additive attention: how much of the skip each position lets through.

  Attributes:
    score: Returns the logit of that share, [B, H, W, 1].
  """

  TORCH_NAMES: ClassVar[dict[str, str]] = {
    'from_below': 'W_g',
    'from_skip': 'W_x',
    'score': 'psi',
  }

  def __init__(self, features, *, dtype, rngs):
    project = functools.partial(
      _Projection,
      kernel_size=1,
      bias=True,
      activation='none',
      dtype=dtype,
      rngs=rngs,
    )
    self.from_below = project(features, features // 2)
    self.from_skip = project(features, features // 2)
    self.score = project(features // 2, 1)

  def __call__(self, below: jax.Array, skip: jax.Array) -> jax.Array:
    """Maps two arrays [B, H, W, features] to one of the same shape."""
    x = nnx.relu(self.from_below(below) + self.from_skip(skip))
    return skip * nnx.sigmoid(self.score(x))


class _Merge(nnx.Module):
  """Concatenation, 3x3 convolution, instance norm, parametric ReLU."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {'slope': 'adn.A.weight'}

  def __init__(self, in_features, features, *, dtype, rngs):
    self.conv = layers.Conv(
      in_features, features, bias=True, dtype=dtype, rngs=rngs
    )
    self.slope = nnx.Param(jnp.full(1, 0.25))

  def __call__(self, skip, below):
    x = self.conv(jnp.concatenate([skip, below], axis=-1))
    wide = plain.widened(x)
    mean = wide.mean(axis=(1, 2), keepdims=True)
    variance = wide.var(axis=(1, 2), keepdims=True)
    y = ((wide - mean) * jax.lax.rsqrt(variance + 1e-5)).astype(x.dtype)
    slope = self.slope[...].astype(x.dtype)[None, None, None]
    return jnp.where(y > 0, y, slope * y)
