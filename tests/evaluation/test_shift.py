"""Profiles of two collections, and the text about their differences."""

import numpy as np
import pytest

from skinseg_jax.data import cache
from skinseg_jax.evaluation import shift


class _Source:
  def __init__(self, masks):
    self._masks = masks

  def __getitem__(self, index):
    return {'mask': self._masks[index]}


def _profile(images, masks, own_masks, indices):
  data = cache.CachedData(np.array(images), np.array(masks), [], '')
  return shift.profile(_Source(own_masks), data, indices)


def _two():
  """Two images of 2 x 2, half and a quarter lesion; original sizes differ."""
  first = np.full((2, 2, 3), (10, 20, 30), np.uint8)
  second = np.full((2, 2, 3), (10, 40, 30), np.uint8)
  second[0, 0] = (50, 40, 30)
  masks = [np.uint8([[1, 1], [0, 0]]), np.uint8([[1, 0], [0, 0]])]
  own = [np.zeros((45, 60)), np.zeros((45, 60)), np.zeros((30, 40))]
  return [first, second], masks, own


def test_profile_by_hand():
  images, masks, own = _two()
  found = _profile(images, masks, own, [0, 1])
  # Red: seven pixels of 10 and one of 50, so mean 15 and mean square 400.
  red = found['colour']['red']
  assert red['mean'] == 15
  assert red['sd'] == pytest.approx((400 - 15**2) ** 0.5)
  assert red['sd_of_means'] == 5  # Means 10 and 20.
  assert found['colour']['green']['mean'] == 30
  assert found['colour']['blue'] == {'mean': 30, 'sd': 0, 'sd_of_means': 0}
  assert found['image_sizes'] == {'60 x 45': 2}
  assert found['lesion_area']['mean'] == 0.375
  assert found['lesion_area']['quantiles']['0.5'] == 0.375
  assert found['images'] == 2


def test_only_the_chosen_images_count():
  images, masks, own = _two()
  found = _profile(images, masks, own, [1])
  assert found['images'] == 1
  assert found['colour']['red']['mean'] == 20
  assert found['lesion_area']['mean'] == 0.25


def test_at_most_500_evenly_spread():
  number = 1201
  images = np.zeros((number, 1, 1, 3), np.uint8)
  images[600:] = 200
  masks = np.zeros((number, 1, 1), np.uint8)
  found = _profile(images, masks, [np.zeros((1, 1))] * number, range(number))
  assert found['images'] == 500
  assert found['colour']['red']['mean'] == pytest.approx(100, abs=1)


def test_same_collection_has_no_notes():
  images, masks, own = _two()
  found = _profile(images, masks, own, [0, 1])
  assert shift.notes(found, found) == []


def test_differences_are_named():
  images, masks, own = _two()
  training = _profile(images, masks, own, [0, 1])
  redder = [np.minimum(image + np.uint8([60, 0, 0]), 255) for image in images]
  all_lesion = [np.ones((2, 2), np.uint8)] * 2
  here = _profile(redder, all_lesion, [np.zeros((30, 40))] * 2, [0, 1])
  colour, size, area = shift.notes(training, here)
  # 60 is twelve times the standard deviation of the means, 5.
  assert 'red is 60 of 255 higher' in colour
  assert '12.0 standard deviations' in colour
  assert '40 x 30 here and 60 x 45 in training' in size
  assert '100.0%' in area
  assert '37.5%' in area
