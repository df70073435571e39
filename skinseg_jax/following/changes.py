"""Measures of a lesion over time, and which changes are more than chance.

A change counts if it is larger than 95 % of the differences between repeated
pictures of one lesion. Those differ in distance, angle, light and outline, but
the lesion is the same.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from skinseg_jax.measures import lesion, spread


@dataclasses.dataclass(frozen=True)
class Measure:
  """One measure that is followed.

  Attributes:
    name: Column of the table.
    label: What people read.
    value: Takes it from measures, in the unit of their pixel spacing.
    unit: '' for none; 'length' or 'area' for pixels of the reference or
      millimetres; otherwise the unit itself.
    limit: Of 100 pairs of repeated pictures, 95 differ by less. Of lengths and
      areas the ratio of the larger to the smaller value, otherwise the
      absolute difference.
    more: What the lesion is whose value grew.
    less: What it is whose value fell.
  """

  name: str
  label: str
  value: Callable[[lesion.Measures], float | None]
  unit: str
  limit: float
  more: str = 'larger'
  less: str = 'smaller'

  @property
  def relative(self) -> bool:
    """Whether a change is a ratio, not a difference."""
    return self.unit in ('length', 'area')

  @property
  def whole(self) -> bool:
    """Whether all of the lesion has to be in the picture."""
    return self.relative or self.name.startswith('asymmetry')


def _minus_skin(name: str) -> Callable[[lesion.Measures], float | None]:
  def difference(measures: lesion.Measures) -> float | None:
    inside = getattr(measures, f'lesion_{name}')
    around = getattr(measures, f'skin_{name}')
    return None if inside is None or around is None else inside - around

  return difference


# Limits: the model that comes with the package on repeated pictures of
# HAM10000, docs/explanation/repeatability.md has the command and the table.
# The limits of lengths and areas rest on this number of pairs of pictures, the
# others on more.
PAIRS = 345
_SYMMETRY = ('less symmetric', 'more symmetric')
MEASURES = (
  Measure(
    'area', 'Area', operator.attrgetter('area_mm2'), 'area', 1.33
  ),
  Measure(
    'diameter', 'Largest diameter',
    operator.attrgetter('largest_diameter_mm'), 'length', 1.16,
  ),
  Measure(
    'perimeter', 'Perimeter', operator.attrgetter('perimeter_mm'), 'length',
    1.15, 'longer', 'shorter',
  ),
  Measure(
    'asymmetry_major', 'Asymmetry, major axis',
    operator.attrgetter('asymmetry_major'), '', 0.049, *_SYMMETRY,
  ),
  Measure(
    'asymmetry_minor', 'Asymmetry, minor axis',
    operator.attrgetter('asymmetry_minor'), '', 0.052, *_SYMMETRY,
  ),
  Measure(
    'lightness', 'L*, lesion minus skin', _minus_skin('lightness'), 'L*', 10.8,
    'lighter beside its skin', 'darker beside its skin',
  ),
  Measure(
    'red_green', 'a*, lesion minus skin', _minus_skin('a'), 'a*', 5.0,
    'redder beside its skin', 'less red beside its skin',
  ),
  Measure(
    'yellow_blue', 'b*, lesion minus skin', _minus_skin('b'), 'b*', 7.9,
    'yellower beside its skin', 'less yellow beside its skin',
  ),
)  # fmt: skip


class Value(NamedTuple):
  """A measure, and its quantiles .05 and .95 as `spread.spread` has them."""

  value: float | None
  low: float | None
  high: float | None


class Change(NamedTuple):
  """Change between two pictures, in the order of time.

  Attributes:
    amount: Later value divided by the earlier one for lengths and areas,
      otherwise the later value minus the earlier one.
    beyond: Whether it is larger than the limit of the measure.
  """

  amount: float
  beyond: bool


def measure(
  image: np.ndarray,
  mask: np.ndarray,
  views: Iterable[np.ndarray],
  step: float,
) -> dict[str, Value]:
  """Measures a lesion and how much that depends on the view.

  Args:
    image: RGB, uint8, [H, W, 3].
    mask: bool, [H, W].
    views: Masks of several views, bool, [H, W] each; taken one by one.
    step: Width of a pixel in the unit of the lengths.

  Returns:
    By the names in `MEASURES`.
  """
  found = lesion.measure(image, mask, (step, step))
  values = {what.name: what.value for what in MEASURES}
  ranges = spread.spread(image, views, (step, step), values=values)
  return {
    name: Value(value(found), ranges[name].low, ranges[name].high)
    for name, value in values.items()
  }


def compare(
  what: Measure, earlier: float | None, later: float | None
) -> Change | None:
  """Compares two values in the order of time; None if one is missing.

  Lengths and areas have to be in one unit. If one of the two is 0, that is a
  change beyond every limit.
  """
  if earlier is None or later is None:
    return None
  if what.relative:
    if not earlier or not later:
      return Change(math.inf if later else 0.0, True)
    ratio = later / earlier
    return Change(ratio, max(ratio, 1 / ratio) > what.limit)
  return Change(later - earlier, abs(later - earlier) > what.limit)
