"""The skin around a lesion: hairs, its colour and its typology angle (ITA)."""

import dataclasses
import functools
import math

import numpy as np
from PIL import Image
from scipy import ndimage

from skinseg_jax.measures import colour

# Largest width of a hair and smallest length of a hair, as shares of the
# shorter side.
_HAIR_WIDTH = 0.04
_HAIR_LENGTH = 0.1
# Smallest difference between a hair and its surroundings, in grey values.
_HAIR_DEPTH = 15

# Skin starts this far from the lesion, as a share of the shorter side.
_MARGIN = 0.05
# Glare has no channel below, a dark corner none above these 8-bit values.
_GLARE = 230
_DARK = 40
# Smallest share of the picture that is enough skin.
_ENOUGH = 0.05
# Skin is examined at about this many pixels on the shorter side.
_SIDE = 512


@dataclasses.dataclass(frozen=True)
class Skin:
  """Colour of the skin around a lesion.

  Attributes:
    lab: L*, a*, b* (CIELAB, D65) of the mean light, or None.
    ita: Individual typology angle in degrees, or None.
    reason: Why there is no ITA: 'too little skin', 'too dark' or 'b* is
      not positive'. '' where there is one.
  """

  lab: tuple[float, float, float] | None
  ita: float | None
  reason: str


class Picture:
  """A picture, ready to be examined with several masks of its lesion.

  What does not depend on the mask is computed once.
  """

  def __init__(self, image: np.ndarray):
    """Reduces the picture; RGB, uint8, [H, W, 3]."""
    self._factor = max(1, min(image.shape[:2]) // _SIDE)
    self._image = (
      np.asarray(Image.fromarray(image).reduce(self._factor))
      if self._factor > 1
      else image
    )

  def examine(self, lesion: np.ndarray) -> Skin:
    """As the function `examine`."""
    if self._factor > 1:
      reduced = Image.fromarray(lesion.astype(np.float32)).reduce(self._factor)
      lesion = np.asarray(reduced) > 0
    reach = max(1, round(_MARGIN * min(lesion.shape)))
    away = ~grown(lesion, reach)
    free = away & ~self._dark & ~self._glare
    if free.any():
      free &= ~_long(self._thin & ~lesion)
    enough = _ENOUGH * lesion.size
    if free.sum() < enough:
      # Would there be enough if the dark pixels were skin?
      lacks_light = (free | (away & self._dark)).sum() >= enough
      return Skin(None, None, 'too dark' if lacks_light else 'too little skin')
    light, red, blue = colour.mean_lab(self._image[free]).tolist()
    lightness, yellow = (np.median(self._lab[..., i][free]) for i in (0, 2))
    if yellow <= 0:
      return Skin((light, red, blue), None, 'b* is not positive')
    ita = math.degrees(math.atan2(lightness - 50, yellow))
    return Skin((light, red, blue), ita, '')

  @functools.cached_property
  def _dark(self) -> np.ndarray:
    return self._image.max(axis=2) < _DARK

  @functools.cached_property
  def _glare(self) -> np.ndarray:
    return self._image.min(axis=2) >= _GLARE

  @functools.cached_property
  def _thin(self) -> np.ndarray:
    return _thin(self._image)

  @functools.cached_property
  def _lab(self) -> np.ndarray:
    return colour.lab(self._image)


def examine(image: np.ndarray, lesion: np.ndarray) -> Skin:
  """Measures the colour of the skin around a lesion.

  Skin is what lies farther from the lesion than 5 % of the shorter side (in
  rows or columns), is no hair (see `hair`), no glare (a pixel whose channels
  are all 230 or more) and no dark corner (all below 40). Pictures with a
  shorter side of 1024 pixels and more are reduced to 512 to 1023 first.

  The angle is ITA = atan2(L* - 50, b*) * 180 / pi with the medians of L* and b*
  over the skin (Chardon, Cretois and Hourseau, International Journal of
  Cosmetic Science 13, 1991, https://doi.org/10.1111/j.1467-2494.1991.tb00561.x).
  High values are light skin. It stays a continuous value, because published
  groups disagree (https://arxiv.org/abs/2308.09640).

  Args:
    image: RGB, uint8, [H, W, 3].
    lesion: bool, [H, W].

  Returns:
    What was found. There is no ITA and no colour if skin covers less than 5 %
    of the picture, and no ITA if the median b* is not positive: skin is
    yellowish, so the picture's white balance is off.
  """
  return Picture(image).examine(lesion)


def hair(image: np.ndarray, lesion: np.ndarray) -> np.ndarray:
  """Finds thin, dark and long structures on skin: mostly hairs.

  Rulers, vessels and folds are found, too. The black-hat of the grey image,
  with a square of 4 % of the shorter side, exceeds 15, in an 8-connected piece
  at least 10 % long.

  Args:
    image: RGB, uint8, [H, W, 3].
    lesion: bool, [H, W].

  Returns:
    Whether a pixel of the skin belongs to one, bool [H, W].
  """
  return _long(_thin(image) & ~lesion)


def _thin(image: np.ndarray) -> np.ndarray:
  """Thin and dark structures, bool [H, W]."""
  side = min(image.shape[:2])
  size = max(3, round(_HAIR_WIDTH * side) // 2 * 2 + 1)
  grey = (image @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)
  # Pad with black, so that a vignette at the edge is not taken for a thin line.
  closed = _extreme(np.pad(grey, size - 1), size, np.maximum)
  closed = _extreme(closed, size, np.minimum)
  return closed - grey > _HAIR_DEPTH


def _long(thin: np.ndarray) -> np.ndarray:
  """Leaves the long pieces, bool [H, W]."""
  side = min(thin.shape)
  pieces, _ = ndimage.label(thin, np.ones((3, 3)))
  long = [
    max(extent.stop - extent.start for extent in piece) >= _HAIR_LENGTH * side
    for piece in ndimage.find_objects(pieces)
  ]
  return np.array([False, *long])[pieces]


def grown(mask: np.ndarray, reach: int) -> np.ndarray:
  """Dilates a mask by a square, `reach` pixels to each side; bool [H, W]."""
  return _extreme(np.pad(mask, reach), 2 * reach + 1, np.logical_or)


def _extreme(values: np.ndarray, size: int, ufunc: np.ufunc) -> np.ndarray:
  """Largest or smallest of each square window: [H, W], less size - 1 each.

  Doubles the window until it is wide enough: several times as fast as
  scipy.ndimage on bytes.
  """
  for _ in range(2):
    covered = 1
    while covered < size:
      step = min(covered, size - covered)
      values = ufunc(values[step:], values[:-step])
      covered += step
    values = values.T
  return values
