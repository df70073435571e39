"""Masks and pictures with known measures, at any angle, place and scale."""

import numpy as np
from scipy import ndimage

SIZE = 400
CENTRE = (190.3, 205.8)

# Size of `lesion`, and half axes of the lesion at scale 1.
PICTURE = (240, 320)
AXES = (52.0, 33.0)
_TEXTURE = 800


def frame(degrees=0.0, size=SIZE, centre=CENTRE):
  """Coordinates along and across a direction, counter-clockwise as seen."""
  y, x = np.mgrid[:size, :size]
  y, x = centre[0] - y, x - centre[1]
  cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  return x * cos + y * sin, y * cos - x * sin


def disc(radius, **place):
  return np.hypot(*frame(**place)) < radius


def ellipse(a, b, degrees=0.0, **place):
  along, across = frame(degrees, **place)
  return (along / a) ** 2 + (across / b) ** 2 < 1


def rectangle(a, b, degrees=0.0, **place):
  """Sides of 2 a and 2 b."""
  along, across = frame(degrees, **place)
  return (abs(along) < a) & (abs(across) < b)


def half_disc(radius, degrees=0.0, **place):
  """The part above its diameter, which has the angle `degrees`."""
  along, across = frame(degrees, **place)
  return (np.hypot(along, across) < radius) & (across > 0)


def ring(outer, inner, **place):
  return disc(outer, **place) & ~disc(inner, **place)


def picture(mask, lesion=(120, 70, 40), skin=(220, 170, 150)):
  return np.where(mask[..., None], np.uint8(lesion), np.uint8(skin))


def texture(seed=0):
  """Fine and coarse texture of skin, float [800, 800], about 0."""
  rng = np.random.default_rng(seed)
  layers = (
    ndimage.gaussian_filter(rng.normal(size=(_TEXTURE, _TEXTURE)), sigma)
    * sigma
    for sigma in (1.5, 3.0, 6.0)
  )
  return 25 * sum(layers)


def lesion(skin, *, scale=1.0, degrees=0.0, growth=1.0, shift=(0, 0)):
  """A picture of a lesion from a camera that moves, and its mask.

  `scale`: pixels of a picture with scale 1 for one of this. `degrees`: turn of
  this picture onto one with 0, clockwise as seen. `growth`: of the lesion's
  axes; the skin stays.
  """
  rows, columns = np.mgrid[: PICTURE[0], : PICTURE[1]].astype(float)
  y, x = rows - PICTURE[0] / 2 - shift[0], columns - PICTURE[1] / 2 - shift[1]
  cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  x, y = scale * (x * cos - y * sin), scale * (x * sin + y * cos)
  mask = (x / AXES[0]) ** 2 + (y / AXES[1]) ** 2 < growth**2
  grain = ndimage.map_coordinates(
    skin, [y + _TEXTURE / 2, x + _TEXTURE / 2], order=1
  )
  colour = np.where(mask[..., None], (95, 60, 50), (205, 165, 150))
  image = colour + grain[..., None]
  return np.clip(image, 45, 255).astype(np.uint8), mask
