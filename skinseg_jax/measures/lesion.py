"""Measures of one lesion, each by a published definition.

They describe a mask and its picture. They are no diagnosis, and there is no
total score. docs/reference/measures.md says what each cannot say.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np
from scipy import ndimage

from skinseg_jax.measures import border, colour, shape, skin
from skinseg_jax.runtime import errors

_SQUARE = (1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Measures:
  """Measures of a lesion. None where there is no value.

  Lengths in millimetres are None without the pixel spacing. Without a lesion,
  `area_share`, `pieces` and the lengths are 0, and other measures of the lesion
  are None. Sources are given where each is computed: `shape`, `border`,
  `colour` and `skin`.

  Attributes:
    area_share: Share of the picture that is lesion, in [0, 1].
    pieces: Number of 8-connected pieces.
    touches_border: Whether the lesion has a pixel at the picture's edge, so
      that it may go on outside.
    area_px: Number of lesion pixels.
    equivalent_diameter_px: Diameter of the disc with the same area.
    largest_diameter_px: Feret's diameter, see `shape.largest_diameter`.
    perimeter_px: Crofton's estimate with holes, see `shape.perimeter`.
    area_mm2: In square millimetres.
    equivalent_diameter_mm: In millimetres.
    largest_diameter_mm: In millimetres.
    perimeter_mm: In millimetres.
    compactness: P^2 / (4 pi A): 1 for a disc, larger for other shapes. Masks of
      few pixels may be below 1.
    eccentricity: Of the ellipse with the same second moments, in [0, 1].
    orientation: Angle of its major axis with the horizontal in degrees,
      counter-clockwise as seen, in (-90, 90]. None if all axes are alike.
    asymmetry_major: Share that the mirror image at the major axis does not
      cover, in [0, 1], see `shape.asymmetry`.
    asymmetry_minor: The same at the minor axis.
    border_abruptness: Mean change of lightness across the outline, in units of
      L*, in [-100, 100], see `border.abruptness`.
    border_abruptness_sd: Its standard deviation over eight sectors, in
      [0, 100].
    white: Share of the lesion whose nearest reference colour is white, in
      [0, 1], see `colour.shares`. The six shares add up to 1.
    red: The same for red.
    light_brown: The same for light brown.
    dark_brown: The same for dark brown.
    blue_grey: The same for blue-grey.
    black: The same for black.
    lesion_lightness: L* (CIELAB, D65) of the lesion's mean light, in [0, 100].
    lesion_a: a* of it.
    lesion_b: b* of it.
    skin_lightness: L* of the mean light of the skin around, see `skin.examine`.
    skin_a: a* of it.
    skin_b: b* of it.
    ita: Individual typology angle of the skin around in degrees, in (-90, 90);
      high for light skin. Never a group of skin types.
    ita_reason: Why there is none: 'too little skin', 'too dark' or 'b* is
      not positive'. '' where there is one.
  """

  area_share: float
  pieces: int
  touches_border: bool
  area_px: int
  equivalent_diameter_px: float
  largest_diameter_px: float
  perimeter_px: float
  area_mm2: float | None = None
  equivalent_diameter_mm: float | None = None
  largest_diameter_mm: float | None = None
  perimeter_mm: float | None = None
  compactness: float | None = None
  eccentricity: float | None = None
  orientation: float | None = None
  asymmetry_major: float | None = None
  asymmetry_minor: float | None = None
  border_abruptness: float | None = None
  border_abruptness_sd: float | None = None
  white: float | None = None
  red: float | None = None
  light_brown: float | None = None
  dark_brown: float | None = None
  blue_grey: float | None = None
  black: float | None = None
  lesion_lightness: float | None = None
  lesion_a: float | None = None
  lesion_b: float | None = None
  skin_lightness: float | None = None
  skin_a: float | None = None
  skin_b: float | None = None
  ita: float | None = None
  ita_reason: str = ''


def measure(
  image: np.ndarray,
  mask: np.ndarray,
  pixel_spacing: tuple[float, float] | None = None,
) -> Measures:
  """Measures a lesion and the skin around it.

  All pieces of the mask count as one lesion. With `pixel_spacing`, also the
  measures without a unit (compactness, eccentricity, orientation, asymmetry)
  take account of pixels that are not square.

  Args:
    image: RGB, uint8, [H, W, 3].
    mask: Whether a pixel is lesion, bool, [H, W].
    pixel_spacing: Distance between rows and between columns in millimetres, or
      None if it is not known.

  Raises:
    InputError: If a type, a shape or the spacing is none of these.
  """
  return next(measure_each(image, [mask], pixel_spacing))


def measure_each(
  image: np.ndarray,
  masks: Iterable[np.ndarray],
  pixel_spacing: tuple[float, float] | None = None,
) -> Iterator[Measures]:
  """Measures several masks of one picture, faster than `measure` does.

  Args:
    image: As for `measure`, and so are the others.
    masks: Taken one by one.
    pixel_spacing: See there.

  Raises:
    InputError: As `measure`.
  """
  picture = None
  for mask in masks:
    _check(image, mask, pixel_spacing)
    picture = picture or skin.Picture(image)
    yield _measured(image, mask, pixel_spacing, picture.examine(mask))


def _measured(
  image: np.ndarray,
  mask: np.ndarray,
  pixel_spacing: tuple[float, float] | None,
  around: skin.Skin,
) -> Measures:
  area = int(mask.sum())
  # Shapes need only the part of the picture with the lesion.
  part = (
    mask[ndimage.find_objects(mask.view(np.uint8))[0]] if area else mask[:0, :0]
  )
  pixels = _lengths(part, _SQUARE)
  millimetres = _lengths(part, pixel_spacing) if pixel_spacing else {}
  found: dict = {f'{name}_px': value for name, value in pixels.items()}
  found |= {f'{name}_mm': value for name, value in millimetres.items()}
  if pixel_spacing:
    found['area_mm2'] = area * math.prod(pixel_spacing)
  if area:
    found |= _shape(part, pixel_spacing or _SQUARE, millimetres or pixels)
    found |= _colours(image, mask)
  if around.lab:
    found |= _named('skin', around.lab)
  return Measures(
    area_share=area / mask.size,
    pieces=ndimage.label(part, np.ones((3, 3)))[1] if area else 0,
    touches_border=shape.touches_border(mask),
    area_px=area,
    ita=around.ita,
    ita_reason=around.reason,
    **found,
  )


def columns(measures: Measures) -> dict[str, float | str]:
  """Cells of a table by column name: '' for no value, 1 and 0 for yes and no.

  The columns and their order are the same for every picture.
  """
  cells = dataclasses.asdict(measures)
  cells['touches_border'] = int(measures.touches_border)
  return {name: '' if value is None else value for name, value in cells.items()}


def _check(
  image: np.ndarray,
  mask: np.ndarray,
  pixel_spacing: tuple[float, float] | None,
) -> None:
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
    raise errors.InputError(
      f'image is an array of {image.dtype} {list(image.shape)}; give uint8'
      ' [height, width, 3], RGB from 0 to 255.'
    )
  if mask.dtype != bool or mask.shape != image.shape[:2] or not mask.size:
    raise errors.InputError(
      f'mask is an array of {mask.dtype} {list(mask.shape)}; give bool'
      f' {list(image.shape[:2])}, the size of its image, with a pixel or more.'
    )
  if pixel_spacing is not None and not (
    len(pixel_spacing) == 2
    and all(math.isfinite(step) and step > 0 for step in pixel_spacing)
  ):
    raise errors.InputError(
      f'pixel_spacing is {pixel_spacing!r}; give the millimetres between rows'
      ' and between columns, such as (0.02, 0.02), or None.'
    )


def _lengths(
  mask: np.ndarray, spacing: tuple[float, float]
) -> dict[str, float]:
  area = float(mask.sum()) * math.prod(spacing)
  return {
    'equivalent_diameter': math.sqrt(4 * area / math.pi),
    'largest_diameter': shape.largest_diameter(mask, spacing),
    'perimeter': shape.perimeter(mask, spacing),
  }


def _shape(
  mask: np.ndarray, spacing: tuple[float, float], lengths: dict[str, float]
) -> dict[str, float | None]:
  axes = shape.axes(mask, spacing)
  minor = np.array([-axes.major[1], axes.major[0]])
  # P^2 / (4 pi A) with 4 A = pi d^2.
  round_ = math.pi * lengths['equivalent_diameter']
  return {
    'compactness': (lengths['perimeter'] / round_) ** 2,
    'eccentricity': axes.eccentricity,
    'orientation': axes.orientation,
    'asymmetry_major': shape.asymmetry(
      mask, spacing, axes.centroid, axes.major
    ),
    'asymmetry_minor': shape.asymmetry(mask, spacing, axes.centroid, minor),
  }


def _colours(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
  pixels = image[mask]
  found = colour.shares(pixels)
  found |= _named('lesion', colour.mean_lab(pixels).tolist())
  if change := border.abruptness(image, mask):
    found['border_abruptness'], found['border_abruptness_sd'] = change
  return found


def _named(what: str, lab) -> dict[str, float]:
  return dict(
    zip((f'{what}_lightness', f'{what}_a', f'{what}_b'), lab, strict=True)
  )
