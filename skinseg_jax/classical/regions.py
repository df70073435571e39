"""Regions of a mask: one central region without holes."""

import functools

import cv2
import numpy as np
from scipy import ndimage

from skinseg_jax.classical import parameters


def disc(radius: float, side: int) -> np.ndarray:
  """A structuring element.

  Args:
    radius: Share of `side`.
    side: Shorter side of the image, in pixels.

  Returns:
    uint8 [2 r + 1, 2 r + 1], for r pixels.
  """
  size = 2 * round(radius * side) + 1
  return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


@functools.lru_cache(maxsize=8)
def radius(shape: tuple[int, int]) -> np.ndarray:
  """Distance from the centre, 1 at the middle of each side, float32 [H, W]."""
  rows, columns = np.ix_(*(np.linspace(-1, 1, size) for size in shape))
  return np.hypot(rows, columns).astype(np.float32)


def clean(rough: np.ndarray, settings: parameters.CleanUp) -> np.ndarray:
  """Makes one region without holes of a rough mask.

  Args:
    rough: bool [H, W].
    settings: How to do so.

  Returns:
    bool [H, W], without any pixel if no region is left.
  """
  side = min(rough.shape)
  mask: np.ndarray = rough.astype(np.uint8)
  mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc(settings.opening, side))
  mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, disc(settings.closing, side))
  return grown(filled(central(mask, settings.centre)), settings.growth)


def central(mask: np.ndarray, centre: float) -> np.ndarray:
  """The region with the most pixels, those near the centre counting more."""
  number, labels = cv2.connectedComponents(mask.astype(np.uint8))
  if number == 1:
    return np.zeros(mask.shape, bool)
  weights = np.exp(-centre * radius(mask.shape) ** 2)
  sizes = np.bincount(labels.ravel(), weights.ravel())
  sizes[0] = 0  # The background.
  return labels == sizes.argmax()


def filled(mask: np.ndarray) -> np.ndarray:
  """The mask without holes, bool [H, W]."""
  return ndimage.binary_fill_holes(mask)


def grown(mask: np.ndarray, by: float) -> np.ndarray:
  """The mask with a rim; `by` is a share of the shorter side."""
  return cv2.dilate(mask.astype(np.uint8), disc(by, min(mask.shape))) > 0
