"""Reads which pictures show which lesion, and when they were taken."""

import dataclasses
import datetime
import itertools
import pathlib
import re
from typing import NamedTuple

from skinseg_jax.data import pictures, tables
from skinseg_jax.data.sources import folder_files
from skinseg_jax.runtime import errors

# 2024-05-01, 2024_05_01, 2024.05.01 or 20240501 within a file's name.
_DATE = re.compile(r'(?<!\d)((?:19|20)\d\d)([-_.]?)(\d\d)\2(\d\d)(?!\d)')
# Columns of a csv file, in any case.
_COLUMNS = ('lesion', 'date', 'file')
# What no name of a page may hold.
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f]|^\.')


class Entry(NamedTuple):
  """A picture of a lesion; `time` is None where no date is known.

  It is the local time as it is written, and midnight where only a date is.
  """

  path: pathlib.Path
  time: datetime.datetime | None

  @property
  def date(self) -> datetime.date | None:
    """The day of the picture."""
    return self.time and self.time.date()


@dataclasses.dataclass(frozen=True)
class Series:
  """The pictures of one lesion in the order of time.

  Attributes:
    lesion: Name of the lesion; a valid stem of a file.
    entries: At least one. Either all have a date, or none.
  """

  lesion: str
  entries: list[Entry]

  @property
  def dated(self) -> bool:
    """Whether the dates are known; otherwise only the order is."""
    return self.entries[0].date is not None


def read(path: pathlib.Path, leave_out: pathlib.Path) -> list[Series]:
  """Reads a folder with one folder for each lesion, or a csv file.

  In a folder, dates are taken from the names of the files. A csv file has the
  columns lesion, date (such as 2024-05-01 or 2024-05-01T10:15, or empty) and
  file (relative to the csv file). Pictures without dates, or of one time, have
  the order of their names, or of the rows of the csv file.

  Args:
    path: The folder or the csv file.
    leave_out: A folder that is not searched: that of the output.

  Returns:
    The lesions in the order of their names, or of the csv file.

  Raises:
    InputError: Naming everything that does not fit.
  """
  if not path.exists():
    raise errors.InputError(
      f'--input {path} does not exist; give a folder that holds one folder for'
      ' each lesion, or a csv file with the columns lesion, date and file.'
    )
  problems: list[str] = []
  by_lesion: dict[str, list[Entry]] = {}
  found = (
    _of_folder(path, leave_out, problems)
    if path.is_dir()
    else _of_table(path, problems)
  )
  for lesion, entry in found:
    by_lesion.setdefault(lesion, []).append(entry)
  for lesion, entries in by_lesion.items():
    problems += _check(lesion, entries)
  if not by_lesion and not problems:
    problems.append('no picture')
  if problems:
    raise errors.InputError(
      f'--input {path} does not fit; correct these and run the same command'
      ' again:\n' + errors.listing(problems)
    )
  series = [
    Series(
      lesion,
      entries
      if entries[0].time is None
      else sorted(
        entries, key=lambda entry: entry.time or datetime.datetime.min
      ),
    )
    for lesion, entries in by_lesion.items()
  ]
  pictures.check_installed(e.path for one in series for e in one.entries)
  return series


def dates_in(name: str) -> list[datetime.datetime]:
  """The different dates in a name, in order; the time is midnight."""
  found: dict[datetime.datetime, None] = {}
  for year, _, month, day in _DATE.findall(name):
    try:
      found[datetime.datetime(int(year), int(month), int(day))] = None
    except ValueError:
      continue
  return list(found)


def _of_folder(
  folder: pathlib.Path, leave_out: pathlib.Path, problems: list[str]
) -> list[tuple[str, Entry]]:
  inside = leave_out.exists() and not leave_out.samefile(folder)
  walk = folder_files.walk_pictures(
    folder, leave_out=[leave_out] if inside else [], notes=[]
  )
  files = sorted((_natural(name), path, name) for path, name in walk)
  found = []
  for _, path, name in files:
    lesion, slash, _ = name.partition('/')
    dates = dates_in(path.name)
    if slash and len(dates) > 1:
      shown = ' and '.join(str(date.date()) for date in dates)
      problems.append(
        f'{path} has several dates in its name, {shown}; leave only that of the'
        ' picture, or give a csv file with the columns lesion, date and file'
      )
    if slash:
      found.append((lesion, Entry(path, dates[0] if dates else None)))
    else:
      problems.append(
        f'{path} lies in no folder of a lesion; move it to'
        f' {folder / "NAME_OF_THE_LESION" / path.name}'
      )
  return found


def _natural(name: str) -> list[tuple[str, int, str]]:
  """Orders photo2 before photo10, folder by folder."""
  parts = itertools.chain.from_iterable(
    [*re.findall(r'(\D*)(\d*)', part), ('', '')] for part in name.split('/')
  )
  return [(text.lower(), int(digits or -1), text) for text, digits in parts]


def _of_table(
  path: pathlib.Path, problems: list[str]
) -> list[tuple[str, Entry]]:
  try:
    table = tables.read(path)
  except errors.InputError as error:
    raise errors.InputError(
      f'--input {path}: {error}; save it as csv with the columns lesion, date'
      ' and file.'
    ) from error
  names = {name.lower(): name for name in table.header}
  if 'lesion' not in names and 'lesion_id' in names:
    names['lesion'] = names['lesion_id']
  if lacking := [name for name in _COLUMNS if name not in names]:
    raise errors.InputError(
      f'--input {path} has the columns {", ".join(table.header)}; add'
      f' {" and ".join(lacking)} to its first line. It needs lesion, date and'
      ' file.'
    )
  problems += table.problems
  found = []
  for number, row in table.lines:
    lesion, date, cell = (row[names[name]] for name in _COLUMNS)
    file = path.parent / pathlib.Path(cell).expanduser()
    wrong = _row_problems(lesion, date, cell, file)
    problems += [f'row {number}: {problem}' for problem in wrong]
    if not wrong:
      found.append((lesion, Entry(file, _iso(date))))
  return found


def _row_problems(
  lesion: str, date: str, cell: str, file: pathlib.Path
) -> list[str]:
  wrong = []
  if not lesion:
    wrong.append('no lesion')
  elif _FORBIDDEN.search(lesion):
    wrong.append(
      f'the lesion {lesion!r} names a page, and may not begin with a dot or'
      ' hold / \\ : * ? " < > |'
    )
  if date and not _iso(date):
    wrong.append(f'{date!r} is no date; write it as 2024-05-01')
  if not cell:
    wrong.append('no file')
  elif not file.is_file():
    wrong.append(f'{file} does not exist')
  return wrong


def _iso(text: str) -> datetime.datetime | None:
  try:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=None)
  except ValueError:
    return None


def _check(lesion: str, entries: list[Entry]) -> list[str]:
  """Reports files named twice, and lesions where only some have a date."""
  problems = []
  seen: set[pathlib.Path] = set()
  for entry in entries:
    place = entry.path.resolve()
    if place in seen:
      problems.append(f'{lesion}: {entry.path} is named twice')
    seen.add(place)
  without = [entry.path.name for entry in entries if entry.time is None]
  if 0 < len(without) < len(entries):
    problems.append(
      f'{lesion}: {len(without)} of {len(entries)} pictures have no date'
      f' ({", ".join(without[:3])}); give all of them one, such as'
      ' 2024-05-01, or none'
    )
  return problems
