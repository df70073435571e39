"""Scale, turn and growth of drawn lesions are found; the rest is refused."""

import drawn_shapes as drawn
import numpy as np
import pytest

pytest.importorskip('cv2', reason="needs the extra 'classical'")

from skinseg_jax.following import changes, registration
from skinseg_jax.measures import lesion


@pytest.fixture(scope='module')
def texture():
  return drawn.texture()


@pytest.fixture(scope='module')
def first(texture):
  return drawn.lesion(texture)


def _diameter(mask, step):
  return lesion.measure(
    np.zeros((*mask.shape, 3), np.uint8), mask, (step, step)
  ).largest_diameter_mm


@pytest.mark.parametrize(
  ('scale', 'degrees', 'growth'),
  [(1.0, 0.0, 1.0), (1.5, -25.0, 1.3), (0.75, 170.0, 0.85), (1.0, 90.0, 1.15)],
)
def test_a_known_pair_is_recovered(texture, first, scale, degrees, growth):
  image, mask = drawn.lesion(
    texture, scale=scale, degrees=degrees, growth=growth, shift=(6, -9)
  )
  found = registration.register(
    registration.find_points(*first), registration.find_points(image, mask)
  )
  assert found.scale == pytest.approx(scale, rel=0.01)
  turned = (found.degrees - degrees + 180) % 360 - 180
  assert turned == pytest.approx(0, abs=1)
  # In pixels of the first picture, where one axis is AXES long.
  grown = _diameter(mask, found.scale) / _diameter(first[1], 1.0)
  assert grown == pytest.approx(growth, rel=0.02)
  area = mask.sum() * found.scale**2 / first[1].sum()
  assert area == pytest.approx(growth**2, rel=0.02)
  # The lesion lies on its own place, larger by its growth.
  size = first[1].shape
  on_first = registration.aligned(mask, found, size)
  _, expected = drawn.lesion(texture, growth=growth)
  assert (on_first ^ expected).sum() < 0.04 * expected.sum()
  picture = registration.aligned(image, found, size)
  assert (picture.dtype, picture.shape) == (np.uint8, first[0].shape)


def test_other_skin_is_refused(first):
  points = registration.find_points(*first)
  assert len(points.places) > 100
  other = registration.find_points(*drawn.lesion(drawn.texture(seed=1)))
  with pytest.raises(registration.RefusedError, match='points of the skin'):
    registration.register(points, other)


def test_skin_without_a_point_is_refused(first):
  image = np.full((50, 60, 3), 200, np.uint8)
  empty = registration.find_points(image, np.zeros((50, 60), bool))
  assert len(empty.places) == 0
  with pytest.raises(registration.RefusedError, match='^0 points'):
    registration.register(registration.find_points(*first), empty)


def test_points_lie_on_skin_alone(texture):
  image, mask = drawn.lesion(texture)
  image[:, :60] = np.random.default_rng(0).integers(0, 30, (240, 60, 3))
  column, row = registration.find_points(image, mask).places.round().T
  assert not mask[row.astype(int), column.astype(int)].any()
  assert column.min() > 60


def _points(places, seed=0):
  rng = np.random.default_rng(seed)
  descriptors = rng.uniform(0, 255, (len(places), 128)).astype(np.float32)
  return registration.Points(np.float32(places), descriptors, 600)


def test_a_scale_out_of_range_is_refused():
  places = np.random.default_rng(1).uniform(0, 600, (30, 2))
  with pytest.raises(registration.RefusedError, match='scale is 5.00, and'):
    registration.register(_points(places), _points(places / 5))


def test_a_scale_from_points_in_one_spot_is_refused():
  rng = np.random.default_rng(1)
  places = 300 + rng.uniform(0, 20, (12, 2))
  moved = _points(places + rng.normal(0, 1, (12, 2)))
  with pytest.raises(registration.RefusedError, match='uncertain by'):
    registration.register(_points(places), moved)
  exact = registration.register(_points(places), _points(places + 9))
  assert exact.scale == pytest.approx(1, abs=1e-4)
  assert exact.points == 12


def _measure(name, unit, limit):
  return changes.Measure(name, name, lambda _: None, unit, limit)


def test_limits_by_hand():
  area = _measure('area', 'area', 1.5)
  assert changes.compare(area, 100.0, 140.0) == (1.4, False)
  assert changes.compare(area, 100.0, 160.0) == (1.6, True)
  assert changes.compare(area, 160.0, 100.0) == (0.625, True)  # 1 / 1.6.
  assert changes.compare(area, None, 160.0) is None
  red = _measure('red_green', 'a*', 5.0)
  assert changes.compare(red, 3.0, -1.0) == (-4.0, False)
  assert changes.compare(red, 3.0, -2.5) == (-5.5, True)
