"""What the architectures need of an encoder."""

from typing import Protocol

import jax


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
