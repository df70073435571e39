"""Columns of `predictions.csv` that describe one prediction.

A new column gets its name in `NAMES` and its value in `values`. Measures of the
lesion are optional; a new one belongs to `measures.lesion.Measures`. The
columns on whether a mask needs a review come from `quality.review`.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from skinseg_jax.quality import review

NAMES = (
  'lesion_pixels', 'lesion_share', 'mean_probability', *review.COLUMNS
)  # fmt: skip
# Before the measures: what those in millimetres are computed with.
_SPACING = ('pixel_height_mm', 'pixel_width_mm')
VIEWS = 'views'
# Of each measure, after its value: ends of its range over the views.
_LOW, _HIGH = '_low', '_high'


def values(mask: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
  """Describes one prediction at the size of its picture.

  Args:
    mask: Whether a pixel is lesion, bool [height, width].
    probability: Probability of lesion, float32 [height, width].

  Returns:
    By the first names in `NAMES`: the number of lesion pixels; their share of
    all pixels, 0 to 1; the mean probability of the lesion pixels, 0 to 1, empty
    where there are none.
  """
  lesion = int(np.count_nonzero(mask))
  mean = f'{probability[mask].mean(dtype=np.float64):.6f}' if lesion else ''
  return {
    'lesion_pixels': lesion,
    'lesion_share': f'{lesion / mask.size:.6f}',
    'mean_probability': mean,
  }


def measure_names() -> tuple[str, ...]:
  """Names of the columns of `measures`."""
  # SciPy takes a while to import.
  from skinseg_jax.measures import lesion, spread

  names = [*_SPACING, VIEWS]
  for field in dataclasses.fields(lesion.Measures):
    names.append(field.name)
    if field.name in spread.NAMES:
      names += [field.name + _LOW, field.name + _HIGH]
  return tuple(names)


def measures(
  image: np.ndarray,
  mask: np.ndarray,
  pixel_spacing: tuple[float, float] | None,
  views: Iterable[np.ndarray],
  count: int,
) -> dict[str, Any]:
  """Measures the lesion and the skin around it, see `measures.lesion`.

  Args:
    image: RGB, uint8 [height, width, 3].
    mask: Whether a pixel is lesion, bool [height, width].
    pixel_spacing: Distance between rows and between columns in millimetres;
      None if it is not known: cells in millimetres are then empty.
    views: Masks of the views of the picture, bool [height, width] each; taken
      one by one. Fewer than two give no ranges.
    count: Their number; 0 if they are not known.

  Returns:
    By the names in `measure_names`. An empty cell is no value.
  """
  from skinseg_jax.measures import lesion, spread

  found = lesion.measure(image, mask, pixel_spacing)
  cells = lesion.columns(found)
  if count > 1:
    ranges = spread.spread(
      image, views, pixel_spacing, orientation=found.orientation
    )
    for name, range_ in ranges.items():
      if range_.low is not None and range_.high is not None:
        cells |= {name + _LOW: range_.low, name + _HIGH: range_.high}
  return {
    **dict(zip(_SPACING, pixel_spacing or ('', ''), strict=True)),
    VIEWS: count or '',
    **{
      name: f'{cell:.6f}' if isinstance(cell, float) else cell
      for name, cell in cells.items()
    },
  }
