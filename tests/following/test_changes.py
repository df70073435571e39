"""Changes of measures: ratios, differences and their limits."""

import math

from skinseg_jax.following import changes

_BY_NAME = {what.name: what for what in changes.MEASURES}


def test_a_view_without_a_lesion_is_a_change():
  area = _BY_NAME['area']
  assert changes.compare(area, 50.0, 0.0) == (0.0, True)
  assert changes.compare(area, 50.0, None) is None


def test_ratios_count_in_both_directions():
  diameter = _BY_NAME['diameter']
  beyond = math.nextafter(diameter.limit, math.inf) + 1e-6
  for ratio, expected in ((beyond, True), (1 / beyond, True), (1.0, False)):
    assert changes.compare(diameter, 100.0, 100.0 * ratio).beyond == expected


def test_differences_have_a_sign():
  red = _BY_NAME['red_green']
  fall = changes.compare(red, 5.0, 5.0 - 2 * red.limit)
  assert math.isclose(fall.amount, -2 * red.limit)
  assert fall.beyond
