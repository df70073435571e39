"""Pictures of one drawn lesion on drawn skin, from a camera that moves."""

import numpy as np
from scipy import ndimage

# Half axes of the lesion in pixels of a picture with scale 1.
AXES = (52.0, 33.0)
SIZE = (240, 320)
_WORLD = 800


def skin(seed=0):
  """Fine and coarse texture, float [800, 800], about 0."""
  rng = np.random.default_rng(seed)
  layers = (
    ndimage.gaussian_filter(rng.normal(size=(_WORLD, _WORLD)), sigma) * sigma
    for sigma in (1.5, 3.0, 6.0)
  )
  return 25 * sum(layers)


def picture(texture, *, scale=1.0, degrees=0.0, growth=1.0, shift=(0, 0)):
  """A picture and its mask.

  `scale`: pixels of a picture with scale 1 for one of this. `degrees`: turn of
  this picture onto one with 0, clockwise as seen. `growth`: of the lesion's
  axes; the skin stays.
  """
  rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
  y, x = rows - SIZE[0] / 2 - shift[0], columns - SIZE[1] / 2 - shift[1]
  cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  x, y = scale * (x * cos - y * sin), scale * (x * sin + y * cos)
  mask = (x / AXES[0]) ** 2 + (y / AXES[1]) ** 2 < growth**2
  grain = ndimage.map_coordinates(
    texture, [y + _WORLD / 2, x + _WORLD / 2], order=1
  )
  colour = np.where(mask[..., None], (95, 60, 50), (205, 165, 150))
  image = colour + grain[..., None]
  return np.clip(image, 45, 255).astype(np.uint8), mask
