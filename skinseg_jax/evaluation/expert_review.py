"""Reads an expert's decisions on true masks, saved from the review page."""

import collections
import csv
import pathlib
from collections.abc import Sequence

from skinseg_jax.runtime import errors, spreadsheets

COLUMNS = ('image_id', 'decision', 'comment')

# 'accept': the true mask is good; 'correct': it needs a correction; 'reject':
# it is wrong, or the image is unsuitable for scoring.
DECISIONS = ('accept', 'correct', 'reject')


def read_review(path: pathlib.Path) -> list[dict[str, str]]:
  """Reads the csv that the review page saves.

  Args:
    path: csv with the columns `image_id`, `decision` and `comment`.

  Returns:
    One row per image, in the file's order, with these columns; `decision` is
    one of `DECISIONS`.

  Raises:
    InputError: If the file cannot be read or is invalid; lists all problems.
  """
  try:
    # Spreadsheet programs may write a byte-order mark.
    with path.open(encoding='utf-8-sig', newline='') as file:
      reader = csv.DictReader(file, strict=True)
      found, rows = reader.fieldnames or [], list(reader)
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise errors.InputError(
      f'the review {path} cannot be read ({error}); give the csv saved from'
      ' review.html.'
    ) from error
  problems = _column_problems(found) or _row_problems(rows)
  if problems:
    raise errors.InputError(
      f'the review {path} is not valid:\n'
      + errors.listing(problems)
      + f'\nIt needs the columns {",".join(COLUMNS)}, each image at most once,'
      f' and as decision {", ".join(DECISIONS[:-1])} or {DECISIONS[-1]}.'
    )
  # The page escapes its cells in the same way as `spreadsheets.guard`.
  bare = spreadsheets.bare
  return [{name: bare(row[name]) for name in COLUMNS} for row in rows]


def _column_problems(found: Sequence[str]) -> list[str]:
  return [f'no column {name!r}' for name in COLUMNS if name not in found] + [
    f'unknown or repeated column {name!r}'
    for i, name in enumerate(found)
    if name not in COLUMNS or name in found[:i]
  ]


def _row_problems(rows: list[dict]) -> list[str]:
  problems = []
  for number, row in enumerate(rows, 1):
    if None in row or None in row.values():
      problems.append(f'row {number} does not have {len(COLUMNS)} cells')
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
