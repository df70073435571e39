"""Measures of a lesion over time, and which changes are more than chance.

A change counts if it is larger than 95 % of the differences between repeated
pictures of one lesion. Those differ in distance, angle, light and outline, but
the lesion is the same.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from skinseg_jax.measures import lesion, spread


@dataclasses.dataclass(frozen=True)
class Measure:
  """One measure that is followed.

  Attributes:
    name: Column of the table.
    label: What people read.
    unit: '' for none; 'length' or 'area' for pixels of the reference or
      millimetres; otherwise the unit itself.
    limit: Of 100 pairs of repeated pictures, 95 differ by less. Of lengths and
      areas the ratio of the larger to the smaller value, otherwise the
      absolute difference.
  """

  name: str
  label: str
  unit: str
  limit: float

  @property
  def relative(self) -> bool:
    """Whether a change is a ratio, not a difference."""
    return self.unit in ('length', 'area')

  @property
  def whole(self) -> bool:
    """Whether all of the lesion has to be in the picture."""
    return self.relative or self.name.startswith('asymmetry')


# Limits: the model that comes with the package on repeated pictures of
# HAM10000, docs/explanation/repeatability.md has the command and the table.
# The limits of lengths and areas rest on this number of pairs of pictures, the
# others on more.
PAIRS = 345
MEASURES = (
  Measure('area', 'Area', 'area', 1.33),
  Measure('diameter', 'Largest diameter', 'length', 1.16),
  Measure('perimeter', 'Perimeter', 'length', 1.15),
  Measure('asymmetry_major', 'Asymmetry, major axis', '', 0.049),
  Measure('asymmetry_minor', 'Asymmetry, minor axis', '', 0.052),
  Measure('lightness', 'L*, lesion minus skin', 'L*', 10.8),
  Measure('red_green', 'a*, lesion minus skin', 'a*', 5.0),
  Measure('yellow_blue', 'b*, lesion minus skin', 'b*', 7.9),
)


class Value(NamedTuple):
  """A measure, and its quantiles .05 and .95 as `spread.describe` has them."""

  value: float | None
  low: float | None
  high: float | None


class Change(NamedTuple):
  """Change from the reference.

  Attributes:
    amount: Ratio to its value for lengths and areas, otherwise the
      difference from it.
    beyond: Whether it is larger than the limit of the measure.
  """

  amount: float
  beyond: bool


def measure(
  image: np.ndarray,
  mask: np.ndarray,
  views: Sequence[np.ndarray],
  step: float,
) -> dict[str, Value]:
  """Measures a lesion and how much that depends on the view.

  Args:
    image: RGB, uint8, [H, W, 3].
    mask: bool, [H, W].
    views: Masks of several views, bool, [H, W] each.
    step: Width of a pixel in the unit of the lengths.

  Returns:
    By the names in `MEASURES`.
  """
  one = values(lesion.measure(image, mask, (step, step)))
  each = [values(lesion.measure(image, view, (step, step))) for view in views]
  found = {}
  for name, value in one.items():
    range_ = spread.describe([row[name] for row in each])
    found[name] = Value(value, range_.low, range_.high)
  return found


def values(measures: lesion.Measures) -> dict[str, float | None]:
  """The values that are followed, by the names in `MEASURES`.

  Args:
    measures: Measured with the pixel spacing in the unit of the lengths.
  """
  minus = lambda a, b: None if a is None or b is None else a - b
  return {
    'area': measures.area_mm2,
    'diameter': measures.largest_diameter_mm,
    'perimeter': measures.perimeter_mm,
    'asymmetry_major': measures.asymmetry_major,
    'asymmetry_minor': measures.asymmetry_minor,
    'lightness': minus(measures.lesion_lightness, measures.skin_lightness),
    'red_green': minus(measures.lesion_a, measures.skin_a),
    'yellow_blue': minus(measures.lesion_b, measures.skin_b),
  }


def compare(
  what: Measure, reference: float | None, other: float | None
) -> Change | None:
  """Compares a value with that of the reference; None if one is missing.

  Lengths and areas have to be in one unit, that of the reference above 0. One
  of 0 is a change beyond every limit.
  """
  if reference is None or other is None:
    return None
  if what.relative:
    ratio = other / reference
    if not ratio:
      return Change(0.0, True)
    return Change(ratio, max(ratio, 1 / ratio) > what.limit)
  return Change(other - reference, abs(other - reference) > what.limit)
