"""What the architectures need of an encoder."""

from typing import ClassVar, Protocol

import jax
from flax import nnx


class Encoder(Protocol):
  """Turns images into features at falling sizes.

  Attributes:
    features: Channels at strides 1, 2, 4, 8, 16 and 32. Dilated encoders keep
      the size of an earlier stride for the last ones.
  """

  features: tuple[int, ...]

  def __call__(self, images: jax.Array, *, depth: int = 5) -> list[jax.Array]:
    """Computes the normalised images and the first `depth` features."""
    ...


class OnEncoder(nnx.Module):
  """A network on an encoder.

  Attributes:
    DEPTH: Number of encoder stages that the network uses.
    encoder: The encoder.
  """

  DEPTH: ClassVar[int] = 5
  encoder: Encoder

  def deepest(self, images: jax.Array) -> jax.Array:
    """The deepest features that the network computes.

    Args:
      images: RGB in [0, 1], float, [B, H, W, 3].

    Returns:
      [B, h, w, C].
    """
    return self.encoder(images, depth=self.DEPTH)[-1]
