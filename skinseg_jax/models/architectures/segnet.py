"""SegNet: each maximum goes back to where its pooling found it."""

import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.models import blocks, layers, plain, resampling


class SegNet(blocks.DownAndUp):
  """SegNet (Badrinarayanan et al., 2017, arXiv:1511.00561).

  VGG-16 with batch norm, and its mirror image. No package publishes it. The
  structure and, at `width=64`, the 29,480,641 parameters are those of
  yassouali/pytorch-segmentation. One difference to the paper: the last
  convolution has one channel, the logits, instead of one for each class.
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
      width: Channels of the first stage; the others have 2, 4, 8 and 8 times
        as many.
      remat: Whether stages are recomputed in the backward pass.
      dtype: Type that is computed in.
      rngs: Source of the initial weights.
    """
    w = width
    down = [[3, w, w], [w, *[2 * w] * 2], [2 * w, *[4 * w] * 3]]
    down += [[4 * w, *[8 * w] * 3], [8 * w] * 4]
    up = [[8 * w] * 4, [*[8 * w] * 3, 4 * w], [*[4 * w] * 3, 2 * w]]
    up += [[2 * w, 2 * w, w], [w, w, w]]
    self.remat = remat
    stage = lambda widths, init: _Stage(widths, init, dtype=dtype, rngs=rngs)
    self.downs = nnx.List([stage(widths, 'he_fan_out') for widths in down])
    self.ups = nnx.List([stage(widths, 'he_fan_in') for widths in up])
    self.head = layers.Conv(
      w, 1, bias=True, init='he_fan_in', dtype=dtype, rngs=rngs
    )

  def __call__(
    self, images: jax.Array, *, key: jax.Array | None = None
  ) -> jax.Array:
    """Predicts logits.

    Args:
      images: RGB in [0, 1], float, [B, H, W, 3]; H and W multiples of
        32.
      key: Of dropout, which this network does not have.

    Returns:
      Logits of lesion, float32, [B, H, W, 1].
    """
    del key
    run = layers.runner(self.remat)
    x, pooled = self._down(images)
    for stage in self.ups:
      places, size = pooled.pop()
      x = run(stage, resampling.unpool(x, places, size=size))
    return plain.widened(self.head(x))

  def _down(self, images):
    """The last pooled features; for each pooling, the places and the size."""
    run = layers.runner(self.remat)
    x, pooled = images, []
    for stage in self.downs:
      x = run(stage, x)
      size = x.shape[1:3]
      x, places = resampling.max_pool_with_places(x)
      pooled.append((places, size))
    return x, pooled


class _Stage(nnx.Module):
  """3x3 convolutions with bias, each with batch norm and ReLU."""

  def __init__(self, widths, init, *, dtype, rngs):
    self.layers = nnx.List(
      [
        _ConvNorm(i, o, bias=True, init=init, dtype=dtype, rngs=rngs)
        for i, o in itertools.pairwise(widths)
      ]
    )

  def __call__(self, x):
    for layer in self.layers:
      x = layer(x)
    return x


class _ConvNorm(layers.ConvNorm):
  TORCH_NAMES: ClassVar[dict[str, str]] = {}
