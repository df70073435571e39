"""The table of a folder of predictions, written row by row.

`predictions.csv` has one row per image. A row is written after the files of its
image, so a run that was killed finds in it what is left to do. With several
processes, each writes a part; the parts are joined at the end.

Where pyarrow is installed, `predictions.parquet` has the same rows with types,
for programs. It is written from the finished `predictions.csv`.

`predictions.json` says how the predictions were made: a folder holds those of
one model with one choice of flags.
"""

import csv
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from skinseg_jax.inference import image_columns
from skinseg_jax.inference import outputs as outputs_lib
from skinseg_jax.runtime import errors, parquet, spreadsheets

NAME = 'predictions.csv'
SETTINGS = 'predictions.json'
PARQUET = 'predictions.parquet'
PREDICTED, SKIPPED = 'predicted', 'skipped'
# Of every table; some have more behind them.
COLUMNS = (
  'image_id', 'file', 'status', 'problem', 'pictures', 'height', 'width',
  *image_columns.NAMES,
)  # fmt: skip
# In a typed table. All other columns are numbers that need not be whole.
_TEXT = frozenset({
  'image_id', 'file', 'status', 'problem', 'reasons', 'ita_reason'
})  # fmt: skip
_WHOLE = frozenset({
  'pictures', 'height', 'width', 'lesion_pixels', 'needs_review', 'pieces',
  'touches_border', 'area_px', image_columns.VIEWS,
})  # fmt: skip


class Summary(NamedTuple):
  """What the table holds: numbers of images, and what was wrong with some."""

  predicted: int
  skipped: int
  problems: errors.Few
  several: errors.Few


class Done:
  """The images that earlier runs finished; 16 bytes each are kept.

  Two images count as one if 64-bit hashes of their names agree, which for a
  million images has a probability of 3e-8.

  Attributes:
    found: Whether the folder holds predictions of earlier runs.
  """

  def __init__(self, outputs: outputs_lib.Outputs, *, overwrite: bool = False):
    """Reads the table.

    Args:
      outputs: Folders of the predictions. A row counts only if all files of
        its image are there and complete.
      overwrite: Whether to take none for done.

    Raises:
      InputError: If the table cannot be read.
    """
    folder = outputs.masks
    self.found = (folder / SETTINGS).is_file() and not overwrite
    names, images = [], []
    for path in _tables(folder) if self.found else ():
      for row in _rows(path):
        if row['status'] == PREDICTED and outputs.complete(row['image_id']):
          names.append(hash(row['image_id']))
          images.append(_hash(row['image_id'], row['file']))
    self._names = np.unique(np.array(names, np.int64))
    self._images = np.unique(np.array(images, np.int64))
    self._taken = np.zeros(len(self._images), bool)

  def __len__(self) -> int:
    return len(self._images)

  def __contains__(self, image: tuple[str, str]) -> bool:
    return _find(self._images, _hash(*image)) is not None

  def other_file(self, image_id: str, file: str) -> bool:
    """Whether the image of that name is done, but was another file."""
    there = _find(self._names, hash(image_id)) is not None
    return there and (image_id, file) not in self

  def take(self, row: Mapping[str, str]) -> bool:
    """Whether the row of a finished image is asked for the first time."""
    place = _find(self._images, _hash(row['image_id'], row['file']))
    if row['status'] != PREDICTED or place is None or self._taken[place]:
      return False
    self._taken[place] = True
    return True


def _hash(image_id: str, file: str) -> int:
  return hash(f'{image_id}\0{file}')


def _find(hashes: np.ndarray, value: int) -> int | None:
  place = int(np.searchsorted(hashes, value))
  return place if place < len(hashes) and hashes[place] == value else None


def start(folder: pathlib.Path, settings: Mapping[str, Any], done: Done):
  """Leaves the rows that are done, and states how predictions are made.

  Args:
    folder: Folder of the predictions, made if missing.
    settings: What predictions depend on; JSON can hold it. `columns` are those
      of the table, beginning with `COLUMNS`.
    done: The images that are finished.

  Raises:
    InputError: If the folder holds predictions with other settings.
  """
  folder.mkdir(parents=True, exist_ok=True)
  if done.found:
    _check_same(folder, settings)
  else:
    for path in _tables(folder):
      path.unlink()
  (folder / PARQUET).unlink(missing_ok=True)  # It has only finished tables.
  _gather(folder, settings['columns'], done.take)
  temporary = folder / f'{SETTINGS}.tmp'
  temporary.write_text(json.dumps(settings, indent=2) + '\n', encoding='utf-8')
  temporary.replace(folder / SETTINGS)


def _check_same(folder: pathlib.Path, settings: Mapping[str, Any]) -> None:
  path = folder / SETTINGS
  try:
    before = dict(json.loads(path.read_text(encoding='utf-8')))
  except (OSError, ValueError, TypeError) as error:
    raise errors.InputError(
      f'{path} cannot be read ({error}); choose another --output, or give'
      ' --overwrite to predict everything again.'
    ) from error
  now = json.loads(json.dumps(settings))
  names = {*before, *now}
  differing = {name for name in names if before.get(name) != now.get(name)}
  if differing:
    # A flag explains other columns in fewer words. After an update they can be
    # the only difference.
    differences = [
      f'{name}: {before.get(name)} there, {now.get(name)} now'
      for name in sorted(differing - {'columns'})
    ]
    raise errors.InputError(
      f'{folder} holds predictions that were made differently; choose another'
      ' --output, or give --overwrite to predict everything again:\n'
      + errors.listing(differences or ['columns of the table'])
    )


class Writer:
  """Adds rows to the table, or to the part of one of several processes."""

  def __init__(
    self, folder: pathlib.Path, process: int, columns: Sequence[str]
  ):
    self._columns = columns
    path = folder / (f'predictions.part{process}.csv' if process else NAME)
    is_new = not path.exists()
    self._file = path.open(
      'a', encoding='utf-8', errors='surrogateescape', newline=''
    )
    self._writer = csv.writer(self._file, lineterminator='\n')
    if is_new:
      self._writer.writerow(columns)

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *_) -> None:
    self._file.close()

  def add(self, row: Mapping[str, Any]) -> None:
    """Writes a row to the disk; columns that it lacks stay empty."""
    cells = [str(row.get(name, '')) for name in self._columns]
    self._writer.writerow([spreadsheets.guard(cell) for cell in cells])
    self._file.flush()


def join(folder: pathlib.Path, columns: Sequence[str]) -> None:
  """Puts the parts of all processes into the table, and types it."""
  if len(_tables(folder)) > 1:
    _gather(folder, columns, lambda row: True)
  if parquet.installed():
    types = {
      name: str if name in _TEXT else int if name in _WHOLE else float
      for name in columns
    }
    parquet.write(folder / PARQUET, _rows(folder / NAME, columns), types)


def summary(folder: pathlib.Path) -> Summary:
  """Counts the rows of the table."""
  predicted, problems, several = 0, errors.Few(), errors.Few()
  for row in _rows(folder / NAME):
    if row['status'] == SKIPPED:
      problems.add(row['problem'])
      continue
    predicted += 1
    if int(row['pictures']) > 1:
      several.add(f'{row["file"]}: {row["pictures"]} pictures')
  return Summary(predicted, problems.count, problems, several)


def _tables(folder: pathlib.Path) -> list[pathlib.Path]:
  """The table, and the parts of other processes, as far as they exist."""
  parts = sorted(folder.glob('predictions.part*.csv'))
  return [path for path in (folder / NAME, *parts) if path.exists()]


def _gather(
  folder: pathlib.Path,
  columns: Sequence[str],
  keep: Callable[[Mapping[str, str]], bool],
) -> None:
  """Writes the rows of all parts into one new table."""
  tables = _tables(folder)
  temporary = folder / f'{NAME}.tmp'
  with temporary.open(
    'w', encoding='utf-8', errors='surrogateescape', newline=''
  ) as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(columns)
    for path in tables:
      for row in _rows(path, columns):
        if keep(row):
          cells = [row[name] for name in columns]
          writer.writerow([spreadsheets.guard(cell) for cell in cells])
  temporary.replace(folder / NAME)
  for path in tables:
    if path.name != NAME:
      path.unlink()


def _rows(
  path: pathlib.Path, columns: Sequence[str] | None = None
) -> Iterator[dict[str, str]]:
  """The rows; one that was cut short by a kill is left out.

  Args:
    path: A table or a part of one.
    columns: Its columns; None for any that begin with `COLUMNS`.
  """
  with path.open(
    encoding='utf-8', errors='surrogateescape', newline=''
  ) as file:
    reader = csv.reader(line for line in file if line.endswith(('\n', '\r')))
    try:
      header = next(reader, list(columns or COLUMNS))
      if header[: len(COLUMNS)] != list(COLUMNS) or (
        columns is not None and header != list(columns)
      ):
        raise errors.InputError(
          f'{path} has other columns than this version writes; choose another'
          ' --output, or give --overwrite to predict everything again.'
        )
      for cells in reader:
        if len(cells) == len(header):
          bare = [spreadsheets.bare(cell) for cell in cells]
          yield dict(zip(header, bare, strict=True))
    except csv.Error as error:
      raise errors.InputError(
        f'{path} is damaged ({error}); choose another --output, or give'
        ' --overwrite to predict everything again.'
      ) from error
