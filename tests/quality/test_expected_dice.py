"""Expected Dice: bounded, never falling, right on average, kept in a file."""

import json

import numpy as np
import pytest
from scipy import stats

from skinseg_jax.quality import expected_dice, signs
from skinseg_jax.runtime import errors


def made_up(number, seed=0):
  """Signs and Dice values: the Dice rises with the soft Dice."""
  rng = np.random.default_rng(seed)
  table = rng.normal(size=(number, len(signs.NAMES)))
  rows = [dict(zip(signs.NAMES, row, strict=True)) for row in table.tolist()]
  score = np.array([row['soft_dice'] - row['doubt'] for row in rows])
  dice = stats.logistic.cdf(2 + score + rng.normal(0, 0.3, number))
  return rows, dice, rng.normal(size=(number, 24))


@pytest.fixture(scope='module')
def calibration():
  return expected_dice.fit(*made_up(600), model={'step': 10})


def test_it_predicts_new_images(calibration):
  rows, dice, _ = made_up(600, seed=1)
  expected = np.array([calibration.expected(row) for row in rows])
  assert stats.spearmanr(expected, dice).statistic > 0.9
  assert expected.mean() == pytest.approx(dice.mean(), abs=0.01)
  # Among images of one expectation, the mean Dice is that expectation.
  for part in np.array_split(np.argsort(expected), 4):
    assert dice[part].mean() == pytest.approx(expected[part].mean(), abs=0.03)


def test_it_is_bounded_and_never_falls_with_the_soft_dice(calibration):
  row = dict.fromkeys(signs.NAMES, 0.0)
  values = [
    calibration.expected({**row, 'soft_dice': value})
    for value in np.linspace(-1e6, 1e6, 11).tolist()
    + np.linspace(-4, 4, 41).tolist()
  ]
  assert 0 <= min(values) <= max(values) <= 1
  rising = values[11:]
  assert rising == sorted(rising)
  assert rising[-1] > rising[0] + 0.2
  assert (np.diff(calibration.dice) >= 0).all()
  assert (np.diff(calibration.scores) > 0).all()


def test_a_fifth_is_low_and_few_are_extreme(calibration):
  rows, _, _ = made_up(600)
  low = np.mean([calibration.is_low(row) for row in rows])
  assert low == pytest.approx(0.2, abs=0.005)
  far = np.mean([calibration.distance(r) > calibration.far for r in rows])
  assert 0 < far <= 0.01


def test_a_fifth_is_low_where_more_have_the_lowest_expected_dice():
  rows, dice, features = made_up(600)
  # Most images have one Dice, whatever their signs: one block of many.
  dice = np.maximum(dice, np.quantile(dice, 0.9))
  found = expected_dice.fit(rows, dice, features, model={})
  expected = np.array([found.expected(row) for row in rows])
  assert (expected == expected.min()).mean() > 0.2
  low = np.mean([found.is_low(row) for row in rows])
  assert low == pytest.approx(0.2, abs=0.005)


def test_the_distance_is_that_of_mahalanobis():
  rows, dice, features = made_up(5000)
  found = expected_dice.fit(rows, dice, features, model={})
  row = dict.fromkeys(signs.NAMES, 0.0) | {'red': 3.0, 'blue': -4.0}
  # Signs of unit variance that do not depend on each other: sqrt(9 + 16).
  assert found.distance(row) == pytest.approx(5, rel=0.05)


def test_the_same_images_give_the_same_file(tmp_path, calibration):
  again = expected_dice.fit(*made_up(600), model={'step': 10})
  assert again.fingerprint() == calibration.fingerprint()
  expected_dice.write(tmp_path, calibration)
  read = expected_dice.read(tmp_path)
  assert read.fingerprint() == calibration.fingerprint()
  assert (read.model, read.images) == ({'step': 10}, 600)
  row = made_up(1, seed=2)[0][0]
  assert read.expected(row) == calibration.expected(row)
  assert [path.name for path in tmp_path.iterdir()] == ['review.json']


def test_one_sign_that_never_differs_is_no_problem():
  rows, dice, features = made_up(60)
  rows = [{**row, 'edge_share': 0.0} for row in rows]
  found = expected_dice.fit(rows, dice, features, model={})
  assert 0 <= found.expected({**rows[0], 'edge_share': 1.0}) <= 1


def test_all_alike_is_no_problem():
  rows, _, features = made_up(60)
  found = expected_dice.fit(rows, [1.0] * 60, features, model={})
  assert found.expected(rows[0]) == 1


def test_few_images_are_refused():
  with pytest.raises(errors.InputError, match='49 images are too few'):
    expected_dice.fit(*made_up(49), model={})


def test_no_file_is_no_calibration(tmp_path):
  assert expected_dice.read(tmp_path) is None


@pytest.mark.parametrize(
  'change',
  [
    {'version': 'two'},
    {'model': 10},
    {'signs': ['red']},
    {'weights': [1.0]},
    {'weights': 'many'},
    {'low': None},
    {'dice': [0.5]},
    {'far': float('nan')},
    {'scale': {}},
    {'features': {'components': [[1.0]], 'mean': [1.0, 2.0]}},
    {
      'features': {
        'mean': [0.0],
        'components': [[1.0]],
        'variances': [0.0],
        'rest': 1.0,
        'far': 1.0,
      }
    },
    None,
  ],
)
def test_a_damaged_file_is_named(tmp_path, calibration, change):
  path = tmp_path / 'review.json'
  text = '[1, 2'
  if change is not None:
    text = json.dumps({**calibration.as_dict(), **change})
  path.write_text(text)
  with pytest.raises(ValueError, match='is damaged') as caught:
    expected_dice.read(tmp_path)
  assert str(path) in str(caught.value)


@pytest.mark.parametrize('version', [1, 99])
def test_another_version_is_no_damage(tmp_path, calibration, version):
  content = {**calibration.as_dict(), 'version': version, 'signs': []}
  (tmp_path / 'review.json').write_text(json.dumps(content))
  with pytest.raises(expected_dice.OtherVersionError, match=f' {version}, '):
    expected_dice.read(tmp_path)


def test_few_images_are_kept_without_features(tmp_path):
  found = expected_dice.fit(*made_up(319), model={})
  expected_dice.write(tmp_path, found)
  read = expected_dice.read(tmp_path)
  assert read.features is None
  assert read.fingerprint() == found.fingerprint()
  # What the network computes then tells nothing.
  row = dict.fromkeys(signs.NAMES, 0.0)
  assert not read.is_unlike(row, np.full(24, 1e6))
