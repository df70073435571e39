"""Removes hair, dark corners and uneven light from an image of skin."""

import functools
from typing import NamedTuple

import cv2
import numpy as np

from skinseg_jax.classical import parameters, regions


class Corrected(NamedTuple):
  """A corrected image.

  Attributes:
    image: RGB, uint8 [H, W, 3].
    valid: False in dark corners, bool [H, W].
  """

  image: np.ndarray
  valid: np.ndarray


def correct(image: np.ndarray, settings: parameters.Corrections) -> Corrected:
  """Corrects an image.

  Args:
    image: RGB, uint8 [H, W, 3].
    settings: What to correct.
  """
  image = _without_hair(image, settings)
  valid = ~_dark_corners(image, settings)
  if settings.illumination:
    image = _evenly_lit(image, valid, settings.illumination, settings.light)
  return Corrected(image, valid)


def channel(image: np.ndarray, name: str) -> np.ndarray:
  """One channel in which a lesion is dark.

  Args:
    image: RGB, uint8 [H, W, 3].
    name: 'grey', 'blue' or 'saturation'. Lesions are more saturated than skin,
      so the last one is 255 minus the saturation of HSV.

  Returns:
    uint8 [H, W].
  """
  if name == 'grey':
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  if name == 'saturation':
    return 255 - cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1]
  return np.ascontiguousarray(image[..., 2])


def _without_hair(image, settings: parameters.Corrections) -> np.ndarray:
  """Paints over thin dark lines, as DullRazor does (Lee et al., 1997)."""
  side = min(image.shape[:2])
  grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  width = regions.disc(settings.hair_width / 2, side)
  depth = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, width)
  thin = (depth > settings.hair_depth).astype(np.uint8)
  _, labels, stats, _ = cv2.connectedComponentsWithStats(thin)
  extents = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1)
  long = extents >= settings.hair_length * side
  long[0] = False  # The background.
  grown = np.ones((2 * settings.hair_rim_pixels + 1,) * 2, np.uint8)
  hair = cv2.dilate(long[labels].astype(np.uint8), grown)
  return cv2.inpaint(image, hair, settings.hair_paint_pixels, cv2.INPAINT_TELEA)


def _dark_corners(image, settings: parameters.Corrections) -> np.ndarray:
  """Dark regions that hold a corner of the image, bool [H, W]."""
  blur = (settings.corner_blur_pixels,) * 2
  smooth = cv2.GaussianBlur(image.max(axis=2), blur, 0)
  dark = (smooth < settings.corner_level).astype(np.uint8)
  _, labels = cv2.connectedComponents(dark)
  corners = {int(labels[row, column]) for row in (0, -1) for column in (0, -1)}
  found = np.isin(labels, [label for label in corners if label])
  # A lesion may reach into a corner; the tube does not reach the centre.
  found &= regions.radius(found.shape) > settings.corner_radius
  rim = regions.disc(settings.corner_rim, min(found.shape))
  return cv2.dilate(found.astype(np.uint8), rim) > 0


def _evenly_lit(
  image: np.ndarray, valid: np.ndarray, degree: int, light: parameters.Light
) -> np.ndarray:
  """Divides by the colour of the skin, a smooth surface over the image.

  The surface is a polynomial in the logarithm of each channel. It is fitted to
  pixels that look like skin; these are chosen again after each fit.
  """
  logs = np.log(image.astype(np.float32) + light.offset)
  step = max(1, -(-max(valid.shape) // light.side))
  sample = logs[::step, ::step].reshape(-1, 3)
  usable = valid[::step, ::step].ravel()
  if not usable.any():
    return image
  basis = _basis(valid.shape, degree)
  terms = basis[::step, ::step].reshape(len(sample), -1)
  outer = regions.radius(valid.shape)[::step, ::step].ravel() > light.outer
  brightness = sample.mean(axis=1)
  skin = usable & (
    outer | (brightness > _middle(brightness[usable], light.tail))
  )
  surface = np.zeros((terms.shape[1], 3), np.float32)
  for _ in range(light.rounds):
    if skin.sum() < light.least * usable.sum():
      break
    chosen = terms[skin]
    # The normal equations: as exact here as the pixels, and far smaller.
    surface = np.linalg.lstsq(
      chosen.T @ chosen, chosen.T @ sample[skin], rcond=None
    )[0]
    rest = (sample - terms @ surface).mean(axis=1)
    spread = np.abs(rest[skin] - np.median(rest[skin]))
    # The factor makes it the standard deviation of a normal distribution.
    spread = 1.4826 * np.median(spread) + light.floor
    low, high = -light.below * spread, light.above * spread
    skin = usable & (rest > low) & (rest < high)
  fitted = basis @ surface
  colour = np.median(fitted[valid], axis=0)
  even = np.exp(logs - fitted + colour) - light.offset
  return np.rint(even).clip(0, 255).astype(np.uint8)


def _middle(values: np.ndarray, tail: float) -> float:
  """Halfway between the darkest and the brightest, without outliers."""
  low, high = np.quantile(values, [tail, 1 - tail])
  return float(low + high) / 2


@functools.lru_cache(maxsize=8)
def _basis(shape: tuple[int, int], degree: int) -> np.ndarray:
  """Products of powers of row and column, float32 [H, W, terms]."""
  rows, columns = np.ix_(*(np.linspace(-1, 1, size) for size in shape))
  terms = [
    rows**i * columns**j
    for i in range(degree + 1)
    for j in range(degree + 1 - i)
  ]
  return np.stack(np.broadcast_arrays(*terms), axis=-1).astype(np.float32)
