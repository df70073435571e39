"""Tables of the study of the expected Dice, with values worked out by hand."""

import csv

import fake_model
import numpy as np
import pytest
import review as study
import review_columns
from scipy import stats

from skinseg_jax import calibrate_review
from skinseg_jax.quality import signs


def test_quality_by_hand():
  # Ten images; 20 % are two: those with .1 and .2 expected.
  expected = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
  dice = np.array([0.2, 0.9, 0.1, 0.9, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0])
  found = study.quality(expected, dice)
  assert found['below_0.85'] == pytest.approx(0.2)
  # Of the two bad images, .2 and .1, only the first is flagged; the worst
  # twentieth is one image, that with .1.
  assert found['caught_below_0.85'] == pytest.approx(0.5)
  assert found['caught_worst_twentieth'] == 0
  assert found['rank_correlation'] == pytest.approx(
    stats.spearmanr(expected, dice).statistic
  )
  assert found['mean_absolute_difference'] == pytest.approx(
    np.mean([0.1, 0.7, 0.2, 0.5, 0.45, 0.36, 0.27, 0.18, 0.09, 0])
  )


def test_the_risk_falls_where_the_order_is_right():
  dice = np.linspace(0, 1, 100)
  right = study.risk_coverage(dice, dice)
  assert right == sorted(right)
  assert right[0] == pytest.approx(1 - dice[50:].mean())
  assert right[-1] == pytest.approx(0.5)
  assert study.risk_coverage(-dice, dice)[0] > 0.5


def test_the_tables_are_written(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)

  def examined():
    table = rng.normal(size=(80, len(signs.NAMES))).tolist()
    rows = [dict(zip(signs.NAMES, row, strict=True)) for row in table]
    dice = [float(stats.logistic.cdf(row['soft_dice'])) for row in rows]
    return calibrate_review.Examined(rows, dice, rng.normal(size=(80, 24)))

  images = [rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)]
  model = fake_model.make(monkeypatch, tmp_path, image_size=(96, 96))
  known = examined()
  case = study.Case('a/b', model, [known], known.features, examined(), images)
  study.write_tables([case], tmp_path)
  with (tmp_path / 'table.csv').open(newline='') as file:
    (row,) = csv.DictReader(file)
  assert row['run'] == 'a/b'
  assert row['images'] == '80'
  assert float(row['rank_correlation']) > 0.9
  with (tmp_path / 'risk_coverage.csv').open(newline='') as file:
    orders = [row['order'] for row in csv.DictReader(file)]
  assert len(orders) == 3 * 7
  with (tmp_path / 'pictures.csv').open(newline='') as file:
    (row,) = csv.DictReader(file)
  assert row['black'] == '1.0000'


def test_flagged_masks_by_hand():
  dice = np.array([0.2, 0.8, 0.9, 0.95])
  found = review_columns.flagged(
    [True, False, False, True],
    ['blurred; too dark', '', '', 'blurred'],
    dice,
  )
  assert found == {
    'flagged': 0.5,
    'flagged_below_0.85': 0.5,
    'flagged_worst_twentieth': 1.0,
    'blurred': 2,
    'too dark': 1,
  }
