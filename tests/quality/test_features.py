"""Distance of features from those of known pictures, against scikit-learn."""

import numpy as np
import pytest
from sklearn import decomposition

from skinseg_jax.quality import features


def made_up(number, channels=40, seed=0):
  """Features with much variance in few directions."""
  rng = np.random.default_rng(seed)
  mixing = np.random.default_rng(9).normal(size=(6, channels))
  hidden = rng.normal(size=(number, 6)) * [9, 7, 5, 4, 3, 2]
  return hidden @ mixing + rng.normal(size=(number, channels)) + 3


def test_the_distance_is_that_of_probabilistic_components():
  known, new = made_up(2000), made_up(50, seed=1)
  found = features.learn(known, 0.01).distances(new)
  other = decomposition.PCA(16).fit(known)
  away = new - known.mean(axis=0)
  precision = other.get_precision()
  expected = np.sqrt(np.einsum('ni,ij,nj->n', away, precision, away))
  np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_as_many_new_pictures_are_far_as_was_asked():
  known = features.learn(made_up(2000), 0.05)
  far = known.distances(made_up(4000, seed=1)) > known.far
  assert far.mean() == pytest.approx(0.05, abs=0.015)


def test_what_differs_in_an_unusual_direction_is_far():
  known = features.learn(made_up(500), 0.01)
  usual = made_up(1, seed=2)
  assert known.distances(usual)[0] < known.far
  # As far from the mean as usual pictures, but where those do not differ.
  length = np.linalg.norm(usual - known.mean)
  outside = np.random.default_rng(3).normal(size=40)
  outside -= known.components.T @ (known.components @ outside)
  outside *= length / np.linalg.norm(outside)
  assert known.distances(known.mean[None] + outside)[0] > 2 * known.far


def test_few_pictures_tell_nothing():
  assert features.learn(made_up(319), 0.01) is None


@pytest.mark.parametrize('channels', [1, 3, 600])
def test_few_channels_and_dead_ones_are_no_problem(channels):
  values = made_up(320, channels=channels)
  values[:, 0] = 2.0  # Never differs.
  known = features.learn(values, 0.01)
  assert np.isfinite(known.far)
  assert np.isfinite(known.distances(values)).all()
  values[0, 0] = 1000.0
  assert known.distances(values[:1])[0] > known.far
