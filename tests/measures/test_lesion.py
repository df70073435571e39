"""Colours, border, skin, what has no value, tables and spreads."""

import dataclasses
import math

import cv2
import drawn_shapes as drawn
import numpy as np
import pytest
from scipy import ndimage

from skinseg_jax.measures import colour, lesion, shape, skin, spread
from skinseg_jax.runtime import errors


def lab_by_opencv(rgb):
  pixel = np.float32([[rgb]]) / 255
  return cv2.cvtColor(pixel, cv2.COLOR_RGB2Lab)[0, 0]


def test_lab_equals_opencv():
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (50, 3), dtype=np.uint8)
  expected = [lab_by_opencv(pixel) for pixel in pixels]
  np.testing.assert_allclose(colour.lab(pixels), expected, atol=0.3)
  one = np.repeat(pixels[:1], 9, axis=0)
  np.testing.assert_allclose(colour.mean_lab(one), expected[0], atol=0.3)


def test_shares_of_two_colours():
  mask = drawn.rectangle(100, 50)
  image = drawn.picture(mask)
  # A quarter of the lesion gets a colour near to black, the rest is red.
  image[mask] = colour.REFERENCE['red']
  columns = np.flatnonzero(mask.any(axis=0))
  quarter = mask.copy()
  quarter[:, columns[50] :] = False
  image[quarter] = (45, 30, 35)
  found = lesion.measure(image, mask)
  assert found.black == pytest.approx(0.25, abs=1 / 200)
  assert found.red == pytest.approx(1 - found.black)
  assert found.white == found.light_brown == found.dark_brown == 0
  lab = lab_by_opencv((220, 170, 150))
  assert found.skin_lightness == pytest.approx(lab[0], abs=0.3)
  assert (found.skin_a, found.skin_b) == pytest.approx(lab[1:], abs=0.3)


def test_every_reference_colour_is_its_own_and_others_go_to_the_nearest():
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (5000, 3), dtype=np.uint8)
  references = np.array(list(colour.REFERENCE.values()))
  distances = np.linalg.norm(pixels[:, None] - references.astype(float), axis=2)
  expected = np.bincount(distances.argmin(axis=1), minlength=6) / 5000
  found = colour.shares(pixels)
  np.testing.assert_allclose(list(found.values()), expected, atol=1e-3)
  for name, value in colour.REFERENCE.items():
    assert colour.shares(np.uint8([value]))[name] == 1


@pytest.mark.parametrize('radius', [20, 60, 120])
def test_sharp_border_has_the_full_step(radius):
  mask = drawn.disc(radius)
  found = lesion.measure(drawn.picture(mask), mask)
  step = lab_by_opencv((220, 170, 150))[0] - lab_by_opencv((120, 70, 40))[0]
  assert found.border_abruptness == pytest.approx(step, abs=0.1)
  assert found.border_abruptness_sd == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize('widths', [2, 4])
def test_gradual_border_has_its_share_of_the_step(widths):
  # Grey values so that L* rises by 40 over `widths` bands of 10 pixels.
  away = np.hypot(*drawn.frame()) - 100
  lightness = 50 + 40 * np.clip(away / (10 * widths), -0.5, 0.5)
  light = ((lightness + 16) / 116) ** 3
  grey = np.rint(255 * (1.055 * light ** (1 / 2.4) - 0.055)).astype(np.uint8)
  image = np.repeat(grey[..., None], 3, axis=2)
  found = lesion.measure(image, drawn.disc(100))
  # The means of the bands are ten pixels apart; a pixel is a tenth of that.
  assert found.border_abruptness == pytest.approx(40 / widths, rel=0.1)


def test_border_that_is_sharp_on_one_half():
  mask = drawn.disc(100)
  image = drawn.picture(mask)
  # On the left, skin has the colour of the lesion.
  image[:, : round(drawn.CENTRE[1])] = (120, 70, 40)
  found = lesion.measure(image, mask)
  step = lab_by_opencv((220, 170, 150))[0] - lab_by_opencv((120, 70, 40))[0]
  assert found.border_abruptness == pytest.approx(step / 2, rel=0.05)
  assert found.border_abruptness_sd == pytest.approx(step / 2, rel=0.05)


@pytest.mark.parametrize(
  'tone', [(235, 200, 180), (190, 140, 110), (90, 60, 45)]
)
def test_ita_of_light_and_dark_skin(tone):
  mask = drawn.disc(60)
  image = drawn.picture(mask, skin=tone)
  lightness, _, yellow = lab_by_opencv(tone)
  expected = math.degrees(math.atan2(lightness - 50, yellow))
  assert lesion.measure(image, mask).ita == pytest.approx(expected, abs=0.5)
  # Hairs, glare, dark corners and the lesion's rim do not change it.
  near = drawn.disc(75) & ~mask
  image[near] = (60, 30, 20)
  image[:40, :40] = 5
  image[350:380, 20:60] = 250
  for start in range(50, 150, 20):
    cv2.line(image, (start, 5), (start + 200, 60), (30, 20, 15), 2)
  assert lesion.measure(image, mask).ita == pytest.approx(expected, abs=0.5)


def test_ita_hardly_depends_on_the_size():
  mask = drawn.disc(60)
  image = drawn.picture(mask)
  rng = np.random.default_rng(0)
  noise = ndimage.gaussian_filter(rng.normal(0, 60, mask.shape), 4)
  image = np.clip(image + noise[..., None], 0, 229).astype(np.uint8)
  large = lesion.measure(
    np.kron(image, np.ones((4, 4, 1), np.uint8)),
    np.kron(mask, np.ones((4, 4), bool)),
  )
  small = lesion.measure(image, mask)
  assert large.ita == pytest.approx(small.ita, abs=0.5)
  assert large.border_abruptness == pytest.approx(
    small.border_abruptness, abs=0.5
  )


@pytest.mark.parametrize(
  ('tone', 'reason'),
  [
    ((0, 0, 0), 'too dark'),
    ((255, 255, 255), 'too little skin'),
    ((120, 120, 160), 'b* is not positive'),
  ],
)
def test_why_there_is_no_ita(tone, reason):
  mask = drawn.disc(60)
  found = skin.examine(drawn.picture(mask, skin=tone), mask)
  assert (found.ita, found.reason) == (None, reason)


def test_empty_mask():
  mask = np.zeros((50, 60), bool)
  found = lesion.measure(drawn.picture(mask), mask, (0.1, 0.1))
  assert (found.area_share, found.area_px, found.pieces) == (0, 0, 0)
  assert found.touches_border is False
  for unit in ('px', 'mm'):
    for name in ('equivalent_diameter', 'largest_diameter', 'perimeter'):
      assert getattr(found, f'{name}_{unit}') == 0
  names = (
    'compactness eccentricity orientation asymmetry_major border_abruptness'
  )
  for name in (*names.split(), 'asymmetry_minor', 'red', 'lesion_a'):
    assert getattr(found, name) is None
  assert found.ita is not None


def test_full_mask():
  mask = np.ones((50, 60), bool)
  found = lesion.measure(drawn.picture(mask), mask)
  assert (found.area_share, found.pieces, found.touches_border) == (1, 1, True)
  assert found.largest_diameter_px == pytest.approx(math.hypot(50, 60), abs=1)
  assert found.asymmetry_major == found.asymmetry_minor == 0
  assert found.orientation == 0
  assert found.border_abruptness is None
  assert found.border_abruptness_sd is None
  assert (found.skin_lightness, found.ita) == (None, None)
  assert found.ita_reason == 'too little skin'
  assert found.dark_brown + found.light_brown == 1


def test_single_pixel():
  mask = np.zeros((50, 60), bool)
  mask[20, 30] = True
  found = lesion.measure(drawn.picture(mask), mask)
  assert (found.area_px, found.pieces) == (1, 1)
  assert found.equivalent_diameter_px == pytest.approx(math.sqrt(4 / math.pi))
  assert found.largest_diameter_px == 1
  # Two crossings in each direction; diagonals are 1 / sqrt(2) apart.
  outline = math.pi / 8 * (4 + 4 / math.sqrt(2))
  assert found.perimeter_px == pytest.approx(outline)
  assert (found.eccentricity, found.orientation) == (0, None)
  assert (found.asymmetry_major, found.asymmetry_minor) == (0, 0)
  assert found.border_abruptness > 0


def test_a_line_of_pixels():
  mask = np.zeros((50, 60), bool)
  mask[10:40, 30] = True
  found = lesion.measure(drawn.picture(mask), mask)
  assert (found.eccentricity, found.orientation) == (1, 90)
  # Corners are half a pixel from the axis: sqrt(29^2 + 1) < 30.
  assert found.largest_diameter_px == 30


@pytest.mark.parametrize(
  ('image', 'mask', 'spacing', 'message'),
  [
    (np.zeros((4, 5)), np.zeros((4, 5), bool), None, 'image is an array'),
    (np.zeros((4, 5, 3), 'u1'), np.zeros((4, 5), 'u1'), None, 'give bool'),
    (np.zeros((4, 5, 3), 'u1'), np.zeros((5, 4), bool), None, r'bool \[4, 5\]'),
    (np.zeros((4, 5, 3), 'u1'), np.zeros((4, 5), bool), (0, 1), 'spacing is'),
    (np.zeros((0, 5, 3), 'u1'), np.zeros((0, 5), bool), None, 'or more'),
  ],
)
def test_wrong_input_is_explained(image, mask, spacing, message):
  with pytest.raises(errors.InputError, match=message):
    lesion.measure(image, mask, spacing)


def test_columns_are_the_same_for_every_picture():
  found = []
  for mask in (drawn.disc(50), np.zeros((40, 40), bool)):
    found.append(lesion.columns(lesion.measure(drawn.picture(mask), mask)))
  first, second = found
  assert list(first) == list(second)
  assert (first['touches_border'], first['area_mm2']) == (0, '')
  assert (second['compactness'], second['area_px']) == ('', 0)
  assert all(type(v) in (int, float, str) for v in first.values())


def test_a_picture_of_many_pixels_is_measured_in_blocks(monkeypatch):
  mask = drawn.half_disc(90, 20)
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
  whole = lesion.measure(image, mask)
  for module in (shape, colour):
    monkeypatch.setattr(module, '_BLOCK', 1000)
  assert lesion.measure(image, mask) == whole


def test_spread_by_hand():
  masks = [drawn.disc(radius) for radius in (50, 60, 70)]
  image = drawn.picture(masks[0])
  found = spread.spread(image, masks, (0.1, 0.1))
  areas = [mask.sum() for mask in masks]
  area = found['area_px']
  assert area.count == 3
  assert area.deviation == pytest.approx(np.std(areas, ddof=1))
  assert area.low == pytest.approx(areas[0] + 0.1 * (areas[1] - areas[0]))
  assert area.high == pytest.approx(areas[2] - 0.1 * (areas[2] - areas[1]))
  assert found['area_mm2'].deviation == pytest.approx(area.deviation / 100)
  assert found['touches_border'].deviation == 0
  names = {field.name for field in dataclasses.fields(lesion.Measures)}
  assert set(found) == names - {'ita_reason'}


def test_spread_of_an_axis_that_turns_over_the_vertical():
  masks = [drawn.ellipse(90, 40, degrees) for degrees in (86, 90, 94)]
  found = spread.spread(drawn.picture(masks[0]), masks)['orientation']
  assert found.deviation == pytest.approx(4, abs=0.5)
  assert found.high - found.low == pytest.approx(7.2, abs=0.5)


@pytest.mark.parametrize('own', [86, 20, -88])
def test_the_spread_of_an_axis_is_at_the_end_of_its_own_mask(own):
  # Axes of 88, 90 and 92 degrees: also those of -92, -90 and -88.
  masks = [drawn.ellipse(90, 40, degrees) for degrees in (88, 90, 92)]
  image = drawn.picture(masks[0])
  found = spread.spread(image, masks, orientation=own)['orientation']
  middle = -90 if own == -88 else 90
  assert found.low == pytest.approx(middle - 1.8, abs=0.5)
  assert found.high == pytest.approx(middle + 1.8, abs=0.5)
  assert found.deviation == pytest.approx(2, abs=0.3)


def test_no_spread_of_one_mask_or_where_one_has_no_value():
  discs = [drawn.disc(50), drawn.disc(60)]
  nothing = np.zeros((drawn.SIZE, drawn.SIZE), bool)
  image = drawn.picture(discs[0])
  found = spread.spread(image, [*discs, nothing])
  assert found['compactness'] == spread.Spread(2, None, None, None)
  assert found['area_px'].count == 3
  assert found['area_px'].low < discs[0].sum() / 2
  one = spread.spread(image, discs[:1])
  assert {value.low for value in one.values()} == {None}
  assert spread.spread(image, [])['red'] == spread.Spread(0, None, None, None)
