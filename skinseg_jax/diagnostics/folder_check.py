"""Looks at any folder of images and masks, and draws them."""

import contextlib
import io
import math
import pathlib
import shlex
import tempfile
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin
from scipy import ndimage

from skinseg_jax.data import cache, mask_checks
from skinseg_jax.data.sources import folder_files, interface
from skinseg_jax.runtime import errors

# At this size the masks are looked at, and at twice of it drawn, in pixels.
_IMAGE_SIZE = (112, 112)
_TILE, _CAPTION = 224, 16
# The sheet holds at most so many images, in rows of so many.
_TILES, _COLUMNS = 24, 6
_OUTSIDE, _INSIDE = (0, 0, 0), (255, 255, 255)

# Name of the sheet where the user gives none, and what marks a file as a sheet.
SHEET = 'mask_check.png'
_MARK = 'skinseg_jax doctor'

REMEDY = mask_checks.Remedy(
  invert='check again with --mask_invert (without it if you gave it); training'
  ' has --config.data.mask_invert=true and skinseg_jax.evaluate --mask_invert',
  threshold='try another --mask_threshold',
)


def check_output(output: pathlib.Path, folders: Sequence[pathlib.Path]) -> None:
  """Refuses to write among the inputs, or over what is not a sheet.

  Args:
    output: File that the sheet will be written to.
    folders: Those of the images and the masks.

  Raises:
    InputError: Naming --output and what to type.
  """
  roots = [folder.resolve() for folder in folders]
  inside = lambda path: any(path.is_relative_to(root) for root in roots)
  place = output.parent.resolve()
  inputs = {file.resolve() for folder in folders for file in _pictures(folder)}
  if inside(place) or inside(output.resolve()) or output.resolve() in inputs:
    outside = next(
      (f for f in (place, *place.parents) if not inside(f)), place.parent
    )
    another = shlex.quote(str(_free(outside)))
    raise errors.InputError(
      f'the sheet {output} would be written among the images and masks; choose'
      f' a file outside of their folders, such as --output {another}.'
    )
  if output.is_file() and output.name != SHEET and not _is_sheet(output):
    another = shlex.quote(str(_free(output.parent)))
    raise errors.InputError(
      f'the file {output} is already there and is no sheet of outlines; choose'
      f' another one, such as --output {another}.'
    )


def _pictures(folder: pathlib.Path) -> list[pathlib.Path]:
  try:
    return list(folder_files.find_pictures(folder)[0])
  except OSError:  # Whoever reads the folder says so.
    return []


def _free(folder: pathlib.Path) -> pathlib.Path:
  """A name for a sheet, at which no other file would be lost."""
  names = (f'mask_check{number}.png' for number in ('', *range(2, 1000)))
  return next(folder / name for name in names if not (folder / name).exists())


def _is_sheet(path: pathlib.Path) -> bool:
  with path.open('rb') as file:
    return _MARK.encode() in file.read(200)


def check(
  source: interface.Source, output: pathlib.Path
) -> mask_checks.MaskCheck:
  """Looks at all masks together and draws a sheet of outlines.

  Args:
    source: The images and masks.
    output: PNG file that the sheet is written to; see `check_output`.

  Raises:
    InputError: If files cannot be read, or `output` cannot be written.
  """
  with tempfile.TemporaryDirectory() as directory:
    data = cache.open_cache(source, _IMAGE_SIZE, pathlib.Path(directory))
    found = mask_checks.examine(data, np.arange(len(data.image_ids)), REMEDY)
    picture = sheet(data, _shown(data.image_ids, found))
  temporary = output.with_name(output.name + '.tmp')
  try:
    temporary.write_bytes(picture)
    temporary.replace(output)
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink()
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
  mark = PngImagePlugin.PngInfo()
  mark.add_text('Software', _MARK)
  picture.save(file, 'PNG', pnginfo=mark)
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
