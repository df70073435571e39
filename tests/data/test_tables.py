"""Tables of metadata, as spreadsheets and archives write them."""

import pytest

from skinseg_jax import config as config_lib
from skinseg_jax.data import splits, tables
from skinseg_jax.runtime import errors

ROWS = [
  {'image_id': 'a', 'dx': 'nævus', 'age': '30'},
  {'image_id': 'b', 'dx': 'x, y', 'age': ''},
]


def read(tmp_path, data: bytes) -> list[dict[str, str]]:
  (tmp_path / 'meta.csv').write_bytes(data)
  table = tables.read(tmp_path / 'meta.csv')
  assert not table.problems
  return [row for _, row in table.lines]


@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
@pytest.mark.parametrize(
  'encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be',
               'cp1252', 'latin-1'],
)  # fmt: skip
@pytest.mark.parametrize('end', ['\n', '\r\n'])
def test_delimiters_and_encodings(tmp_path, delimiter, encoding, end):
  lines = ['image_id,dx,age', 'a,nævus,30', '', 'b,"x; y",']
  text = end.join(lines).replace(',', delimiter).replace('x; y', 'x, y') + end
  assert read(tmp_path, text.encode(encoding)) == ROWS


def test_line_that_names_the_delimiter(tmp_path):
  rows = read(tmp_path, 'sep=;\r\nimage_id;dx\r\na;nv\r\n'.encode('utf-8-sig'))
  assert rows == [{'image_id': 'a', 'dx': 'nv'}]


@pytest.mark.parametrize('column', tables.ID_COLUMNS)
def test_names_of_the_id_column(tmp_path, column):
  for name in (column, column.upper(), column.capitalize()):
    (row,) = read(tmp_path, f'{name},dx\na,nv\n'.encode())
    assert row == {'image_id': 'a', 'dx': 'nv'}


@pytest.mark.parametrize('age', ['age_approx', 'age_approximate'])
def test_names_of_the_isic_archive(tmp_path, age):
  (row,) = read(
    tmp_path,
    f'isic_id,patient_id,{age},anatom_site_general,diagnosis,sex\n'
    'ISIC_1,IP_1,55,head/neck,melanoma,male\n'.encode(),
  )
  assert row == {
    'image_id': 'ISIC_1',
    'patient_id': 'IP_1',
    'age': '55',
    'localization': 'head/neck',
    'dx': 'melanoma',
    'sex': 'male',
  }


def test_our_own_names_go_first(tmp_path):
  (row,) = read(tmp_path, b'image,image_id,age,age_approx\nq,a,31,30\n')
  assert row['image_id'] == 'a'
  assert row['age'] == '31'


def test_columns_of_classes_become_one(tmp_path):
  rows = read(tmp_path, b'image,MEL,NV,BCC\na,0.0,1.0,0.0\nb,1,0,0\nc,0,0,0\n')
  assert [row['dx'] for row in rows] == ['nv', 'mel', '']


def test_blanks_around_cells_do_not_count(tmp_path):
  rows = read(tmp_path, b'image_id, lesion_id, dx\na, L1 , nv\nb, ,\n , ,\n')
  assert rows == [
    {'image_id': 'a', 'lesion_id': 'L1', 'dx': 'nv'},
    {'image_id': 'b', 'lesion_id': '', 'dx': ''},
  ]


@pytest.mark.parametrize(
  'missing', ['NA', 'N/A', 'NaN', 'nan', 'None', 'null', '" "']
)
def test_missing_values_are_no_values(tmp_path, missing):
  names = ['lesion_id', 'patient_id', 'dx', 'age', 'site']
  text = f'image_id,{",".join(names)}\nNA{f",{missing}" * 5}\n'
  (row,) = read(tmp_path, text.encode())
  assert row == {'image_id': 'NA', **dict.fromkeys(names, '')}


def test_unknown_is_no_lesion_but_a_diagnosis(tmp_path):
  (row,) = read(
    tmp_path,
    b'image_id,lesion_id,patient_id,dx,sex\na,unknown,Unknown,unknown,unknown\n',
  )
  assert (row['lesion_id'], row['patient_id']) == ('', '')
  assert (row['dx'], row['sex']) == ('unknown', 'unknown')


def test_a_workbook_is_refused(tmp_path):
  (tmp_path / 'x.csv').write_bytes(b'PK\x03\x04...')
  with pytest.raises(errors.InputError, match='save it as csv'):
    tables.read(tmp_path / 'x.csv')


def test_cells_that_name_an_image():
  ids = tables.Ids(['a', 'p0/b', 'p1/c', 'p2/c', 'x.y', 'd.jpg'])
  expected = {
    'a': 'a',
    'a.jpg': 'a',
    'a.JPG': 'a',
    ' a.tiff ': 'a',
    'p0/b.png': 'p0/b',
    'p0\\b.png': 'p0/b',
    'b.png': 'p0/b',
    'c': None,  # Of two patients.
    'x.y': 'x.y',
    'x.y.bmp': 'x.y',
    'd.jpg': 'd.jpg',
    'images/a.jpg': 'a',
    'C:\\data\\images\\a': 'a',
    '/data/p0/b.png': 'p0/b',
    'data/p1/c': 'p1/c',
    './a.png': 'a',
    'p1/b.png': None,  # Of another patient.
    'images/c.jpg': None,
    'e': None,
    '': None,
  }
  assert {cell: ids.find(cell) for cell in expected} == expected


def _row(name, **columns):
  return {'image_id': name, 'lesion_id': '', 'dx': 'nv', **columns}


def test_patients_stand_in_for_lesions():
  rows = [_row(f'i{n:02}', patient_id=f'P{n // 4}') for n in range(40)]
  config = config_lib.DataConfig(source='folder', split='lesion')
  split = splits.make_split(config, rows)
  report = splits.report(split, rows)
  assert (report.grouped_by, report.leaked_images) == ('patient_id', 0)
  assert report.lesions == {'train': 8, 'validation': 2}
  assert 'grouped by patient_id' in report.table()
  assert 'patients' in report.table()
  # By image, patients are on both sides, and the report says so.
  config.split = 'random'
  report = splits.report(splits.make_split(config, rows), rows)
  assert report.leaked_images > 0
  assert 'patients that training also shows' in report.table()


def test_lesions_go_before_patients():
  rows = [_row(f'i{n}', lesion_id=f'L{n}', patient_id='P') for n in range(10)]
  config = config_lib.DataConfig(source='folder', split='lesion')
  report = splits.report(splits.make_split(config, rows), rows)
  assert report.grouped_by == 'lesion_id'
  assert report.images == {'train': 8, 'validation': 2}


def test_one_lesion_does_not_hide_the_patients():
  rows = [_row(f'i{n:02}', patient_id=f'P{n // 4}') for n in range(40)]
  rows[0]['lesion_id'] = 'L'
  rows.append(_row('j', lesion_id='L'))  # Its patient is that of i00.
  rows += [_row(f'k{n}', lesion_id='M') for n in range(3)] + [_row('P0')]
  config = config_lib.DataConfig(source='folder', split='lesion')
  for seed in range(5):
    config.seed = seed
    split = splits.make_split(config, rows)
    report = splits.report(split, rows)
    assert (report.grouped_by, report.leaked_images) == ('patient_id', 0)
    assert report.without_lesion == 1
    assert sum(report.lesions.values()) == 12
    sides = [set(split.train), set(split.validation)]
    together = [{f'i{p * 4 + n:02}' for n in range(4)} for p in range(10)]
    together[0].add('j')
    for group in [*together, {'k0', 'k1', 'k2'}]:
      assert any(group <= side for side in sides)


def test_split_files_are_tables_too(tmp_path):
  path = tmp_path / 'mine.csv'
  path.write_bytes('image;subset\r\na.jpg;train\r\nb.jpg;validation\r\n'.encode(
    'utf-16'
  ))  # fmt: skip
  config = config_lib.DataConfig(source='folder', split=str(path))
  split = splits.make_split(config, [_row('a'), _row('b')])
  assert split == splits.Split(['a'], ['b'])
