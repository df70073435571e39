import json

import cv2
import numpy as np
import pytest
from scipy import ndimage

from skinseg_jax.evaluation import subgroups
from skinseg_jax.metrics import bootstrap, confusion


def disc(size=224, radius=50, centre=(112, 112)):
  y, x = np.mgrid[:size, :size]
  return (np.hypot(y - centre[0], x - centre[1]) < radius).astype(np.uint8)


def picture(mask, lesion=(120, 70, 60), skin=(220, 170, 150)):
  return np.where(mask[..., None] > 0, np.uint8(lesion), np.uint8(skin))


def test_area_and_border_by_hand():
  mask = np.zeros((20, 40), np.uint8)
  mask[5:15, 10:30] = 1
  found = subgroups.measure(picture(mask), mask)
  assert (found['lesion_area'], found['touches_border']) == (0.25, 0)
  for corner in ((0, 0), (0, 39), (19, 20), (7, 0)):
    touching = mask.copy()
    touching[corner] = 1
    found = subgroups.measure(picture(touching), touching)
    assert found['touches_border'] == 1, corner


def test_contrast_equals_opencv():
  rng = np.random.default_rng(0)
  mask = disc()
  for colours in rng.integers(0, 256, (8, 2, 3)):
    # OpenCV's float conversion maps sRGB in [0, 1] to CIELAB (D65).
    lab = cv2.cvtColor(np.float32(colours[None] / 255), cv2.COLOR_RGB2Lab)[0]
    found = subgroups.measure(picture(mask, *colours), mask)['contrast']
    assert found == pytest.approx(np.linalg.norm(lab[0] - lab[1]), abs=0.3)


def test_contrast_looks_at_the_ring_alone():
  # 5 % of 224 is 11 pixels; pixels farther away do not count.
  mask = disc(radius=40)
  far = disc(radius=60) == 0
  image = picture(mask)
  expected = subgroups.measure(image, mask)['contrast']
  image[far] = 0
  assert subgroups.measure(image, mask)['contrast'] == pytest.approx(expected)
  image[disc(radius=45) == 0] = 0
  assert abs(subgroups.measure(image, mask)['contrast'] - expected) > 1


def test_what_has_no_value():
  image = np.full((32, 32, 3), 200, np.uint8)
  empty = subgroups.measure(image, np.zeros((32, 32), np.uint8))
  full = subgroups.measure(image, np.ones((32, 32), np.uint8))
  assert np.isnan([empty['contrast'], full['contrast'], full['hair']]).all()
  assert (empty['lesion_area'], empty['hair']) == (0, 0)
  assert (full['lesion_area'], full['touches_border']) == (1, 1)


def hair_by_scipy(image, mask):
  """The definition, with SciPy's closing and a loop over the pieces."""
  side = min(mask.shape)
  size = round(0.04 * side) // 2 * 2 + 1
  grey = (image @ np.float32([0.299, 0.587, 0.114])).astype(np.uint8)
  padded = np.pad(grey, size)
  closed = ndimage.grey_closing(padded, (size, size), mode='constant')
  thin = (closed[size:-size, size:-size] - grey > 15) & (mask == 0)
  labels, num = ndimage.label(thin, np.ones((3, 3)))
  hair = 0
  for i in range(1, num + 1):
    rows, columns = np.nonzero(labels == i)
    if max(np.ptp(rows), np.ptp(columns)) + 1 >= 0.1 * side:
      hair += len(rows)
  return hair / np.sum(mask == 0)


@pytest.mark.parametrize('shape', [(224, 224), (225, 300), (64, 48)])
def test_hair_equals_scipy(shape):
  rng = np.random.default_rng(0)
  for lines in (0, 3, 30):
    image = cv2.GaussianBlur(
      rng.integers(0, 256, (*shape, 3), dtype=np.uint8), (0, 0), 2
    )
    for _ in range(lines):
      ends = rng.integers(0, min(shape), (2, 2)).tolist()
      cv2.line(image, *ends, (30, 20, 20), 1)
    mask = (ndimage.gaussian_filter(rng.normal(size=shape), 9) > 0).astype('u1')
    found = subgroups.measure(image, mask)['hair']
    assert found == pytest.approx(hair_by_scipy(image, mask))
    assert lines < 30 or found > 0


def test_hair_by_hand():
  # One dark line of 2 x 100 pixels; the skin is 224 x 224 minus the lesion.
  mask = disc(radius=30)
  image = picture(mask)
  image[20:22, 50:150] = 40
  skin = 224 * 224 - mask.sum()
  found = subgroups.measure(image, mask)['hair']
  assert found == pytest.approx(200 / skin)
  # These do not count: a speck of 8 x 8, a wide bar, a hair on the lesion, and
  # a dark edge.
  image[200:208, 200:208] = 40
  image[50:70, 20:220] = 40
  image[112, 90:134] = 0
  image[:, :3] = 40
  assert subgroups.measure(image, mask)['hair'] == pytest.approx(found)


def test_size_of_the_picture_hardly_matters():
  mask = disc(radius=60, centre=(100, 120))
  image = picture(mask)
  cv2.line(image, (10, 10), (200, 60), (40, 30, 30), 2)
  small = subgroups.measure(image, mask)
  large = subgroups.measure(
    cv2.resize(image, (448, 448), interpolation=cv2.INTER_NEAREST),
    cv2.resize(mask, (448, 448), interpolation=cv2.INTER_NEAREST),
  )
  assert large == pytest.approx(small, rel=0.02)


def test_pieces_touch_at_corners_and_specks_do_not_count():
  # .1 % of 100 x 100 is 10 pixels.
  mask = np.zeros((100, 100), bool)
  mask[10:20, 10:20] = mask[20:30, 20:30] = True
  mask[50:52, 50:55] = True
  mask[80:83, 80:83] = True
  assert subgroups.pieces(mask) == 2
  assert subgroups.pieces(np.zeros((100, 100), bool)) == 0


def test_groups_of_metadata_and_measures():
  metadata = [
    {'dx': 'mel', 'sex': 'male', 'age': '29.0', 'dataset': 'vidir_modern'},
    {'dx': 'nv', 'sex': '', 'age': '75', 'dataset': 'rosendahl'},
    {'dx': 'nv', 'sex': 'female', 'age': '', 'dataset': 'rosendahl'},
    {'dx': 'nv', 'sex': 'unknown', 'age': 'old', 'dataset': ''},
  ]
  measured = {
    'lesion_area': np.array([0, 0.0499, 0.05, 0.35]),
    'touches_border': np.array([0.0, 1, 0, 1]),
    'contrast': np.array([np.nan, 9.9, 10, 30]),
    'hair': np.array([0, 0.0049, 0.005, 0.02]),
  }
  assert subgroups.attributes(metadata, measured) == {
    'dx': ['mel', 'nv', 'nv', 'nv'],
    'sex': ['male', 'unknown', 'female', 'unknown'],
    'source': ['vidir_modern', 'rosendahl', 'rosendahl', 'unknown'],
    'age': ['0-29', '75+', 'unknown', 'unknown'],
    'lesion_area': ['no lesion', 'under 5 %', '5 to 15 %', '35 % and more'],
    'touches_border': ['no', 'yes', 'no', 'yes'],
    'contrast': ['unknown', 'under 10', '10 to 20', '30 and more'],
    'hair': ['under 0.5 %', 'under 0.5 %', '0.5 to 2 %', '2 % and more'],
  }


def counts_of(num, seed=0):
  rng = np.random.default_rng(seed)
  return {name: rng.integers(1, 1000, num) for name in confusion.COUNTS}


def test_rows_are_the_scores_of_their_images():
  counts = counts_of(60)
  lesions = [f'HAM_{i // 2}' for i in range(60)]
  groups = {
    'age': ['75+'] * 10 + ['unknown'] * 8 + ['0-29'] * 42,
    'sex': ['male'] * 30 + ['unknown'] * 3 + ['female'] * 27,
  }
  rows = subgroups.table(counts, groups, lesions)
  assert [
    (r['attribute'], r['group'], r['images'], r['lesions'], r['warning'])
    for r in rows
  ] == [
    ('age', '0-29', 42, 21, ''),
    ('age', '75+', 10, 5, 'only 5 lesions: too few to judge'),
    ('age', 'unknown', 8, 4, 'only 4 lesions: too few to judge'),
    # Images 33 to 59: half a pair and 13 pairs.
    ('sex', 'female', 27, 14, 'only 14 lesions: too few to judge'),
    ('sex', 'male', 30, 15, 'only 15 lesions: too few to judge'),
    ('sex', 'unknown', 3, 2, 'only 2 lesions: too few to judge'),
  ]
  young = {name: count[18:] for name, count in counts.items()}
  scores = confusion.ratios(young)
  resampling = bootstrap.resample(lesions[18:])
  expected = bootstrap.pooled(resampling, young)['dice']
  assert rows[0]['dice'] == {
    'value': pytest.approx(
      float(confusion.ratios(confusion.pool(young))['dice'])
    ),
    'low': pytest.approx(expected.low),
    'high': pytest.approx(expected.high),
  }
  assert rows[0]['mean_dice']['value'] == pytest.approx(scores['dice'].mean())
  assert rows[0]['threshold_jaccard']['value'] == pytest.approx(
    np.where(scores['iou'] >= 0.65, scores['iou'], 0).mean()
  )
  json.dumps(rows, allow_nan=False)


def test_a_group_of_one_lesion_has_no_interval():
  rows = subgroups.table(counts_of(2), {'dx': ['df', 'df']}, ['a', 'a'])
  assert rows[0]['warning'] == 'only 1 lesion: too few to judge'
  assert (rows[0]['dice']['low'], rows[0]['dice']['high']) == (None, None)
  json.dumps(rows, allow_nan=False)


def test_skin_tone_by_hand():
  # From dark to light, Dice falls.
  found = subgroups.skin_tone(
    np.array([0.7, 0.9, 0.0, 0.8, 0.1]),
    {
      'ita': np.array([30.0, 10.0, np.nan, 20.0, np.nan]),
      'reason': np.array(['', '', 'too dark', '', 'too dark']),
    },
    ['a', 'b', 'c', 'b', 'd'],
  )
  assert (found['images'], found['lesions']) == (3, 2)
  assert found['unavailable'] == {'too dark': 2}
  assert found['ita_quantiles']['0.5'] == 20
  assert found['ita_quantiles']['0.25'] == 15
  assert found['warning'] == 'only 2 lesions: too few to judge'
  assert found['dice_rank_correlation']['value'] == pytest.approx(-1)
  # A quarter of the draws has lesion a alone.
  assert found['dice_rank_correlation']['low'] is None


def test_skin_tone_of_many_lesions():
  ita = np.linspace(-30, 80, 60)
  skin = {'ita': ita, 'reason': np.full(60, '')}
  found = subgroups.skin_tone(ita**3, skin, [f'l{i // 2}' for i in range(60)])
  correlation = found.pop('dice_rank_correlation')
  assert list(correlation.values()) == pytest.approx([1, 1, 1])
  assert (found['warning'], found['unavailable']) == ('', {})


def test_no_skin_tone_at_all():
  skin = {'ita': np.full(2, np.nan), 'reason': np.full(2, 'too dark')}
  found = subgroups.skin_tone(np.ones(2), skin, ['a', 'b'])
  assert (found['images'], found['unavailable']) == (0, {'too dark': 2})
  assert found['ita_quantiles'] is found['dice_rank_correlation'] is None


def test_every_image_is_in_one_group_of_each_attribute():
  rng = np.random.default_rng(0)
  masks = [disc(48, r) for r in rng.uniform(0, 40, 30)]
  measured = subgroups.measure_all([picture(m) for m in masks], masks)
  groups = subgroups.attributes([{'dx': 'nv'}] * 30, measured)
  rows = subgroups.table(counts_of(30), groups, list(map(str, range(30))))
  for attribute in groups:
    images = [r['images'] for r in rows if r['attribute'] == attribute]
    assert sum(images) == 30


def failure(counts, measured=None, num_pieces=1):
  measured = {
    'lesion_area': 0.2,
    'touches_border': 0,
    'contrast': 25,
    'hair': 0,
    **(measured or {}),
  }
  (row,) = subgroups.failures(
    ['a'],
    {n: np.array([c]) for n, c in zip(confusion.COUNTS, counts, strict=True)},
    {name: np.array([float(value)]) for name, value in measured.items()},
    [num_pieces],
  )
  return row['reason']


@pytest.mark.parametrize(
  ('counts', 'measured', 'num_pieces', 'reason'),
  [
    ((0, 0, 9, 91), {'contrast': 4}, 0, 'nothing predicted (low contrast)'),
    ((0, 9, 9, 82), {}, 1, 'prediction misses the lesion entirely'),
    (
      (10, 20, 0, 70),
      {'touches_border': 1, 'hair': 0.1},
      3,
      'predicted 3 times the true area, in 3 pieces'
      ' (lesion touches the border, much hair)',
    ),
    (
      (1, 1, 3, 95),
      {'lesion_area': 0.04},
      1,
      'predicted 0.5 times the true area (small lesion)',
    ),
    (
      (8, 1, 2, 89),
      {},
      1,
      '20% of the lesion missed, false area of 10% of the lesion',
    ),
    (
      (0, 5, 0, 95),
      {'lesion_area': 0, 'contrast': np.nan},
      2,
      '5.0% of the image predicted, but there is no lesion',
    ),
    ((0, 0, 0, 9), {'lesion_area': 0}, 0, 'correct: no lesion'),
  ],
)
def test_reasons(counts, measured, num_pieces, reason):
  assert failure(counts, measured, num_pieces) == reason


def test_the_worst_come_first():
  counts = {
    'tp': np.array([9, 0, 5, 0]),
    'fp': np.array([0, 4, 0, 4]),
    'fn': np.array([1, 5, 5, 5]),
    'tn': np.array([90, 91, 90, 91]),
  }
  mask = disc(48, 15)
  measured = subgroups.measure_all([picture(mask)] * 4, [mask] * 4)
  rows = subgroups.failures(list('dbca'), counts, measured, [1] * 4, most=3)
  assert [(r['image_id'], r['iou']) for r in rows] == [
    ('a', 0),
    ('b', 0),
    ('c', 0.5),
  ]
  assert rows[2]['dice'] == pytest.approx(2 / 3)
  json.dumps(rows, allow_nan=False)
