"""Tables of metadata as people have them: csv files of many kinds.

Delimiter and encoding are recognised, and so are the names that the ISIC
archive and its challenges give to columns.
"""

import codecs
import collections
import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterable

from skinseg_jax.data import pictures
from skinseg_jax.runtime import errors

# Names of the column of image ids; the first that a table has counts.
ID_COLUMNS = ('image_id', 'image', 'image_name', 'isic_id', 'filename')
# Our names of columns, and others for the same, in any case.
_ALIASES = {
  'lesion_id': (),
  'patient_id': (),
  'dx': ('diagnosis',),
  'dx_type': ('diagnosis_confirm_type',),
  'age': ('age_approx', 'age_approximate'),
  'sex': ('gender',),
  'localization': ('anatom_site_general', 'anatom_site_general_challenge'),
}
# Classes that ISIC's challenges give one column each, with 1 in one of them.
ONE_HOT = ('MEL', 'NV', 'BCC', 'AKIEC', 'BKL', 'DF', 'VASC', 'AK', 'SCC', 'UNK')
_DELIMITERS = ',;\t'
# What programs write where a value is missing, in lower case.
_MISSING = ('', 'na', 'n/a', 'nan', 'none', 'null')
# A lesion or patient of this name would join images that have nothing in
# common; as a diagnosis or sex it is a value.
_UNKNOWN = {'lesion_id': 'unknown', 'patient_id': 'unknown'}


@dataclasses.dataclass(frozen=True)
class Table:
  """A csv file.

  Attributes:
    header: Names of the columns; unique, those of known columns as ours.
    lines: Number of each row, from 1 for the header, and its cells by column:
      without blanks around them, and '' where a value is missing. Cells of
      `image_id` are as they are in the file.
    problems: One line for each row that does not fit the header.
    id_name: The file's own name of the column of image ids; '' without one.
  """

  header: list[str]
  lines: list[tuple[int, dict[str, str]]]
  problems: list[str]
  id_name: str


def read(path: pathlib.Path) -> Table:
  """Reads a csv file with a header.

  The delimiter is comma, semicolon or tab. The encoding is UTF-8, UTF-16, or
  else Windows-1252. Empty lines and columns without a name are left out. Where
  there is no column `dx`, columns of ISIC's classes become one.

  Raises:
    InputError: If the file cannot be read, has no header, or names a column
      twice. The message begins with 'unreadable' or 'the columns are'.
  """
  try:
    rows = _parse(_decode(path.read_bytes()))
  except (OSError, csv.Error, ValueError) as error:
    raise errors.InputError(f'unreadable ({error})') from error
  if not rows:
    raise errors.InputError('unreadable (the file is empty)')
  header, *rows = rows
  named = [i for i, name in enumerate(header) if name]
  names = [header[i].strip() for i in named]
  columns = _rename(names)
  if len(set(columns)) < len(columns):
    raise errors.InputError(
      f'the columns are {", ".join(columns)}; there must be none twice'
    )
  lines, problems = [], []
  for number, fields in enumerate(rows, start=2):
    if not any(map(str.strip, fields)):
      continue
    if len(fields) != len(header):
      problems.append(
        f'row {number} has {len(fields)} values for {len(header)} columns'
      )
      continue
    cells = [fields[i] for i in named]
    row = {c: _value(c, v) for c, v in zip(columns, cells, strict=True)}
    lines.append((number, row))
  id_name = dict(zip(columns, names, strict=True)).get('image_id', '')
  return Table(*_with_class(columns, lines), problems, id_name)


def id_column(header: Iterable[str]) -> str | None:
  """The column that holds image ids, or None."""
  by_name = {name.lower(): name for name in reversed(list(header))}
  return next((by_name[name] for name in ID_COLUMNS if name in by_name), None)


class Ids:
  """Finds the image that a cell means."""

  def __init__(self, image_ids: Iterable[str]):
    self._ids = set(image_ids)
    self._by_name = collections.defaultdict(list)
    for image_id in self._ids:
      self._by_name[image_id.rpartition('/')[2]].append(image_id)

  def find(self, cell: str) -> str | None:
    """The id that `cell` names, or None.

    A cell may have the extension of a picture, in any case, backslashes for
    slashes, blanks around it, and folders in front. The last part of an id in
    subfolders is enough where no other id ends so.
    """
    name = cell.strip().replace('\\', '/')
    stem, dot, extension = name.rpartition('.')
    without = stem if f'{dot}{extension}'.lower() in pictures.EXTENSIONS else ''
    for candidate in (cell, name, without):
      if candidate in self._ids:
        return candidate
    for candidate in (name, without):
      if len(same := self._by_name.get(candidate, [])) == 1:
        return same[0]
    # An id p0/b is not p1/b: of folders only the first ones may be too many.
    while '/' in name:
      name, without = (part.partition('/')[2] for part in (name, without))
      for candidate in (name, without):
        if candidate in self._ids:
          return candidate
    return None


def _decode(data: bytes) -> str:
  if data.startswith(b'PK\x03\x04'):
    raise ValueError('a spreadsheet; save it as csv')
  if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    return data.decode('utf-16')
  # Without the mark: the first character is Latin, one of its bytes is 0.
  if data[:1] == b'\0':
    return data.decode('utf-16-be')
  if data[1:2] == b'\0':
    return data.decode('utf-16-le')
  for encoding in ('utf-8-sig', 'cp1252'):
    try:
      return data.decode(encoding)
    except UnicodeDecodeError:
      continue
  return data.decode('latin-1')


def _parse(text: str) -> list[list[str]]:
  """Rows of cells, by the delimiter that gives the header most cells."""
  if text[:4].lower() == 'sep=':  # A line that Excel reads and writes.
    text = text.partition('\n')[2]
  first = text.partition('\n')[0]
  cells = lambda delimiter: next(csv.reader([first], delimiter=delimiter), [])
  delimiter = max(_DELIMITERS, key=lambda d: len(cells(d)))
  rows = csv.reader(
    io.StringIO(text, newline=''), delimiter=delimiter, strict=True
  )
  return list(rows)


def _rename(header: list[str]) -> list[str]:
  """Known columns by our names; a column of that name itself goes first."""
  names = list(header)
  if (column := id_column(names)) and 'image_id' not in names:
    names[names.index(column)] = 'image_id'
  for ours, others in _ALIASES.items():
    lower = [name.lower() for name in names]
    known = [name for name in (ours, *others) if name in lower]
    if known and ours not in names:
      names[lower.index(known[0])] = ours
  return names


def _value(column: str, cell: str) -> str:
  if column == 'image_id':  # `Ids.find` knows names with blanks.
    return cell
  value = cell.strip()
  lower = value.lower()
  return '' if lower in _MISSING or lower == _UNKNOWN.get(column) else value


def _with_class(
  columns: list[str], lines: list[tuple[int, dict[str, str]]]
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
  """Adds `dx` from columns of classes, where it is missing."""
  classes = [name for name in columns if name in ONE_HOT]
  if 'dx' in columns or not {'MEL', 'NV'} <= set(classes):
    return columns, lines
  for _, row in lines:
    chosen = [name for name in classes if _is_one(row[name])]
    row['dx'] = chosen[0].lower() if len(chosen) == 1 else ''
  return [*columns, 'dx'], lines


def _is_one(cell: str) -> bool:
  try:
    return float(cell) == 1
  except ValueError:
    return False
