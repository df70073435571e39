"""The table of followed lesions: one row for each picture."""

from collections.abc import Iterator, Sequence

from skinseg_jax.following import changes, course, series
from skinseg_jax.runtime import spreadsheets

COLUMNS = (
  'lesion', 'number', 'date', 'file', 'status', 'problem', 'poor_reference',
  'needs_review', 'order', 'scale', 'degrees', 'points', 'unit', 'pixel_mm',
  *(
    f'{what.name}{ending}'
    for what in changes.MEASURES
    for ending in ('', '_low', '_high', '_change', '_beyond')
  ),
)  # fmt: skip


def rows(
  one: series.Series, visits: Sequence[course.Visit]
) -> Iterator[dict[str, str]]:
  """The rows of a lesion, by the names in `COLUMNS`; '' for no value."""
  compared = any(visit.status == course.REFERENCE for visit in visits)
  for number, visit in enumerate(visits, 1):
    order = 'before' if visit.earlier else 'after'
    if visit.status == course.REFERENCE or not compared:
      order = ''
    cells: dict[str, object] = {
      'lesion': one.lesion,
      'number': number,
      'date': visit.entry.date,
      'file': visit.entry.path.absolute(),
      'status': visit.status,
      'problem': visit.problem,
      'poor_reference': visit.poor,
      'needs_review': visit.reasons,
      'order': order,
      'scale': visit.scale,
      'degrees': visit.degrees,
      'points': visit.points,
      'unit': visit.unit,
      'pixel_mm': visit.spacing,
    }
    for name, value in visit.values.items():
      cells |= {
        name: value.value,
        f'{name}_low': value.low,
        f'{name}_high': value.high,
      }
    for name, change in visit.changed.items():
      cells[f'{name}_change'] = change.amount
      cells[f'{name}_beyond'] = int(change.beyond)
    yield {name: _cell(cells.get(name)) for name in COLUMNS}


def _cell(value: object) -> str:
  if value is None:
    return ''
  if isinstance(value, float):
    return f'{value:.6g}'
  return spreadsheets.guard(str(value))
