"""Otsu's threshold of one channel, with a clean-up."""

import cv2
import numpy as np
from skimage import filters

from skinseg_jax.classical import corrections, parameters, regions


def segment(image: np.ndarray, settings: parameters.Otsu) -> np.ndarray:
  """Finds a lesion as what is darker than a threshold.

  Args:
    image: RGB, uint8 [H, W, 3].
    settings: Its parameters.

  Returns:
    bool [H, W].
  """
  corrected = corrections.correct(image, settings.corrections)
  return regions.clean(beyond(corrected, settings), settings.clean_up)


def beyond(
  corrected: corrections.Corrected, settings: parameters.Otsu
) -> np.ndarray:
  """Pixels of a corrected image beyond the threshold, bool [H, W].

  The threshold is Otsu's (1979, doi:10.1109/TSMC.1979.4310076), moved towards
  the median of the skin, which is what lies above Otsu's.
  """
  values = corrections.channel(corrected.image, settings.channel)
  sigma = settings.blur * min(values.shape)
  if sigma:
    values = cv2.GaussianBlur(values, (0, 0), sigma)
  known = values[corrected.valid]
  if not len(known) or known.min() == known.max():
    return np.zeros(values.shape, bool)
  level = int(filters.threshold_otsu(known))
  skin = float(np.median(known[known > level]))
  threshold = skin + settings.place * (level - skin)
  return (values <= threshold) & corrected.valid
