"""What every encoder does to its images first."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from skinseg_jax.models import operations, plain


def normalise(
  images: jax.Array,
  mean: Sequence[float],
  deviation: Sequence[float],
  dtype: jnp.dtype,
) -> jax.Array:
  """Centres and scales each colour.

  Args:
    images: RGB in [0, 1], float, [B, H, W, 3].
    mean: Of each colour, in [0, 1].
    deviation: Standard deviation of each colour.
    dtype: Of the result.

  Returns:
    [B, H, W, 3].

  Raises:
    ValueError: If H or W is no multiple of 32.
  """
  if images.shape[1] % 32 or images.shape[2] % 32:
    raise ValueError(
      'height and width must be multiples of 32 (an encoder halves them five'
      f' times), got {images.shape[1:3]}.'
    )
  wide = plain.widened(images)
  row = lambda values: operations.per_channel(jnp.asarray(values, wide.dtype))
  return ((wide - row(mean)) / row(deviation)).astype(dtype)
