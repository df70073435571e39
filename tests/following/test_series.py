"""Lesions, dates and files are read; all that does not fit is named at once."""

import datetime

import pytest

from skinseg_jax.following import series
from skinseg_jax.runtime import errors


def _write(folder, *names):
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')


def _read(path):
  return [
    (one.lesion, one.dated, [entry.path.name for entry in one.entries])
    for one in series.read(path, path.parent / 'out')
  ]


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('2024-05-01.jpg', [(2024, 5, 1)]),
    ('IMG_20240501_123456.jpg', [(2024, 5, 1)]),
    ('arm 2024_05_01.png', [(2024, 5, 1)]),
    ('20240501 of 2024-05-01.png', [(2024, 5, 1)]),
    ('patient_19550412_2024-05-01.jpg', [(1955, 4, 12), (2024, 5, 1)]),
    ('ISIC_0024306.jpg', []),
    ('2024-13-01.jpg', []),
    ('2024-0501.jpg', []),
    ('120240501.jpg', []),
  ],
)
def test_dates_in_names(name, expected):
  assert series.dates_in(name) == [datetime.datetime(*d) for d in expected]


def test_a_folder_for_each_lesion(tmp_path):
  _write(
    tmp_path / 'in',
    *('b/photo10.jpg', 'b/photo2.jpg'),
    *('a/z 2023-12-31.png', 'a/left/a 2024-01-02.jpg', 'a/20240101.jpg'),
    'a/notes.txt',
  )
  assert _read(tmp_path / 'in') == [
    ('a', True, ['z 2023-12-31.png', '20240101.jpg', 'a 2024-01-02.jpg']),
    ('b', False, ['photo2.jpg', 'photo10.jpg']),
  ]


def test_the_output_is_no_lesion(tmp_path):
  _write(tmp_path, 'a/1.jpg', 'out/x/2.jpg')
  (one,) = series.read(tmp_path, tmp_path / 'out')
  assert one.lesion == 'a'


def test_a_folder_that_does_not_fit(tmp_path):
  _write(tmp_path / 'in', 'loose.jpg', 'a/2024-05-01.jpg', 'a/later.jpg')
  _write(tmp_path / 'in', 'b/born 19550412, 2024-05-01.jpg')
  with pytest.raises(errors.InputError) as error:
    _read(tmp_path / 'in')
  message = str(error.value)
  assert 'loose.jpg lies in no folder of a lesion' in message
  assert 'a: 1 of 2 pictures have no date (later.jpg)' in message
  assert 'several dates in its name, 1955-04-12 and 2024-05-01' in message
  with pytest.raises(errors.InputError, match='does not exist'):
    _read(tmp_path / 'nowhere')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(errors.InputError, match='no picture'):
    _read(tmp_path / 'empty')


def test_a_table(tmp_path):
  _write(tmp_path, 'p/x.jpg', 'p/y.jpg', 'z.jpg', 'w.jpg')
  table = tmp_path / 'lesions.csv'
  table.write_text(
    'file;date;lesion\n'
    'p/y.jpg;2024-06-01;arm left\n'
    f'{tmp_path / "p/x.jpg"};20240501;arm left\n'
    'z.jpg;;back\nw.jpg;;back\n'
  )
  assert _read(table) == [
    ('arm left', True, ['x.jpg', 'y.jpg']),
    ('back', False, ['z.jpg', 'w.jpg']),
  ]


def test_a_table_with_times_and_capitals(tmp_path):
  _write(tmp_path, 'a.jpg', 'b.jpg', 'c.jpg')
  table = tmp_path / 'lesions.csv'
  table.write_text(
    'Lesion,Date,File\n'
    'arm,2024-05-01T15:30,a.jpg\n'
    'arm,2024-05-01T09:05+02:00,b.jpg\n'
    'arm,2024-05-01,c.jpg\n'
  )
  assert _read(table) == [('arm', True, ['c.jpg', 'b.jpg', 'a.jpg'])]
  (one,) = series.read(table, tmp_path / 'out')
  assert {str(entry.date) for entry in one.entries} == {'2024-05-01'}


def test_a_table_that_does_not_fit(tmp_path):
  _write(tmp_path, 'x.jpg', 'y.jpg')
  table = tmp_path / 'lesions.csv'
  table.write_text(
    'lesion,date,file\n'
    'a,1 May 2024,x.jpg\n'
    'a/b,2024-05-01,x.jpg\n'
    ',2024-05-01,gone.jpg\n'
    'c,2024-05-01,x.jpg\n'
    'c,2024-05-02,./x.jpg\n'
    'd,2024-05-01\n'
    'e,2024-05-01,x.jpg\n'
    'e,,y.jpg\n'
  )
  with pytest.raises(errors.InputError) as error:
    _read(table)
  message = str(error.value)
  for words in (
    "row 2: '1 May 2024' is no date; write it as 2024-05-01",
    "row 3: the lesion 'a/b' names a page",
    'row 4: no lesion',
    f'row 4: {tmp_path / "gone.jpg"} does not exist',
    'row 7 has 2 values for 3 columns',
    'x.jpg is named twice',
    'e: 1 of 2 pictures have no date (y.jpg)',
  ):
    assert words in message
  table.write_text('lesion,day\na,2024-05-01\n')
  with pytest.raises(errors.InputError, match='add date and file to its first'):
    _read(table)
  table.write_text('Name,Day\na,2024-05-01\n')
  with pytest.raises(
    errors.InputError, match='add lesion and date and file to'
  ):
    _read(table)
