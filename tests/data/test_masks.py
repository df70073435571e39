"""Masks of two colours, floats and thresholds; and remedies that work."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from skinseg_jax.data import preprocessing, remedies
from skinseg_jax.runtime import errors


def disc(height=40, width=60, radius=12) -> np.ndarray:
  y, x = np.mgrid[:height, :width]
  return (y - height // 2) ** 2 + (x - width // 2) ** 2 < radius**2


def encode(values: np.ndarray, file_format='PNG') -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(values).save(buffer, file_format)
  return buffer.getvalue()


def colours(lesion, foreground, background) -> np.ndarray:
  picked = np.where(lesion[..., None], foreground, background)
  return picked.astype(np.uint8)


RED, BLUE, BLACK, WHITE = (255, 0, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)
YELLOW = (255, 255, 0)


@pytest.mark.parametrize(
  ('foreground', 'background'),
  [
    (RED, BLACK),
    (BLUE, BLACK),
    ((0, 128, 0), BLACK),
    (RED, WHITE),
    (YELLOW, (68, 1, 84)),  # Two ends of matplotlib's viridis, roughly.
    ((68, 1, 84), YELLOW),
    (BLACK, RED),
  ],
)
@pytest.mark.parametrize('palette', [False, True])
def test_two_colours_are_background_and_lesion(foreground, background, palette):
  lesion = disc()
  if palette:
    image = Image.fromarray(lesion.astype(np.uint8), 'P')
    image.putpalette([*background, *foreground])
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    data = buffer.getvalue()
  else:
    data = encode(colours(lesion, foreground, background))
  np.testing.assert_array_equal(preprocessing.decode_mask(data, 'x'), lesion)


def painted(alpha, hidden=0) -> np.ndarray:
  """Black where it can be seen; where not, of the brightness `hidden`."""
  grey = np.where(alpha > 0, 0, hidden)
  return np.stack([grey] * 3 + [alpha], axis=2).astype(np.uint8)


@pytest.mark.parametrize('hidden', [0, 255])
@pytest.mark.parametrize('opaque', [255, 200])
@pytest.mark.parametrize('threshold', [0, 127])
def test_black_paint_on_nothing_is_lesion(hidden, opaque, threshold):
  lesion = disc(height=600, radius=25)  # More than one strip.
  data = encode(painted(lesion * opaque, hidden))
  mask = preprocessing.decode_mask(data, 'x', threshold=threshold)
  np.testing.assert_array_equal(mask, lesion)


def test_black_paint_with_soft_edges_needs_a_threshold():
  alpha = np.where(disc(), 255, np.where(disc(radius=14), 90, 0))
  data = encode(painted(alpha))
  with pytest.raises(errors.InputError, match='x: not binary') as caught:
    preprocessing.decode_mask(data, 'x')
  threshold = proposed(caught.value, remedies.CONFIG.mask_threshold)
  mask = preprocessing.decode_mask(data, 'x', threshold=threshold)
  np.testing.assert_array_equal(mask, disc())


@pytest.mark.parametrize('alpha', [0, 100, 255])
def test_black_with_one_opacity_stays_empty(alpha):
  data = encode(painted(np.full((20, 30), alpha)))
  assert not preprocessing.decode_mask(data, 'x').any()


def test_black_is_background_where_a_lesion_covers_part_of_the_border():
  lesion = np.zeros((10, 10), bool)
  lesion[:4] = True  # 10 of the first row, 2 in each of 3 more: 16 of 36.
  data = encode(colours(lesion, RED, BLACK))
  np.testing.assert_array_equal(preprocessing.decode_mask(data, 'x'), lesion)


def test_two_colours_that_share_the_border_are_refused():
  lesion = np.zeros((10, 10), bool)
  lesion[:, :6] = True  # 10 + 2 * 5 = 20 of 36 pixels of the border.
  for background in (BLACK, (10, 10, 10)):
    data = encode(colours(lesion, RED, background))
    with pytest.raises(errors.InputError, match='x: not binary') as caught:
      preprocessing.decode_mask(data, 'x')
    threshold = proposed(caught.value, remedies.CONFIG.mask_threshold)
    mask = preprocessing.decode_mask(data, 'x', threshold=threshold)
    np.testing.assert_array_equal(mask, lesion)


def test_white_stays_lesion_whatever_covers_the_border():
  # An inverted mask is for the check of a whole set, and for `invert`.
  data = encode((~disc()).astype(np.uint8) * np.uint8(255))
  np.testing.assert_array_equal(preprocessing.decode_mask(data, 'x'), ~disc())
  mask = preprocessing.decode_mask(data, 'x', invert=True)
  np.testing.assert_array_equal(mask, disc())
  assert mask.dtype == np.uint8


def proposed(error: Exception, prefix: str) -> int:
  (found,) = re.findall(re.escape(prefix) + r'(\d+)', str(error))
  return int(found)


@pytest.mark.parametrize('names', [remedies.CONFIG, remedies.FLAGS])
@pytest.mark.parametrize(
  'values',
  [
    [0, 80, 255],
    [0, 1, 255],
    [0, 40, 76],  # Red on black, with soft edges.
    [3, 9, 12],
    [1, 2, 3],
  ],
)
def test_proposed_threshold_separates_the_values(values, names):
  grey = np.resize(np.array(values, np.uint8), (30, 30))
  with pytest.raises(errors.InputError) as caught:
    preprocessing.decode_mask(encode(grey), 'x', remedies=names)
  threshold = proposed(caught.value, names.mask_threshold)
  assert min(values) <= threshold < max(values)
  mask = preprocessing.decode_mask(encode(grey), 'x', threshold=threshold)
  np.testing.assert_array_equal(mask, grey > threshold)
  assert 0 < mask.mean() < 1


@pytest.mark.parametrize('values', [(0, 1), (0, 76), (0, 127), (200, 255)])
def test_a_threshold_beside_both_values_does_not_apply(values):
  lesion = disc()
  grey = np.where(lesion, values[1], values[0]).astype(np.uint8)
  mask = preprocessing.decode_mask(encode(grey), 'x', threshold=127)
  np.testing.assert_array_equal(mask, lesion)


@pytest.mark.parametrize('value', [0, 1, 90])
def test_a_threshold_applies_to_one_dark_value(value):
  grey = np.full((40, 60), value, np.uint8)
  assert not preprocessing.decode_mask(encode(grey), 'x', threshold=127).any()


@pytest.mark.parametrize('kind', [np.uint8, np.uint16, np.int32])
def test_8_bit_values_in_more_bits(kind):
  grey = np.resize(np.array([0, 128, 255], kind), (30, 30))
  data = encode(grey, 'TIFF')
  for threshold in (127, 200):
    mask = preprocessing.decode_mask(data, 'x', threshold=threshold)
    np.testing.assert_array_equal(mask, grey > threshold)
  with pytest.raises(errors.InputError, match='x: not binary') as caught:
    preprocessing.decode_mask(data, 'x')
  threshold = proposed(caught.value, remedies.CONFIG.mask_threshold)
  mask = preprocessing.decode_mask(data, 'x', threshold=threshold)
  np.testing.assert_array_equal(mask, grey > 0)


def test_values_that_no_threshold_separates():
  grey = np.resize(np.array([0, 100, 300], np.uint16), (30, 30))
  with pytest.raises(errors.InputError, match='Save the mask with the values'):
    preprocessing.decode_mask(encode(grey), 'x')
  saved = encode((grey > 120).astype(np.uint8) * np.uint8(255))
  assert preprocessing.decode_mask(saved, 'x').sum() == (grey > 120).sum()


@pytest.mark.parametrize(
  'values',
  [
    np.float32([0, 1]),
    np.float32([0, 255]),
    np.int32([0, 1]),
    np.int32([0, 255]),
    np.int32([0, 65535]),
  ],
)
def test_binary_masks_of_32_bits(values):
  data = encode(values[disc().astype(int)], 'TIFF')
  for threshold in (0, 100):
    mask = preprocessing.decode_mask(data, 'x', threshold=threshold)
    np.testing.assert_array_equal(mask, disc())


def test_soft_float_masks_need_a_threshold():
  # .2 * 255 = 51, .6 * 255 = 153.
  soft = np.resize(np.float32([0, 0.2, 0.6, 1]), (8, 8))
  data = encode(soft, 'TIFF')
  with pytest.raises(errors.InputError, match='x: not binary') as caught:
    preprocessing.decode_mask(data, 'x')
  threshold = proposed(caught.value, remedies.CONFIG.mask_threshold)
  for value, expected in ((threshold, soft > 0.5), (50, soft > 0.1)):
    mask = preprocessing.decode_mask(data, 'x', threshold=value)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize('value', [-1, np.nan, 1e6])
def test_floats_out_of_range_are_refused(value):
  data = encode(np.float32([[0, value], [1, 0]]), 'TIFF')
  with pytest.raises(errors.InputError, match='x: holds values from'):
    preprocessing.decode_mask(data, 'x', threshold=127)
