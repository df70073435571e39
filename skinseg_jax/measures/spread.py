"""How much measures differ between several masks of one picture."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from skinseg_jax.measures import lesion

# Ends of the interval: it holds nine tenths of the values.
_QUANTILES = (0.05, 0.95)
# The measures that are numbers.
NAMES = tuple(
  field.name
  for field in dataclasses.fields(lesion.Measures)
  if field.type is not str
)


@dataclasses.dataclass(frozen=True)
class Spread:
  """Distribution of one measure over several masks.

  All are in the unit of the measure, and None if there are fewer than two masks
  or if a mask has no value: those that have one would look too certain.

  Attributes:
    count: Masks that have a value.
    deviation: Standard deviation (divisor count - 1).
    low: Quantile .05, interpolated between the values.
    high: Quantile .95, likewise.
  """

  count: int
  deviation: float | None
  low: float | None
  high: float | None


def spread(
  image: np.ndarray,
  masks: Iterable[np.ndarray],
  pixel_spacing: tuple[float, float] | None = None,
) -> dict[str, Spread]:
  """Measures each mask and describes how the measures differ.

  The masks are of the same picture, from the views of one model or from several
  models. The spread tells how much a measure depends on the outline. It leaves
  out what all masks get wrong, so it is not the error of the measure.

  Args:
    image: RGB, uint8, [H, W, 3].
    masks: Whether a pixel is lesion, bool, [H, W] each; taken one by one.
    pixel_spacing: As for `lesion.measure`.

  Returns:
    By the names in `NAMES`. `touches_border` counts as 1 and 0.
    An orientation has no beginning: its quantiles are about its mean direction,
    and may lie outside (-90, 90].

  Raises:
    InputError: As `lesion.measure`.
  """
  rows = [lesion.measure(image, mask, pixel_spacing) for mask in masks]
  return {
    name: describe(
      [getattr(row, name) for row in rows], axis=name == 'orientation'
    )
    for name in NAMES
  }


def describe(values: Sequence[float | None], *, axis: bool = False) -> Spread:
  """Describes the values of one measure.

  Args:
    values: Of each mask; None where it has none.
    axis: Whether they are directions of axes in degrees.
  """
  known = np.array([value for value in values if value is not None], float)
  if len(known) < 2 or len(known) < len(values):
    return Spread(len(known), None, None, None)
  known = _unrolled(known) if axis else known
  low, high = np.quantile(known, _QUANTILES).tolist()
  return Spread(len(known), float(known.std(ddof=1)), low, high)


def _unrolled(degrees: np.ndarray) -> np.ndarray:
  """Moves directions of axes by half turns, to within 90 of their mean."""
  # Twice the angle is the same for both ends of an axis.
  mean = np.angle(np.exp(2j * np.deg2rad(degrees)).sum(), deg=True) / 2
  return mean + (degrees - mean + 90) % 180 - 90
