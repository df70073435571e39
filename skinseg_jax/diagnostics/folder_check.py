"""Looks at any folder of images and masks, and draws them."""

import io
import math
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from skinseg_jax.data import cache, mask_checks
from skinseg_jax.data.sources import interface
from skinseg_jax.runtime import errors

# At this size the masks are looked at, and at twice of it drawn, in pixels.
_IMAGE_SIZE = (112, 112)
_TILE, _CAPTION = 224, 16
# The sheet holds at most so many images, in rows of so many.
_TILES, _COLUMNS = 24, 6
_OUTSIDE, _INSIDE = (0, 0, 0), (255, 255, 255)

REMEDY = mask_checks.Remedy(
  invert='check again with --mask_invert (without it if you gave it); training'
  ' has --config.data.mask_invert=true and skinseg_jax.evaluate --mask_invert',
  threshold='try another --mask_threshold',
)


def check(
  source: interface.Source, output: pathlib.Path
) -> mask_checks.MaskCheck:
  """Looks at all masks together and draws a sheet of outlines.

  Args:
    source: The images and masks.
    output: PNG file that the sheet is written to.

  Raises:
    InputError: If files cannot be read, or `output` cannot be written.
  """
  with tempfile.TemporaryDirectory() as directory:
    data = cache.open_cache(source, _IMAGE_SIZE, pathlib.Path(directory))
    found = mask_checks.examine(data, np.arange(len(data.image_ids)), REMEDY)
    picture = sheet(data, _shown(data.image_ids, found))
  try:
    output.write_bytes(picture)
  except OSError as error:
    raise errors.InputError(
      f'cannot write the sheet {output}: {error.strerror}; choose another'
      ' --output.'
    ) from error
  return found


def describe(found: mask_checks.MaskCheck) -> str:
  """The figures and every warning, for a terminal."""
  low, middle, high = (f'{area:.1%}' for area in found.area)
  lines = [
    f'{found.images:,} masks; the lesion covers {middle} of the image (median;'
    f' 90 % of the masks: {low} to {high}), {found.border:.0%} of the border'
    f' and {found.centre:.0%} of the centre'
  ]
  if found.compared:
    lines.append(f'{found.compared:,} compared with the colours of the images')
  else:
    lines.append('too few to compare with the colours of the images')
  lines.append(found.warning() or 'nothing looks wrong')
  return '\n'.join(lines)


def _shown(image_ids: Sequence[str], found: mask_checks.MaskCheck) -> list[str]:
  """Suspicious images first, then others evenly spread over the set."""
  suspicious = [name for f in found.findings for name in f.image_ids]
  places = np.linspace(0, len(image_ids) - 1, min(_TILES, len(image_ids)))
  spread = [image_ids[place] for place in places.round().astype(int)]
  return list(dict.fromkeys(suspicious + spread))[:_TILES]


def sheet(data: cache.CachedData, image_ids: Sequence[str]) -> bytes:
  """A PNG of the images with the outlines of their masks and their ids.

  The line is white just inside of the mask and black just outside.
  """
  columns = min(_COLUMNS, len(image_ids))
  rows = math.ceil(len(image_ids) / columns)
  height = _TILE + _CAPTION
  picture = Image.new('RGB', (columns * _TILE, rows * height), _INSIDE)
  draw = ImageDraw.Draw(picture)
  positions = {name: i for i, name in enumerate(data.image_ids)}
  for number, name in enumerate(image_ids):
    row, column = divmod(number, columns)
    left, top = column * _TILE, row * height
    index = positions[name]
    picture.paste(_outlined(data.images[index], data.masks[index]), (left, top))
    caption = name if len(name) <= 34 else f'...{name[-31:]}'
    # The built-in bitmap font knows ASCII alone.
    caption = caption.encode('ascii', 'replace').decode()
    draw.text((left + 4, top + _TILE + 2), caption, fill=_OUTSIDE)
  file = io.BytesIO()
  picture.save(file, 'PNG')
  return file.getvalue()


def _outlined(image: np.ndarray, mask: np.ndarray) -> Image.Image:
  size = (_TILE, _TILE)
  picture = np.array(Image.fromarray(image).resize(size))
  large = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
  lesion = np.asarray(large) > 0
  square = np.ones((5, 5), bool)
  picture[ndimage.binary_dilation(lesion, square) & ~lesion] = _OUTSIDE
  inner = ndimage.binary_erosion(lesion, square, border_value=1)
  picture[lesion & ~inner] = _INSIDE
  return Image.fromarray(picture)
