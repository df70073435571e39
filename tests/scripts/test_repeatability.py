"""Tables of the study of repeated pictures, with values worked out by hand."""

import pytest
import repeatability as study

from skinseg_jax.following import changes


def _row(lesion, side, area, red=None, kind=study.REPEATED, status=''):
  row = dict.fromkeys(study._COLUMNS, '')
  row |= {'kind': kind, 'lesion': lesion, 'side': side}
  return row | {
    'area': area,
    'red_green': red or '',
    'status': status or 'registered',
  }


def test_limits_by_hand():
  rows = [
    _row('a', 'train', '1.1', '-2'),
    _row('b', 'train', '0.5', '1'),
    _row('b', 'train', '', status='not registered'),
    _row('c', 'validation', '2.0'),
    _row('d', 'both', '1.5'),
    _row('e', '', '9', kind=study.DIFFERENT),
  ]
  area, red = study.limits(rows)
  assert (area['measure'], red['measure']) == ('area', 'red_green')
  # ln 1.1 = .0953 and ln 2 = .6931; .95 of the way is .6632 = ln 1.941.
  assert area['limit'] == pytest.approx(1.941, abs=1e-3)
  # Half of the way: the geometric mean of 1.1 and 2.
  assert area['median'] == pytest.approx((1.1 * 2) ** 0.5)
  assert (area['lesions'], area['pairs']) == (2, 2)
  assert area['low'] == pytest.approx(1.1)  # A draw may hold a alone,
  assert area['high'] == pytest.approx(2.0)  # or b alone.
  # Of 2 and 1.5, only 2 is above.
  assert (area['others'], area['others_beyond']) == (2, 0.5)
  assert red['limit'] == pytest.approx(1.95)
  assert (red['others'], red['others_beyond']) == (0, '')
  assert {what.name for what in changes.MEASURES} <= set(study._COLUMNS)


def test_registered_pairs_are_counted():
  rows = [
    _row('a', 'train', '1.1'),
    _row('b', 'train', '', status='not registered'),
    _row('b', 'train', '1.0'),
    _row('e', '', '', kind=study.DIFFERENT, status='not registered'),
  ]
  repeated, different = study.registered(rows)
  assert (repeated['pairs'], repeated['registered']) == (3, 2)
  assert repeated['share'] == pytest.approx(2 / 3)
  assert (different['pairs'], different['share']) == (1, 0)
