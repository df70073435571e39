"""How much measures differ between several masks of one picture."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from skinseg_jax.measures import lesion

# Ends of the interval: it holds nine tenths of the values.
_QUANTILES = (0.05, 0.95)


@dataclasses.dataclass(frozen=True)
class Spread:
  """Distribution of one measure over several masks.

  Attributes:
    count: Masks that have a value. The rest is about these.
    deviation: Standard deviation (divisor count - 1), in the measure's unit;
      None for fewer than two values.
    low: Quantile .05, None without values.
    high: Quantile .95, None without values.
  """

  count: int
  deviation: float | None
  low: float | None
  high: float | None


def spread(
  image: np.ndarray,
  masks: Sequence[np.ndarray],
  pixel_spacing: tuple[float, float] | None = None,
) -> dict[str, Spread]:
  """Measures each mask and describes how the measures differ.

  The masks are of the same picture, from the views of one model or from several
  models. The spread tells how much a measure depends on the outline. It leaves
  out what all masks get wrong, so it is not the error of the measure.

  Args:
    image: RGB, uint8, [H, W, 3].
    masks: Whether a pixel is lesion, bool, [H, W] each.
    pixel_spacing: As for `lesion.measure`.

  Returns:
    One for each measure but `ita_reason`. `touches_border` counts as 1 and 0.
    An orientation has no beginning: its quantiles are about its mean direction,
    and may lie outside (-90, 90].

  Raises:
    InputError: As `lesion.measure`.
  """
  rows = [lesion.measure(image, mask, pixel_spacing) for mask in masks]
  names = [field.name for field in dataclasses.fields(lesion.Measures)]
  found = {}
  for name in names:
    if name == 'ita_reason':
      continue
    values = [getattr(row, name) for row in rows]
    known = np.array([float(v) for v in values if v is not None])
    found[name] = describe(_unrolled(known) if name == 'orientation' else known)
  return found


def describe(values: np.ndarray) -> Spread:
  """Describes the values of one measure, float [K]; K may be 0."""
  if not values.size:
    return Spread(0, None, None, None)
  low, high = np.quantile(values, _QUANTILES).tolist()
  deviation = float(values.std(ddof=1)) if values.size > 1 else None
  return Spread(values.size, deviation, low, high)


def _unrolled(degrees: np.ndarray) -> np.ndarray:
  """Moves directions of axes by half turns, to within 90 of their mean."""
  if not degrees.size:
    return degrees
  # Twice the angle is the same for both ends of an axis.
  mean = np.angle(np.exp(2j * np.deg2rad(degrees)).sum(), deg=True) / 2
  return mean + (degrees - mean + 90) % 180 - 90
