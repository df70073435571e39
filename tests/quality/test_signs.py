"""Signs of predictions that were made up: values worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from skinseg_jax.quality import signs


def _describe(probability, image=None, threshold=0.5):
  if image is None:
    image = np.full((*probability.shape, 3), 128, np.uint8)
  return signs.describe(image, probability.astype(np.float32), threshold)


def _square(size=40, height=96, width=96, value=1.0):
  p = np.zeros((height, width))
  p[20 : 20 + size, 30 : 30 + size] = value
  return p


def test_a_certain_square():
  found = _describe(_square())
  assert set(found) == set(signs.NAMES)
  assert all(map(math.isfinite, found.values()))
  assert found['border_entropy'] == 0
  assert found['border_width'] == 0
  assert found['edge_share'] == 0
  assert found['pieces'] == 0  # log 1
  assert found['largest'] == 1
  assert found['inside'] == found['highest'] == 1
  assert found['area'] == pytest.approx(math.log(1600.5 / 96**2))
  # 160 changes of row or column, beside the 160 pixels of a square's outline.
  assert found['outline'] == pytest.approx(math.log(161 / 160))


def test_soft_dice_is_that_of_the_probabilities():
  p = _square(value=0.8)
  # 2 * 1280 / (1280 + 1600), up to the half pixels that keep it finite.
  soft = stats.logistic.cdf(_describe(p)['soft_dice'])
  assert soft == pytest.approx(2560 / 2880, abs=1e-3)
  # min(p, 1 - p) is .2 everywhere inside.
  assert _describe(p)['doubt'] == pytest.approx(math.log(0.2), abs=1e-2)


def test_doubt_lowers_the_soft_dice_and_agreement():
  sure = _describe(_square(value=0.99))
  unsure = _describe(_square(value=0.6))
  assert unsure['soft_dice'] < sure['soft_dice']
  assert unsure['agreement'] < 0.01 < 0.99 < sure['agreement']
  assert unsure['border_entropy'] > sure['border_entropy']


def test_pieces_and_contact_with_the_edge():
  p = _square(size=10)
  p[60:80, 76:96] = 1  # 400 pixels, 20 of the 384 at the edge.
  found = _describe(p)
  assert found['pieces'] == pytest.approx(math.log(2))
  assert found['largest'] == pytest.approx(400 / 500)
  assert found['edge_share'] == pytest.approx(20 / 384)


@pytest.mark.parametrize('value', [0.0, 1.0])
def test_an_empty_and_a_full_mask_have_finite_signs(value):
  found = _describe(np.full((96, 96), value))
  assert all(map(math.isfinite, found.values()))


def test_the_size_of_the_network_matters_little():
  y, x = np.mgrid[:384, :384]
  p = 1 / (1 + np.exp((np.hypot(y - 180, x - 200) - 90) / 12))
  image = (230 - 120 * p[..., None] * [0.5, 0.8, 1]).astype(np.uint8)
  large = _describe(p, image)
  small = _describe(
    p.reshape(96, 4, 96, 4).mean(axis=(1, 3)), image[1::4, 1::4]
  )
  for name in ('soft_dice', 'doubt', 'border_width', 'area', 'red', 'contrast'):
    assert large[name] == pytest.approx(small[name], rel=0.05), name


def test_blur_removes_detail():
  from scipy import ndimage

  rng = np.random.default_rng(0)
  grain = rng.normal(0, 8, (96, 96, 1)) + 150 - 60 * _square()[..., None]
  sharp = grain.clip(0, 255).repeat(3, axis=2)
  soft = ndimage.gaussian_filter(sharp, (2, 2, 0))
  details = [
    _describe(np.zeros((96, 96)), image.astype(np.uint8))['detail']
    for image in (soft, sharp)
  ]
  assert details[0] < details[1] - 1


def test_entropy_is_that_of_a_coin():
  p = np.array([0, 0.1, 0.5, 0.75, 1], np.float32)
  expected = [stats.entropy([q, 1 - q], base=2) for q in p.astype(float)]
  np.testing.assert_allclose(signs.entropy(p), expected, atol=1e-6)
