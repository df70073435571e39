"""Typed tables in Parquet, where the optional package pyarrow is installed."""

import importlib.util
import itertools
import pathlib
from collections.abc import Iterable, Mapping

# Rows in memory at once; they are a row group of the file.
_ROWS = 10_000


def installed() -> bool:
  """Whether tables can be written."""
  return importlib.util.find_spec('pyarrow') is not None


def write(
  path: pathlib.Path,
  rows: Iterable[Mapping[str, str]],
  types: Mapping[str, type],
) -> None:
  """Writes a table, whole or not at all.

  Args:
    path: The file.
    rows: Cells by the names of the columns. An empty cell is no value, and
      so is an empty text.
    types: Type of each column: str, int or float.
  """
  import pyarrow  # An optional package; its import takes a while.
  import pyarrow.parquet

  kinds = {
    str: pyarrow.string(),
    int: pyarrow.int64(),
    float: pyarrow.float64(),
  }
  schema = pyarrow.schema([(name, kinds[kind]) for name, kind in types.items()])
  temporary = path.with_name(path.name + '.tmp')
  with pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
    for group in _groups(rows):
      columns = [
        [_value(row[name], kind) for row in group]
        for name, kind in types.items()
      ]
      arrays = [
        pyarrow.array(values, field.type)
        for values, field in zip(columns, schema, strict=True)
      ]
      writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
  temporary.replace(path)


def _groups(
  rows: Iterable[Mapping[str, str]],
) -> Iterable[list[Mapping[str, str]]]:
  left = iter(rows)
  while group := list(itertools.islice(left, _ROWS)):
    yield group


def _value(cell: str, kind: type) -> str | int | float | None:
  if not cell:
    return None
  if kind is str:  # File names may hold bytes that are no text.
    return cell.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace')
  return kind(cell)
