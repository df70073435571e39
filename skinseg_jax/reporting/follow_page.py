"""Writes the page of a lesion that was followed over time."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib import figure

from skinseg_jax.following import changes, course, series
from skinseg_jax.reporting import figures, overlays, pages

# Outlines: of the picture itself, and of the reference.
_OWN, _REFERENCE = (255, 255, 255), (0, 114, 178)
# Longer side of the pictures, in pixels.
_SIDE = 480
# Of a change: whether the views agree on it.
_AGREEMENT = {
  True: '',
  False: '. The views do not agree on this change',
  None: '. Whether the views agree on this change is not known, because a view'
  ' has no value',
}


def write(
  path: pathlib.Path,
  one: series.Series,
  visits: Sequence[course.Visit],
  other_model: str,
) -> None:
  """Writes a page that needs no other file and no network.

  Args:
    path: HTML file to write.
    one: The lesion.
    visits: What `course.follow` found.
    other_model: Name of the model, if it is not the one that the limits were
      measured with; otherwise ''.
  """
  reference = next((v for v in visits if v.status == course.REFERENCE), None)
  named = list(zip(_names(one, visits), visits, strict=True))
  pages.write(
    path,
    'follow.html',
    lesion=one.lesion,
    dated=one.dated,
    other_model=other_model,
    pairs=changes.PAIRS,
    reference=next((name for name, visit in named if visit is reference), ''),
    spacing=reference and reference.spacing and f'{reference.spacing:.3g} mm',
    stated=bool(reference and reference.stated),
    poor=reference.poor if reference else '',
    passed=[
      f'{name} ({visit.poor})'
      for name, visit in named
      if visit.poor and visit is not reference
    ],
    findings=[
      (_placed(name, visit), _findings(visit, reference), bool(visit.beyond))
      for name, visit in named
      if visit is not reference
    ],
    pictures=[
      (_placed(name, visit), _picture(visit, reference), _caption(visit))
      for name, visit in named
      if visit.picture is not None
    ],
    charts=[
      (what.label, pages.data_uri(figures.to_png(chart), 'png'))
      for what in changes.MEASURES
      if reference
      and (chart := _chart(what, one, visits, reference)) is not None
    ],
    measures=[(what.label, _limit(what)) for what in changes.MEASURES],
    rows=[
      (
        _placed(name, visit),
        _unit(visit),
        [_cell(what, visit) for what in changes.MEASURES],
      )
      for name, visit in named
    ],
  )


def _names(one: series.Series, visits: Sequence[course.Visit]) -> list[str]:
  return [
    f'{number}: {visit.entry.date or visit.entry.path.name}'
    for number, visit in enumerate(visits, 1)
  ]


def _placed(name: str, visit: course.Visit) -> str:
  """A name that says how the picture lies to the reference."""
  if visit.status == course.REFERENCE:
    return f'{name} (reference)'
  return f'{name} (before the reference)' if visit.earlier else name


def _findings(visit: course.Visit, reference: course.Visit | None) -> list[str]:
  """What changed, and what could not be compared."""
  found = []
  way = 'from the reference to this picture'
  if visit.earlier:
    way = 'from this picture to the reference'
  for what in visit.beyond:
    assert reference
    amount = visit.changed[what.name].amount
    found.append(
      f'{what.label}: {_amount(what, amount)} {way}. 95 % of repeated pictures'
      f' stay within {_limit(what)}' + _AGREEMENT[_sure(what, reference, visit)]
    )
  if visit.changed and not visit.beyond:
    which = 'none of the measures that can be compared'
    if len(visit.changed) == len(changes.MEASURES):
      which = 'no measure'
    found.append(f'{which} changed more than repeated pictures differ')
  if visit.status == course.ALONE:
    why, *more = visit.problem.split('; ')
    found += [f'not registered: {why}', *more]
    if visit.changed:
      found.append('lengths and areas cannot be compared')
    return found
  if visit.problem or not visit.values:
    found.append(visit.problem or visit.status)
  if visit.values and not all(
    what.name in visit.changed for what in changes.MEASURES if what.whole
  ):
    found.append(
      'the lesion leaves this picture or the reference, so size and shape'
      ' cannot be compared'
    )
  return found


def _sure(
  what: changes.Measure, reference: course.Visit, visit: course.Visit
) -> bool | None:
  """Whether the change is beyond the limit between all ends of both bands.

  None if an end is not known.
  """
  base, own = reference.values[what.name], visit.values[what.name]
  found = [
    visit.change(what, base.low, own.high),
    visit.change(what, base.high, own.low),
  ]
  known = [change for change in found if change]
  if len(known) < len(found):
    return None
  up = _is_up(what, visit.changed[what.name].amount)
  return all(
    change.beyond and _is_up(what, change.amount) == up for change in known
  )


def _is_up(what: changes.Measure, amount: float) -> bool:
  return amount > (1 if what.relative else 0)


def _amount(what: changes.Measure, amount: float) -> str:
  word = what.more if _is_up(what, amount) else what.less
  if what.relative:
    return f'× {amount:.2f} ({100 * abs(amount - 1):.0f} % {word})'
  return f'{amount:+.3g} ({word})'


def _limit(what: changes.Measure) -> str:
  if what.relative:
    return f'× {1 / what.limit:.2f} to × {what.limit:.2f}'
  return f'± {what.limit:.3g}'


def _unit(visit: course.Visit) -> str:
  return {
    'own px': 'pixels of its own',
    'px': 'pixels of the reference',
    'mm': f'mm and mm² (pixel: {visit.spacing or 0:.3g} mm)',
  }.get(visit.unit, visit.unit)


def _cell(what: changes.Measure, visit: course.Visit) -> tuple[str, str]:
  """The value, and its range."""
  value = visit.values.get(what.name)
  if value is None or value.value is None:
    return '–', ''
  digits = 3
  if what.relative:
    digits = 2 if visit.unit == 'mm' else 0
  elif what.unit:
    digits = 1
  shown = [f'{v:,.{digits}f}' for v in value if v is not None]
  return shown[0], ' to '.join(shown[1:])


def _caption(visit: course.Visit) -> str:
  parts = [visit.status, visit.problem, visit.reasons]
  if visit.status == course.REGISTERED:
    turn = round(visit.degrees or 0)
    way = 'clockwise' if turn > 0 else 'counterclockwise'
    parts[0] = (
      f'registered by {visit.points} points; 1 pixel of this picture is'
      f' {visit.scale:.2f} of the reference; '
      + (f'turned by {abs(turn)}° {way}' if turn else 'not turned')
    )
  return '; '.join(filter(None, parts))


def _picture(visit: course.Visit, reference: course.Visit | None) -> str:
  assert visit.picture is not None
  assert visit.mask is not None
  outlines = [(visit.mask.view(np.uint8), _OWN)]
  if (
    visit.status == course.REGISTERED
    and reference
    and reference.mask is not None
  ):
    outlines.insert(0, (reference.mask.view(np.uint8), _REFERENCE))
  drawn = overlays.with_outlines(visit.picture, outlines, _SIDE)
  return pages.data_uri(overlays.to_jpeg(drawn), 'jpeg')


def _chart(
  what: changes.Measure,
  one: series.Series,
  visits: Sequence[course.Visit],
  reference: course.Visit,
) -> figure.Figure | None:
  """The course of a measure; None for fewer than two values in one unit."""
  shown = [
    (number, visit, visit.values[what.name])
    for number, visit in enumerate(visits, 1)
    if visit.values
    and visit.values[what.name].value is not None
    and (visit.unit == reference.unit or not what.relative)
  ]
  base = reference.values[what.name].value
  if len(shown) < 2 or base is None:
    return None
  # An end of a band that is not known is NaN, and nothing is drawn.
  column = lambda i: np.array([v[i] for _, _, v in shown], float).tolist()
  unit = what.unit
  if what.relative:
    unit = {'px': 'px of reference'}.get(reference.unit, reference.unit)
    unit += '²' if what.unit == 'area' else ''
  return figures.course(
    column(0),
    column(1),
    column(2),
    where=[visit.entry.date if one.dated else n for n, visit, _ in shown],
    marks=[_mark(what, visit) for _, visit, _ in shown],
    usual=_usual(what, base),
    title=what.label,
    unit=unit,
  )


def _usual(what: changes.Measure, base: float) -> tuple[float, float]:
  if what.relative:
    return base / what.limit, base * what.limit
  low = base - what.limit
  # Only asymmetry has no unit; it is never below 0.
  return low if what.unit else max(0.0, low), base + what.limit


def _mark(what: changes.Measure, visit: course.Visit) -> str:
  if what in visit.beyond:
    return 'beyond'
  return 'cut' if what.whole and visit.cut else 'usual'
