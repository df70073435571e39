"""Cleaned masks: hand-made cases, and OpenCV on random ones."""

import cv2
import numpy as np
import predict_cases as cases
import pytest
from PIL import Image

from skinseg_jax.inference import postprocessing


def parse(*rows):
  return np.array([[c == '#' for c in row] for row in rows])


def clean(mask, **steps):
  return postprocessing.clean(mask, postprocessing.Steps(**steps))


_MASK = parse(
  '##....#',
  '#.##...',
  '#..#...',
  '####..#',
  '......#',
)


def test_nothing_by_default():
  np.testing.assert_array_equal(clean(_MASK), _MASK)


def test_the_largest_piece_remains():
  # Corners connect the first two columns with the rest of the ring.
  expected = _MASK.copy()
  expected[:, 6] = False
  np.testing.assert_array_equal(clean(_MASK, largest_component=True), expected)


def test_of_two_equal_pieces_the_upper_one_remains():
  mask = parse('..#', '...', '#..')
  np.testing.assert_array_equal(
    clean(mask, largest_component=True), parse('..#', '...', '...')
  )


def test_a_hole_is_closed_by_corners():
  # Its border leads from the '##' of the first row over a corner to '##'.
  expected = _MASK.copy()
  expected[1, 1] = expected[2, 1] = expected[2, 2] = True
  np.testing.assert_array_equal(clean(_MASK, fill_holes=True), expected)


def test_skin_at_the_border_is_no_hole():
  mask = parse('.##.', '#..#', '#..#')
  np.testing.assert_array_equal(clean(mask, fill_holes=True), mask)


@pytest.mark.parametrize(
  # The mask has pieces of 11, 1 and 2 pixels, of 35.
  ('share', 'left'), [(1 / 35, 14), (1.01 / 35, 13), (2 / 35, 13),
                      (2.1 / 35, 11), (11 / 35, 11), (0.5, 0)]
)  # fmt: skip
def test_small_pieces_are_removed(share, left):
  assert clean(_MASK, min_area=share).sum() == left


def test_holes_are_filled_before_areas_are_compared():
  # A ring of 8 around one pixel, and a block of 9 that would be larger.
  mask = np.zeros((5, 12), bool)
  mask[1:4, 1:4], mask[2, 2] = True, False
  mask[1:5, 6:8], mask[4, 8] = True, True
  assert mask[:, :5].sum() == 8
  assert mask[:, 5:].sum() == 9
  left = clean(mask, fill_holes=True, largest_component=True)
  assert left[1:4, 1:4].all()
  assert left.sum() == 9


@pytest.mark.parametrize('steps', [
  {'largest_component': True}, {'fill_holes': True}, {'min_area': 0.2},
  {'fill_holes': True, 'min_area': 0.001, 'largest_component': True},
])  # fmt: skip
@pytest.mark.parametrize('full', [False, True])
def test_empty_and_full_masks_stay(steps, full):
  mask = np.full((7, 9), full)
  np.testing.assert_array_equal(clean(mask, **steps), mask)


def random_masks():
  rng = np.random.default_rng(0)
  for size in [(31, 17), (1, 40), (90, 120), (64, 64)]:
    for smooth in (1, 3, 9):
      noise = cv2.blur(rng.random(size), (smooth, smooth))
      yield noise > np.quantile(noise, rng.uniform(0.3, 0.8))


def opencv(mask, *, fill_holes=False, min_area=0.0, largest_component=False):
  grey = mask.astype(np.uint8)
  if fill_holes:  # What a flood from outside over sides does not reach.
    flood = np.pad(grey, 1)
    cv2.floodFill(flood, None, (0, 0), 2, flags=4)
    grey = (flood[1:-1, 1:-1] != 2).astype(np.uint8)
  _, labels, stats, _ = cv2.connectedComponentsWithStats(grey, connectivity=8)
  areas = stats[:, cv2.CC_STAT_AREA].copy()
  areas[0] = 0
  kept = np.flatnonzero((areas > 0) & (areas / mask.size >= min_area))
  if largest_component:
    kept = kept[areas[kept] == areas.max()][:1]
  return np.isin(labels, kept)


@pytest.mark.parametrize('steps', [
  {'fill_holes': True},
  {'min_area': 0.0105},
  {'largest_component': True},
  {'fill_holes': True, 'min_area': 0.0105},
  {'fill_holes': True, 'min_area': 0.1, 'largest_component': True},
])  # fmt: skip
def test_equals_opencv(steps):
  changed = 0
  for mask in random_masks():
    cleaned, expected = clean(mask, **steps), opencv(mask, **steps)
    if steps.get(
      'largest_component'
    ):  # OpenCV numbers pieces in its own order.
      assert cleaned.sum() == expected.sum()
      pieces = cv2.connectedComponents(
        cleaned.astype(np.uint8), connectivity=8
      )[0]
      assert pieces <= 2
      assert not (cleaned & ~opencv(mask, fill_holes=True)).any()
    else:
      np.testing.assert_array_equal(cleaned, expected)
    changed += (cleaned != mask).any()
  assert changed > 5


def test_other_arrays_are_refused():
  for wrong in (np.zeros((3, 3)), np.zeros((3, 3, 1), bool)):
    with pytest.raises(ValueError, match=r'give bool \[height, width\]'):
      clean(wrong)


def test_the_command_cleans_masks(monkeypatch, tmp_path, capsys):
  cases.make_model(monkeypatch, tmp_path)
  mask = np.zeros((64, 96), bool)
  mask[10:50, 10:60] = True
  mask[20:30, 20:30] = False  # A hole.
  mask[5:8, 80:90] = True  # 30 of 6144 pixels.
  mask[40:60, 70:90] = True
  grey = np.where(mask, 20, 236).astype(np.uint8)
  Image.fromarray(grey).save(tmp_path / 'x.png')
  flags = {
    '--fill_holes': {'fill_holes': True},
    '--min_area=0.01': {'min_area': 0.01},
    '--largest_component': {'largest_component': True},
  }
  run = lambda name, *more: cases.run(
    '--input', tmp_path / 'x.png', '--output', tmp_path / name, *more
  )
  for flag, steps in flags.items():
    assert run(flag, flag) == 0
    written = cases.read(tmp_path / flag / 'x.png') > 0
    np.testing.assert_array_equal(written, opencv(mask, **steps))
    assert (written != mask).any()
  for share in ('-0.1', '1', 'much'):
    assert run('wrong', f'--min_area={share}') == 2
    assert 'no share of an image; give 0 to below 1' in capsys.readouterr().err
