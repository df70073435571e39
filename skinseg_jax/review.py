"""Expert review: a page to judge true masks on, and the file it saves."""

import collections
import csv
import pathlib

import numpy as np

from skinseg_jax import (
  errors,
  evaluation_files,
  overlays,
  pages,
  spreadsheets,
)
from skinseg_jax.data import cache

COLUMNS = ('image_id', 'decision', 'comment')

# 'accept': the true mask is good; 'correct': it should be mended; 'reject': it
# is wrong, or the image is unfit.
DECISIONS = ('accept', 'correct', 'reject')

# Images of each kind on the page.
_CASES = 20


def write_review(
  workdir: pathlib.Path, data: cache.CachedData, name: str = 'validation'
) -> pathlib.Path:
  """Writes `review.html`: the 20 worst images and 20 drawn from the others.

  Args:
    workdir: Folder of a run.
    data: The images and masks that were scored, and maybe others.
    name: Which of its evaluations.

  Returns:
    Path of the page, which needs no other file and no network.

  Raises:
    InputError: If the evaluation is not whole.
  """
  evaluation = evaluation_files.read(workdir, name)
  places = {image_id: i for i, image_id in enumerate(data.image_ids)}
  cases = [
    _case(evaluation, data, index, places[evaluation.image_ids[index]], kind)
    for index, kind in _choose(evaluation)
  ]
  path = evaluation.home / 'review.html'
  pages.write(
    path,
    'review.html',
    run=workdir.resolve().name,
    name=name,
    cases=cases,
    total=len(evaluation.rows),
    tints=overlays.TINTS,
    file=f'review_{name}.csv',
    # Decisions on true masks hold for every checkpoint on the same data.
    key=f'{evaluation.summary["data"]["fingerprint"]} {name}',
  )
  return path


def _choose(evaluation) -> list[tuple[int, str]]:
  """Indices and why they are shown, the worst first."""
  ranked = evaluation.ranked()
  worst, others = ranked[:_CASES], sorted(ranked[_CASES:])
  rng = np.random.default_rng(0)
  drawn = rng.permutation(others)[:_CASES].tolist()
  return [(i, f'{n}. worst by IoU') for n, i in enumerate(worst, 1)] + [
    (i, 'drawn at random') for i in drawn
  ]


def _case(evaluation, data, index, place, kind) -> dict[str, object]:
  image, truth = data.images[place], data.masks[place]
  predicted = evaluation.prediction(index)
  row = evaluation.rows[index]
  white, black = overlays.TRUE_OUTLINE, overlays.PREDICTED_OUTLINE
  panels = {
    'image': overlays.plain(image),
    _label('truth', truth): overlays.outlined(image, truth, white),
    _label('prediction', predicted): overlays.outlined(image, predicted, black),
    'errors': overlays.error_map(image, truth, predicted),
  }
  return {
    'image_id': row['image_id'],
    'kind': f'{kind}; Dice {pages.percent(float(row["dice"]), 1)}',
    'caption': ', '.join(filter(None, [row['image_id'], row.get('dx', '')])),
    'panels': {
      label: pages.data_uri(overlays.to_jpeg(picture), 'jpeg')
      for label, picture in panels.items()
    },
  }


def _label(what: str, mask: np.ndarray) -> str:
  return what if mask.any() else f'{what}: no lesion'


def read_review(path: pathlib.Path) -> list[dict[str, str]]:
  """Reads what the page saved, or a csv of that kind.

  Args:
    path: csv with the columns `image_id`, `decision` and `comment`.

  Returns:
    A row an image, in the file's order, with these columns; `decision` is one
    of `DECISIONS`.

  Raises:
    InputError: If it cannot be read or does not fit, naming all that is wrong.
  """
  try:
    # Spreadsheets put a byte-order mark in front.
    with path.open(encoding='utf-8-sig', newline='') as file:
      reader = csv.DictReader(file, strict=True)
      found, rows = reader.fieldnames or [], list(reader)
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise errors.InputError(
      f'the review {path} cannot be read ({error}); give the csv that'
      ' review.html saved.'
    ) from error
  problems = _column_problems(found) or _row_problems(rows)
  if problems:
    raise errors.InputError(
      f'the review {path} does not fit:\n'
      + errors.listing(problems)
      + f'\nIt needs the columns {",".join(COLUMNS)}, every image once, and as'
      f' a decision {", ".join(DECISIONS[:-1])} or {DECISIONS[-1]}.'
    )
  # The page guards its cells as `spreadsheets.guard` does.
  bare = spreadsheets.bare
  return [{name: bare(row[name]) for name in COLUMNS} for row in rows]


def _column_problems(found: list[str]) -> list[str]:
  return [f'no column {name!r}' for name in COLUMNS if name not in found] + [
    f'unknown or doubled column {name!r}'
    for i, name in enumerate(found)
    if name not in COLUMNS or name in found[:i]
  ]


def _row_problems(rows: list[dict]) -> list[str]:
  problems = []
  for number, row in enumerate(rows, 1):
    if None in row or None in row.values():
      problems.append(f'row {number} has not {len(COLUMNS)} cells')
    elif not row['image_id']:
      problems.append(f'row {number} has no image_id')
    elif row['decision'] not in DECISIONS:
      problems.append(
        f'{row["image_id"]}: unknown decision {row["decision"]!r}'
      )
  times = collections.Counter(row['image_id'] for row in rows)
  return problems + [
    f'{image_id}: {count} rows'
    for image_id, count in times.items()
    if image_id and count > 1
  ]
