"""How abruptly the colour changes across the outline of a lesion."""

import math

import numpy as np
from PIL import Image
from scipy import ndimage

from skinseg_jax.measures import colour

# Width of the bands on both sides, as a share of the equivalent diameter.
_BAND = 0.05
# Parts of the outline, as in the ABCD rule.
_SECTORS = 8
# The surroundings of the lesion are examined at about this many pixels on the
# shorter side.
_SIDE = 512


def abruptness(
  image: np.ndarray, lesion: np.ndarray
) -> tuple[float, float] | None:
  """Measures the change of lightness across the outline.

  The ABCD rule of Stolz et al., European Journal of Dermatology 4, 1994, looks
  for an abrupt end of pigment in eight sectors. Here the change in a sector is
  the mean L* (CIELAB) of a band outside the lesion, less the mean of a band
  inside. Each band is 5 % of the equivalent diameter wide (at least a pixel).
  The mean change across the outline is the "pigmentation transition" of
  Zagrouba and Barhoumi, Image Analysis and Stereology 23, 2004, there of the
  mean of R, G and B. A sharp outline gives the full difference between skin and
  lesion. A gradual one of width T gives the share band / T of it, if T is two
  bands or more.

  Args:
    image: RGB, uint8, [H, W, 3].
    lesion: bool, [H, W], not empty.

  Returns:
    Mean and standard deviation over the sectors, in units of L*: positive for a
    lesion that is darker than its skin. Sectors without one of the bands are
    left out; None if all are.
  """
  diameter = math.sqrt(4 * lesion.sum() / math.pi)
  image, lesion, factor = _surroundings(image, lesion, 2 + 2 * _BAND * diameter)
  if not lesion.any() or lesion.all():
    return None
  width = max(1.0, _BAND * diameter / factor)
  inside = ndimage.distance_transform_edt(np.pad(lesion, 1, mode='edge'))
  outside = ndimage.distance_transform_edt(np.pad(~lesion, 1, mode='edge'))
  inside, outside = (far[1:-1, 1:-1] for far in (inside, outside))
  near = (lesion & (inside <= width)) | (~lesion & (outside <= width))
  row, column = np.nonzero(near)
  lightness = colour.lab(image[near])[:, 0]
  centre = [places.mean() for places in np.nonzero(lesion)]
  turn = np.arctan2(row - centre[0], column - centre[1]) / (2 * math.pi) + 0.5
  sector = np.minimum((turn * _SECTORS).astype(int), _SECTORS - 1)
  group = sector + _SECTORS * lesion[near]
  counts = np.bincount(group, minlength=2 * _SECTORS)
  sums = np.bincount(group, lightness, minlength=2 * _SECTORS)
  both = np.all(counts.reshape(2, _SECTORS) > 0, axis=0)
  if not both.any():
    return None
  means = (sums / np.maximum(counts, 1)).reshape(2, _SECTORS)
  change = (means[0] - means[1])[both]
  return float(change.mean()), float(change.std())


def _surroundings(
  image: np.ndarray, lesion: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray, int]:
  """Cuts out the lesion with `reach` pixels around, and reduces it.

  Returns:
    Image, lesion, and the factor by which both were reduced.
  """
  part = tuple(
    slice(max(0, int(places[0] - reach)), int(places[-1] + reach) + 2)
    for places in (np.flatnonzero(lesion.any(axis=k)) for k in (1, 0))
  )
  image, lesion = image[part], lesion[part]
  factor = max(1, min(lesion.shape) // _SIDE)
  if factor > 1:
    image = np.asarray(Image.fromarray(image).reduce(factor))
    share = Image.fromarray(lesion.astype(np.float32)).reduce(factor)
    lesion = np.asarray(share) >= 0.5
  return image, lesion, factor
