"""Edges by Canny, joined by a closing and filled."""

import cv2
import numpy as np
from skimage import feature

from skinseg_jax.classical import corrections, parameters, regions


def segment(image: np.ndarray, settings: parameters.Edges) -> np.ndarray:
  """Finds a lesion as what edges enclose.

  Edges are Canny's (1986, doi:10.1109/TPAMI.1986.4767851).

  Args:
    image: RGB, uint8 [H, W, 3].
    settings: Its parameters.

  Returns:
    bool [H, W].
  """
  corrected = corrections.correct(image, settings.corrections)
  values = corrections.channel(corrected.image, settings.channel)
  if not np.ptp(values):  # Quantiles would find edges in rounding errors.
    return np.zeros(values.shape, bool)
  side = min(values.shape)
  found = feature.canny(
    values.astype(np.float64),
    sigma=settings.blur * side,
    low_threshold=settings.low,
    high_threshold=settings.high,
    mask=corrected.valid,
    use_quantiles=True,
  )
  # The closing also joins an outline that the edge of the image cuts.
  reach = round(settings.clean_up.closing * side)
  padded = np.pad(found.astype(np.uint8), reach, mode='edge')
  joined = cv2.morphologyEx(
    padded, cv2.MORPH_CLOSE, regions.disc(settings.clean_up.closing, side)
  )
  joined = joined[reach:-reach, reach:-reach] if reach else joined
  return regions.clean(regions.filled(joined), settings.clean_up)
