"""Shapes with known values, rotated and scaled, and scikit-image.

Tolerances follow from the pixel: an outline is known to half a pixel, so
a length to one, an area to half the outline, and a share of it to that over
the area.
"""

import math

import drawn_shapes as drawn
import numpy as np
import pytest
from scipy import ndimage

from skinseg_jax.measures import lesion, shape

SCALES = (20, 60, 150)
ANGLES = (0, 17, 45, 90, 133)
# Crofton's estimate of a straight line, from its angle to the pixels' rows: the
# mean over the four directions of the line's projections, times pi / 2.
LEAST, MOST = math.pi / 8 * (1 + math.sqrt(2)), 1.0262


def measured(mask, spacing=None):
  return lesion.measure(drawn.picture(mask), mask, spacing)


def near(found, area, outline, feret):
  assert found.area_px == pytest.approx(area, abs=outline / 2)
  assert found.equivalent_diameter_px == pytest.approx(
    math.sqrt(4 * area / math.pi), abs=1
  )
  assert found.largest_diameter_px == pytest.approx(feret, abs=1.5)
  assert found.area_share == found.area_px / drawn.SIZE**2


def outline_is(found, outline):
  # Each of at most four sides is known to a pixel.
  assert LEAST * outline - 4 <= found.perimeter_px <= MOST * outline + 4


@pytest.mark.parametrize('radius', SCALES)
def test_disc(radius):
  found = measured(drawn.disc(radius))
  outline = 2 * math.pi * radius
  near(found, math.pi * radius**2, outline, 2 * radius)
  # All directions of the outline are equally frequent.
  assert found.perimeter_px == pytest.approx(outline, rel=0.5 / radius)
  assert found.compactness == pytest.approx(1, abs=2 / radius)
  # The two moments differ by no more than the outline's half pixel.
  assert found.eccentricity < math.sqrt(2 / radius)
  for part in (found.asymmetry_major, found.asymmetry_minor):
    assert 0 <= part < 0.5 * outline / found.area_px
  assert (found.pieces, found.touches_border) == (1, False)


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('degrees', ANGLES)
def test_ellipse(scale, degrees):
  a, b = scale, scale / 2
  found = measured(drawn.ellipse(a, b, degrees))
  outline = 4.844224 * a  # 4 a E(sqrt(3) / 2), the elliptic integral.
  near(found, math.pi * a * b, outline, 2 * a)
  outline_is(found, outline)
  assert found.eccentricity == pytest.approx(math.sqrt(0.75), abs=1 / scale)
  turned = (found.orientation - degrees + 90) % 180 - 90
  assert abs(turned) < math.degrees(0.5 / scale)
  assert -90 < found.orientation <= 90
  for part in (found.asymmetry_major, found.asymmetry_minor):
    assert 0 <= part < 0.5 * outline / found.area_px


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('degrees', ANGLES)
def test_square(scale, degrees):
  side = scale * math.sqrt(2)
  found = measured(drawn.rectangle(side / 2, side / 2, degrees))
  near(found, side**2, 4 * side, scale * 2)
  outline_is(found, 4 * side)
  # P^2 / (4 pi A) of a square is 4 / pi.
  low, high = (4 / math.pi * factor**2 for factor in (LEAST, MOST))
  assert low * (1 - 4 / side) < found.compactness < high * (1 + 4 / side)
  assert found.eccentricity < math.sqrt(4 / side)


@pytest.mark.parametrize(
  ('degrees', 'factor'), [(0, LEAST), (22.5, MOST), (45, LEAST), (67.5, MOST)]
)
def test_straight_outlines_are_shortest_at_multiples_of_45(degrees, factor):
  side = 240
  found = measured(drawn.rectangle(side / 2, side / 2, degrees))
  # Each side is known to a pixel.
  assert found.perimeter_px == pytest.approx(factor * 4 * side, abs=4)


@pytest.mark.parametrize('radius', SCALES)
@pytest.mark.parametrize('degrees', ANGLES)
def test_half_disc(radius, degrees):
  found = measured(drawn.half_disc(radius, degrees))
  outline = (2 + math.pi) * radius
  near(found, math.pi * radius**2 / 2, outline, 2 * radius)
  outline_is(found, outline)
  # Centroid at h = 4 / (3 pi) of the radius: moments 1/4 and 1/4 - h^2.
  height = 4 / (3 * math.pi)
  assert found.eccentricity == pytest.approx(
    math.sqrt(height**2 * 4), abs=2 / radius
  )
  turned = (found.orientation - degrees + 90) % 180 - 90
  assert abs(turned) < math.degrees(1 / radius)
  # Mirrored at the chord through the centroid, the chords of heights h to 2 h
  # are covered twice; F is the area up to a height.
  up_to = lambda y: y * math.sqrt(1 - y**2) + math.asin(y)
  covered = 2 * (up_to(2 * height) - up_to(height)) / (math.pi / 2)
  tolerance = 0.5 * outline / found.area_px
  assert found.asymmetry_major == pytest.approx(1 - covered, abs=tolerance)
  assert found.asymmetry_minor == pytest.approx(0, abs=tolerance)


def test_ring():
  found = measured(drawn.ring(120, 60))
  outline = 2 * math.pi * 180
  near(found, math.pi * (120**2 - 60**2), outline, 240)
  assert found.perimeter_px == pytest.approx(outline, rel=0.01)
  # (2 pi 180)^2 / (4 pi pi 10800) = 3.
  assert found.compactness == pytest.approx(3, rel=0.03)
  assert found.pieces == 1


def test_a_mirror_image_that_misses_the_lesion():
  # Two squares at the ends of a diagonal: the mirror image at a horizontal line
  # lies in the other two corners.
  mask = np.zeros((60, 60), bool)
  mask[:10, :10] = mask[50:, 50:] = True
  found = measured(mask)
  assert (found.pieces, found.touches_border) == (2, True)
  assert found.orientation == pytest.approx(-45)
  assert found.asymmetry_major == found.asymmetry_minor == 0
  mask[:10, 15:25] = True
  assert measured(mask).pieces == 3


def test_pixels_that_are_not_square():
  # As wide as high in millimetres, half as many rows as columns.
  y, x = np.mgrid[:200, :400]
  mask = np.hypot((y - 99.6) * 0.1, (x - 201.3) * 0.05) < 8
  found = measured(mask, (0.1, 0.05))
  assert found.area_mm2 == pytest.approx(math.pi * 64, rel=0.01)
  assert found.equivalent_diameter_mm == pytest.approx(16, abs=0.1)
  assert found.largest_diameter_mm == pytest.approx(16, abs=0.15)
  assert found.perimeter_mm == pytest.approx(math.pi * 16, rel=0.02)
  assert found.compactness == pytest.approx(1, abs=0.04)
  assert found.eccentricity < 0.2
  assert measured(mask).eccentricity == pytest.approx(math.sqrt(0.75), abs=0.01)


def test_millimetres_are_pixels_times_spacing():
  mask = drawn.half_disc(80, 17)
  plain, scaled = measured(mask), measured(mask, (0.02, 0.02))
  assert plain.area_mm2 is None
  assert plain.perimeter_mm is None
  assert scaled.area_mm2 == pytest.approx(plain.area_px * 0.0004)
  for name in ('equivalent_diameter', 'largest_diameter', 'perimeter'):
    pixels = getattr(plain, f'{name}_px')
    assert getattr(scaled, f'{name}_px') == pixels
    assert getattr(scaled, f'{name}_mm') == pytest.approx(pixels * 0.02)
  for name in ('compactness', 'eccentricity', 'orientation', 'asymmetry_major'):
    assert getattr(scaled, name) == pytest.approx(getattr(plain, name))


def _blobs():
  rng = np.random.default_rng(0)
  for smooth in (2, 6, 15):
    noise = ndimage.gaussian_filter(rng.normal(size=(120, 170)), smooth)
    yield noise > noise.std()
  yield drawn.half_disc(90, 30)
  yield drawn.ring(90, 40)


@pytest.mark.parametrize('spacing', [None, (0.3, 0.1)])
def test_equal_to_scikit_image(spacing):
  measure = pytest.importorskip('skimage.measure', reason='needs scikit-image')
  for mask in _blobs():
    found = measured(mask, spacing)
    plain = measure.regionprops(mask.astype(np.uint8))[0]
    assert found.area_px == plain.area
    assert found.perimeter_px == pytest.approx(
      measure.perimeter_crofton(mask, directions=4)
    )
    assert found.pieces == measure.label(mask, connectivity=2).max()
    theirs = measure.regionprops(
      mask.astype(np.uint8), spacing=spacing or (1, 1)
    )[0]
    assert found.eccentricity == pytest.approx(theirs.eccentricity)
    # Theirs is the angle with the vertical, in radians.
    turned = found.orientation - math.degrees(theirs.orientation)
    assert turned % 180 == pytest.approx(90)
    ours = found.largest_diameter_mm if spacing else found.largest_diameter_px
    # Their hull is drawn in pixels first.
    assert ours == pytest.approx(
      theirs.feret_diameter_max, abs=max(spacing or (1, 1))
    )
    ours = (
      found.equivalent_diameter_mm if spacing else found.equivalent_diameter_px
    )
    assert ours == pytest.approx(theirs.equivalent_diameter_area)


@pytest.mark.parametrize(
  ('row', 'column', 'expected'),
  [
    (0, 3, True), (4, 3, True), (2, 0, True), (2, 6, True),
    (1, 1, False), (3, 5, False),
  ],
)  # fmt: skip
def test_a_pixel_at_an_edge_touches_it(row, column, expected):
  mask = np.zeros((5, 7), bool)
  assert not shape.touches_border(mask)
  mask[row, column] = True
  assert shape.touches_border(mask) == expected
  assert measured(mask).touches_border == expected
