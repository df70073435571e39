"""How much measures differ between several masks of one picture."""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from skinseg_jax.measures import lesion

# Ends of the range.
_QUANTILES = (0.05, 0.95)
# The measures that are numbers.
NAMES = tuple(
  field.name
  for field in dataclasses.fields(lesion.Measures)
  if field.name != 'ita_reason'
)
# What is described: values of the measures of a mask, by name.
Values = Mapping[str, Callable[[lesion.Measures], float | None]]
_ALL: Values = {name: operator.attrgetter(name) for name in NAMES}


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
  *,
  values: Values = _ALL,
  orientation: float | None = None,
) -> dict[str, Spread]:
  """Measures each mask and describes how the measures differ.

  The masks are of the same picture, from the views of one model or from several
  models. The spread tells how much a measure depends on the outline. It leaves
  out what all masks get wrong, so it is not the error of the measure.

  Args:
    image: RGB, uint8, [H, W, 3].
    masks: Whether a pixel is lesion, bool, [H, W] each; taken one by one.
    pixel_spacing: As for `lesion.measure`.
    values: What to describe; default: all measures in `NAMES`.
    orientation: Of the mask that the spread is shown with, in degrees.

  Returns:
    By the names in `values`. `touches_border` counts as 1 and 0.
    An orientation has no beginning. Its quantiles are about the mean direction
    of the axes, turned by 180 degrees where needed, so that the mean is within
    90 degrees of `orientation`. They may lie outside (-90, 90].

  Raises:
    InputError: As `lesion.measure`.
  """
  rows = [*lesion.measure_each(image, masks, pixel_spacing)]
  found = {}
  for name, value in values.items():
    each = [value(row) for row in rows]
    if name == 'orientation':
      each = _unrolled(each, orientation)
    found[name] = _described(each)
  return found


def _described(values: Sequence[float | None]) -> Spread:
  known = np.array([value for value in values if value is not None], float)
  if len(known) < 2 or len(known) < len(values):
    return Spread(len(known), None, None, None)
  low, high = np.quantile(known, _QUANTILES).tolist()
  return Spread(len(known), float(known.std(ddof=1)), low, high)


def _unrolled(
  degrees: Sequence[float | None], near: float | None
) -> list[float | None]:
  """Moves directions of axes by half turns, to within 90 of their mean.

  The mean itself is within 90 of `near`.
  """
  known = [angle for angle in degrees if angle is not None]
  # Twice the angle is the same for both ends of an axis.
  mean = float(np.angle(np.exp(2j * np.deg2rad(known)).sum(), deg=True)) / 2
  to = lambda angle, middle: middle + (angle - middle + 90) % 180 - 90
  if near is not None:
    mean = to(mean, near)
  return [None if angle is None else to(angle, mean) for angle in degrees]
