"""MA-Net: attention over all positions, and over channels of the skips."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import blocks, layers, resampling
from skinseg_jax.models.encoders import interface

_WIDTHS, _ATTENTION = (256, 128, 64, 32, 16), 64


class MANet(interface.OnEncoder):
  """Multi-scale attention net (Fan et al., 2020), on an encoder.

  Equal to `MAnet` of segmentation-models-pytorch. Two things there differ from
  the usual attention and are kept, so that its weights work here: the softmax
  is over all pairs of positions of an image at once, and the result is read as
  if its channels came first.
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
    self.segmentation_head = blocks.Head(_WIDTHS[-1], dtype=dtype, rngs=rngs)

  def __call__(
    self, images: jax.Array, *, key: jax.Array | None = None
  ) -> jax.Array:
    """Predicts logits.

    Args:
      images: RGB in [0, 1], float, [B, H, W, 3]; H and W multiples of 32.
      key: Of dropout, which this network does not have.

    Returns:
      Logits of lesion, float32, [B, H, W, 1].
    """
    del key
    run = layers.runner(self.remat)
    return self.segmentation_head(self.decoder(self.encoder(images), run))


class _Decoder(nnx.Module):
  def __init__(self, features, *, dtype, rngs):
    options = {'dtype': dtype, 'rngs': rngs}
    deepest, *skips = features[:0:-1]
    self.center = _PositionAttention(deepest, **options)
    inputs = (deepest, *_WIDTHS[:-1])
    self.blocks = nnx.List(
      [
        *[
          _FusionBlock(i, skip, o, **options)
          for i, skip, o in zip(inputs, skips, _WIDTHS, strict=False)
        ],
        blocks.UpBlock(inputs[-1], 0, _WIDTHS[-1], **options),
      ]
    )

  def __call__(self, features, run):
    x, *skips = features[:0:-1]
    x = run(self.center, x)
    for block, skip in zip(self.blocks, skips, strict=False):
      x = run(block, x, skip)
    return run(self.blocks[-1], x)


class _PositionAttention(nnx.Module):
  """Position-wise attention block: every position looks at all others."""

  def __init__(self, features, *, dtype, rngs):
    conv = functools.partial(
      layers.Conv,
      features,
      bias=True,
      init='he_uniform',
      dtype=dtype,
      rngs=rngs,
    )
    self.top_conv = conv(_ATTENTION, 1)
    self.center_conv = conv(_ATTENTION, 1)
    self.bottom_conv = conv(features, 3)
    self.out_conv = conv(features, 3)

  def __call__(self, x):
    b, h, w, c = x.shape
    flat = lambda y: y.reshape(b, h * w, -1)
    top, center = flat(self.top_conv(x)), flat(self.center_conv(x))
    scores = jnp.einsum('bic,bjc->bij', center, top)
    weights = jax.nn.softmax(scores.reshape(b, -1)).reshape(scores.shape)
    mixed = jnp.einsum('bij,bjc->bic', weights, flat(self.bottom_conv(x)))
    # Not a transpose: as the twin does, see the class of the network.
    mixed = mixed.reshape(b, c, h, w).transpose(0, 2, 3, 1)
    return self.out_conv(x + mixed)


class _FusionBlock(nnx.Module):
  """Multi-scale fusion attention block: channels weighted by both inputs."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {
    'above': 'hl_conv',
    'gate_skip': 'SE_ll',
    'gate_above': 'SE_hl',
  }

  def __init__(self, in_features, skip_features, features, *, dtype, rngs):
    conv = functools.partial(
      layers.ConvNorm, init='he_uniform', dtype=dtype, rngs=rngs
    )
    self.above = nnx.List(
      [conv(in_features, in_features), conv(in_features, skip_features, 1)]
    )
    self.gate_skip = _ChannelGate(skip_features, dtype=dtype, rngs=rngs)
    self.gate_above = _ChannelGate(skip_features, dtype=dtype, rngs=rngs)
    self.conv1 = conv(2 * skip_features, features)
    self.conv2 = conv(features, features)

  def __call__(self, x, skip):
    for conv in self.above:
      x = conv(x)
    x = resampling.double(x)
    x = x * (self.gate_above(x) + self.gate_skip(skip))
    return self.conv2(self.conv1(jnp.concatenate([x, skip], axis=-1)))


class _ChannelGate(nnx.Module):
  """Squeeze and excitation: a weight in (0, 1) for each channel."""

  TORCH_NAMES: ClassVar[dict[str, str]] = {'reduce': '1', 'expand': '3'}

  def __init__(self, features, *, dtype, rngs):
    conv = functools.partial(
      layers.Conv,
      kernel_size=1,
      bias=True,
      init='he_uniform',
      dtype=dtype,
      rngs=rngs,
    )
    reduced = max(1, features // 16)
    self.reduce, self.expand = conv(features, reduced), conv(reduced, features)

  def __call__(self, x):
    mean = x.mean(axis=(1, 2), keepdims=True)
    return nnx.sigmoid(self.expand(nnx.relu(self.reduce(mean))))
