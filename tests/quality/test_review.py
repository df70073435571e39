"""Reasons for a review: pictures and masks of which each has one fault."""

import numpy as np
import pytest
import review as study
from scipy import stats

from skinseg_jax.quality import expected_dice, review, signs

_SIZE = 96


def lesion(seed):
  """A picture of a lesion with grain and hairs, and a probability map."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:_SIZE, :_SIZE]
  centre, radius = rng.uniform(40, 56, 2), rng.uniform(14, 26)
  distance = np.hypot(y - centre[0], x - centre[1])
  inside = 1 / (1 + np.exp((distance - radius) / 2))
  skin, dark = rng.normal([200, 150, 145], 12), rng.uniform(50, 90)
  image = skin - inside[..., None] * dark + rng.normal(0, 6, (_SIZE, _SIZE, 1))
  unsure = rng.uniform(2, 8)
  probability = stats.logistic.cdf((radius - distance) / unsure)
  return image.clip(0, 255).astype(np.uint8), probability.astype(np.float32)


@pytest.fixture(scope='module')
def calibration():
  described, dice = [], []
  for seed in range(320):
    found = signs.describe(*lesion(seed), 0.5)
    described.append(found)
    dice.append(float(stats.logistic.cdf(found['soft_dice'])))
  features = np.random.default_rng(0).normal(size=(len(dice), 24))
  return expected_dice.fit(described, np.array(dice), features, model={})


def _cells(image, probability, calibration=None, mask=None, features=None):
  mask = probability > 0.5 if mask is None else mask
  return review.cells(
    review.examine(
      image, probability, mask, 0.5, calibration, features=features
    )
  )


def _reasons(*args, **kwargs):
  return _cells(*args, **kwargs)['reasons'].split('; ')


def test_an_ordinary_lesion_needs_no_review():
  found = _cells(*lesion(0))
  assert tuple(found) == review.COLUMNS
  assert found == {'expected_dice': '', 'needs_review': 0, 'reasons': ''}


def test_with_a_calibration_a_fifth_needs_one(calibration):
  found = [_cells(*lesion(seed), calibration) for seed in range(1000, 1100)]
  assert all(0 <= float(one['expected_dice']) <= 1 for one in found)
  flagged = [one for one in found if one['needs_review']]
  assert 10 <= len(flagged) <= 35
  assert sum(review.LOW in one['reasons'] for one in flagged) >= 10


@pytest.mark.parametrize('calibrated', [True, False])
@pytest.mark.parametrize(
  ('name', 'reason'),
  [
    ('black', review.DARK),
    ('black', review.UNIFORM),
    ('dark', review.DARK),
    ('blurred', review.BLURRED),
  ],
)
def test_a_spoiled_picture_is_noticed(calibration, calibrated, name, reason):
  image, probability = lesion(2000)
  spoiled = study.SPOILERS[name](image)
  known = calibration if calibrated else None
  assert reason in _reasons(spoiled, probability, known)


@pytest.mark.parametrize('name', ['page', 'noise', 'black'])
def test_what_is_no_lesion_is_unlike_the_training_images(calibration, name):
  image, probability = lesion(2000)
  spoiled = study.SPOILERS[name](image)
  assert review.UNLIKE in _reasons(spoiled, probability, calibration)
  assert review.UNLIKE not in _reasons(spoiled, probability)


def test_a_picture_with_unusual_features_is_unlike(calibration):
  image, probability = lesion(0)
  known, far = np.zeros(24), np.full(24, 3.0)
  assert review.UNLIKE not in _reasons(image, probability, calibration)
  for features, unlike in ((known, False), (far, True)):
    found = _reasons(image, probability, calibration, features=features)
    assert (review.UNLIKE in found) == unlike
    # Without a calibration nothing is known.
    found = _reasons(image, probability, features=features)
    assert review.UNLIKE not in found


def _mask(*pieces, shape=(450, 600)):
  mask = np.zeros(shape, bool)
  for top, left, side in pieces:
    mask[top : top + side, left : left + side] = True
  return mask


@pytest.mark.parametrize(
  ('mask', 'reasons'),
  [
    (_mask(), [review.NOTHING]),
    (_mask((100, 100, 200)), ['']),
    (_mask((0, 100, 100)), [review.BORDER]),
    (_mask((350, 100, 100)), [review.BORDER]),
    (_mask((100, 0, 100)), [review.BORDER]),
    (_mask((100, 500, 100)), [review.BORDER]),
    (_mask((50, 50, 100), (300, 300, 100)), [review.SEVERAL]),
    # 900 pixels are less than a twentieth of 40,900.
    (_mask((50, 50, 200), (350, 350, 30)), ['']),
    (_mask((0, 50, 100), (300, 300, 99)), [review.BORDER, review.SEVERAL]),
    (
      _mask((500, 500, 900), (2000, 2000, 900), shape=(3000, 4000)),
      [review.SEVERAL],
    ),
  ],
)
def test_reasons_that_the_mask_gives(mask, reasons):
  assert _reasons(*lesion(0), mask=mask) == reasons
