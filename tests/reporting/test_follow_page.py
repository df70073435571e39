"""What the page of a followed lesion says and draws of its changes."""

import datetime
import pathlib

import numpy as np
import pytest
from matplotlib import collections

from skinseg_jax.following import changes, course, series
from skinseg_jax.reporting import figures, follow_page

_NAMES = [what.name for what in changes.MEASURES]


def _visit(day, area, ends=(None, None), *, reference=False, earlier=False):
  """A picture with this area; all other measures are 1."""
  values = {name: changes.Value(1.0, 1.0, 1.0) for name in _NAMES}
  values['area'] = changes.Value(area, *ends)
  return course.Visit(
    series.Entry(pathlib.Path(f'{day}.png'), datetime.datetime(2024, 1, day)),
    course.REFERENCE if reference else course.REGISTERED,
    earlier=earlier,
    scale=1.0,
    degrees=0.0,
    points=10,
    unit='px',
    values=values,
    picture=np.full((40, 60, 3), 200, np.uint8),
    mask=np.zeros((40, 60), bool),
  )


def _written(path, visits, monkeypatch):
  """The page of these pictures, and its charts by title."""
  base = next(visit for visit in visits if visit.status == course.REFERENCE)
  for visit in visits:
    if visit is not base:
      for what in changes.MEASURES:
        own, others = (v.values[what.name].value for v in (visit, base))
        visit.changed[what.name] = visit.change(what, others, own)
  charts, to_png = {}, figures.to_png

  def kept(chart):
    charts[chart.axes[0].get_title()] = chart
    return to_png(chart)

  monkeypatch.setattr(figures, 'to_png', kept)
  one = series.Series('arm', [visit.entry for visit in visits])
  follow_page.write(path, one, visits, '')
  return path.read_text(), charts


_AGREE = 'The views do not agree'
_UNKNOWN = 'Whether the views agree on this change is not known'


@pytest.mark.parametrize(
  ('ends', 'said'),
  [
    ((190.0, 210.0), ''),
    ((110.0, 210.0), _AGREE),  # × 1.1 is within the limit.
    ((0.0, 210.0), _AGREE),  # To both sides.
    ((20.0, 30.0), _AGREE),  # Both ends mean that it shrank.
    ((None, None), _UNKNOWN),
  ],
)
@pytest.mark.parametrize('earlier', [False, True])
def test_whether_the_views_agree_has_three_answers(
  tmp_path, monkeypatch, ends, said, earlier
):
  visits = [_visit(2, 100.0, (99.0, 101.0), reference=True)]
  other = _visit(1 if earlier else 3, 200.0, ends, earlier=earlier)
  visits.insert(0 if earlier else 1, other)
  page, _ = _written(tmp_path / 'arm.html', visits, monkeypatch)
  assert [s for s in (_AGREE, _UNKNOWN) if s in page] == (
    [said] if said else []
  )


@pytest.mark.parametrize(
  ('ends', 'said'),
  [
    ((60.0, 190.0), _AGREE),  # × 1.05 from the upper end.
    ((None, None), _UNKNOWN),
    ((90.0, 110.0), ''),
  ],
)
def test_the_views_of_the_reference_count(tmp_path, monkeypatch, ends, said):
  visits = [
    _visit(1, 100.0, ends, reference=True),
    _visit(2, 200.0, (199.0, 201.0)),
  ]
  page, _ = _written(tmp_path / 'arm.html', visits, monkeypatch)
  assert [s for s in (_AGREE, _UNKNOWN) if s in page] == (
    [said] if said else []
  )


def test_what_changed_is_said_in_words(tmp_path, monkeypatch):
  visits = [_visit(1, 100.0, reference=True), _visit(2, 70.0)]
  visits[0].values['lightness'] = changes.Value(-20.0, None, None)
  visits[1].values['lightness'] = changes.Value(-6.0, None, None)
  page, _ = _written(tmp_path / 'arm.html', visits, monkeypatch)
  assert 'Area: × 0.70 (30 % smaller) from' in page
  assert '95 % of repeated pictures stay within × 0.75 to × 1.33' in page
  assert '+14 (lighter beside its skin) from' in page


def test_a_bar_is_the_range_where_the_value_lies_outside(tmp_path, monkeypatch):
  visits = [
    _visit(1, 100.0, (90.0, 110.0), reference=True),
    _visit(2, 150.0, (40.0, 60.0)),
  ]
  _, charts = _written(tmp_path / 'arm.html', visits, monkeypatch)
  (bars,) = [
    found
    for found in charts['Area'].axes[0].collections
    if isinstance(found, collections.LineCollection)
  ]
  ends = [sorted(bar[:, 1].tolist()) for bar in bars.get_segments()]
  assert ends == [[90.0, 110.0], [40.0, 60.0]]


def test_changes_have_the_order_of_time(tmp_path, monkeypatch):
  visits = [
    _visit(1, 50.0, earlier=True),
    _visit(2, 100.0, reference=True),
    _visit(3, 200.0),
  ]
  page, _ = _written(tmp_path / 'arm.html', visits, monkeypatch)
  assert 'larger) from this picture to the reference' in page
  assert 'larger) from the reference to this picture' in page
  assert page.count('Area: × 2.00') == 2
  assert '1: 2024-01-01 (before the reference)' in page
  assert '3: 2024-01-03 (before' not in page


def test_a_range_that_is_not_known_is_not_drawn(tmp_path, monkeypatch):
  ends = (90.0, 110.0)
  visits = [
    _visit(1, 100.0, ends, reference=True),
    _visit(2, 100.0, ends),
    _visit(3, 100.0),
    _visit(4, 100.0),
  ]
  page, charts = _written(tmp_path / 'arm.html', visits, monkeypatch)
  axes = charts['Area'].axes[0]
  # The band of the views, and the bars of the points.
  band, bars = axes.collections[0], axes.collections[-1]
  first, second = (v.get_datalim(axes.transData) for v in (band, bars))
  days = np.diff(band.get_datalim(axes.transData).intervalx)
  assert days == pytest.approx(1)  # From the first to the second picture.
  assert first.intervaly.tolist() == second.intervaly.tolist() == list(ends)
  drawn = [bar for bar in bars.get_segments() if len(bar)]
  assert len(drawn) == 2
  assert 'its range is not known' in page
