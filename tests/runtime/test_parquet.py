"""A typed table has the cells of the table of text."""

import pytest

from skinseg_jax.runtime import parquet

pyarrow_parquet = pytest.importorskip('pyarrow.parquet')

TYPES = {'file': str, 'height': int, 'share': float}


def cells(i):
  share = '' if i % 3 == 0 else f'{i / 10:.1f}'
  return {'file': f'{i}.jpg', 'height': str(100 + i), 'share': share}


def test_types_and_empty_cells(tmp_path, monkeypatch):
  monkeypatch.setattr(parquet, '_ROWS', 4)
  path = tmp_path / 'x.parquet'
  parquet.write(path, (cells(i) for i in range(10)), TYPES)
  file = pyarrow_parquet.ParquetFile(path)
  assert [str(kind) for kind in file.schema_arrow.types] == [
    'string', 'int64', 'double',
  ]  # fmt: skip
  # 4 + 4 + 2: no more rows than that are in memory.
  assert file.num_row_groups == 3
  found = file.read().to_pylist()
  assert found[:3] == [
    {'file': '0.jpg', 'height': 100, 'share': None},
    {'file': '1.jpg', 'height': 101, 'share': 0.1},
    {'file': '2.jpg', 'height': 102, 'share': 0.2},
  ]
  assert len(found) == 10
  assert [one.name for one in tmp_path.iterdir()] == ['x.parquet']


def test_no_rows_and_names_that_are_no_text(tmp_path):
  path = tmp_path / 'x.parquet'
  parquet.write(path, [], TYPES)
  assert pyarrow_parquet.read_table(path).num_rows == 0
  name = b'\xff.jpg'.decode('utf-8', 'surrogateescape')
  parquet.write(path, [{'file': name, 'height': '', 'share': ''}], TYPES)
  (row,) = pyarrow_parquet.read_table(path).to_pylist()
  assert row == {'file': '\ufffd.jpg', 'height': None, 'share': None}
