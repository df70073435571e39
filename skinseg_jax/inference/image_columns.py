"""Columns of `predictions.csv` that describe one prediction.

A new measure of a mask gets its name in `NAMES` and its value in `values`. The
columns on whether it needs a review come from `quality.review`.
"""

from typing import Any

import numpy as np

from skinseg_jax.quality import review

_OF_MASK = ('lesion_pixels', 'lesion_share', 'mean_probability')
NAMES = (*_OF_MASK, *review.COLUMNS)


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
