"""Measures in the table of predictions: right values, in the right units."""

import csv

import fake_dicom
import numpy as np
import predict_cases as cases
import pytest
from PIL import Image

from skinseg_jax.measures import lesion

# The rectangle of `cases.picture(64, 96)`: rows 12 to 31, columns 48 to 85.
_HEIGHT, _WIDTH = 20, 38


@pytest.fixture
def folder(monkeypatch, tmp_path):
  cases.make_model(monkeypatch, tmp_path)
  (tmp_path / 'in').mkdir()
  image, _ = cases.picture(64, 96)
  Image.fromarray(image).save(tmp_path / 'in/photo.png')
  return tmp_path / 'in'


def _dicom(folder, name, spacing):
  image, _ = cases.picture(64, 96)
  data = fake_dicom.dicom(image, 'RGB', PixelSpacing=spacing)
  (folder / f'{name}.dcm').write_bytes(data)


def _rows(out):
  with (out / 'predictions.csv').open(newline='') as file:
    return {row['image_id']: row for row in csv.DictReader(file)}


def _measured(folder, out, *flags):
  assert cases.run('--input', folder, '--output', out, *flags) == 0
  return _rows(out)


def test_without_the_flag_there_are_none(folder, tmp_path):
  row = _measured(folder, tmp_path / 'out')['photo']
  assert 'area_px' not in row
  assert not {'pixel_height_mm', 'ita'} & set(row)


def test_a_picture_without_a_spacing(folder, tmp_path):
  row = _measured(folder, tmp_path / 'out', '--measures')['photo']
  assert row['area_px'] == row['lesion_pixels'] == str(_HEIGHT * _WIDTH)
  assert row['pieces'] == '1'
  assert row['touches_border'] == '0'
  share = _HEIGHT * _WIDTH / (64 * 96)
  assert float(row['area_share']) == pytest.approx(share, abs=1e-6)
  assert 0 < float(row['eccentricity']) < 1
  millimetres = [name for name in row if name.endswith(('_mm', '_mm2'))]
  assert len(millimetres) == 6
  assert {row[name] for name in millimetres} == {''}


def test_the_cells_are_those_of_the_mask_that_was_written(folder, tmp_path):
  out = tmp_path / 'out'
  flags = ['--measures', '--pixel_spacing', 0.1, 0.2]
  row = _measured(folder, out, *flags)['photo']
  image, mask = cases.picture(64, 96)
  np.testing.assert_array_equal(cases.read(out / 'photo.png'), mask)
  cells = lesion.columns(lesion.measure(image, mask > 0, (0.1, 0.2)))
  for name, cell in cells.items():
    if isinstance(cell, float):
      assert float(row[name]) == pytest.approx(cell, abs=1e-6), name
    else:
      assert row[name] == str(cell), name
  assert (row['pixel_height_mm'], row['pixel_width_mm']) == ('0.1', '0.2')
  area = _HEIGHT * 0.1 * _WIDTH * 0.2
  assert float(row['area_mm2']) == pytest.approx(area, abs=1e-6)


def test_a_dicom_file_states_its_own_spacing(folder, tmp_path):
  _dicom(folder, 'scan', [0.02, 0.03])
  _dicom(folder, 'zero', [0, 0])
  flags = ['--measures', '--pixel_spacing', 0.1, '--overlay']
  rows = _measured(folder, tmp_path / 'out', *flags)
  for name, (height, width) in {
    'scan': (0.02, 0.03),
    'photo': (0.1, 0.1),
    'zero': (0.1, 0.1),  # No distance; that of the flag.
  }.items():
    row = rows[name]
    assert float(row['pixel_height_mm']) == height
    assert float(row['pixel_width_mm']) == width
    area = _HEIGHT * height * _WIDTH * width
    assert float(row['area_mm2']) == pytest.approx(area, abs=1e-6), name
    assert row['area_px'] == str(_HEIGHT * _WIDTH)
  # Without the flag, the file's own is known still.
  rows = _measured(folder, tmp_path / 'more', '--measures')
  assert float(rows['scan']['area_mm2']) == pytest.approx(0.456, abs=1e-6)
  assert rows['photo']['area_mm2'] == rows['zero']['area_mm2'] == ''


def test_an_empty_mask_and_a_bad_file(folder, tmp_path):
  Image.new('RGB', (96, 64), (236, 236, 236)).save(folder / 'skin.png')
  (folder / 'bad.png').write_bytes(b'')
  out = tmp_path / 'out'
  assert cases.run('--input', folder, '--output', out, '--measures') == 3
  rows = _rows(out)
  assert rows['skin']['area_px'] == '0'
  assert rows['skin']['compactness'] == ''
  assert rows['bad']['status'] == 'skipped'
  assert rows['bad']['area_px'] == ''


def test_the_typed_table_has_the_same_cells(folder, tmp_path):
  parquet = pytest.importorskip('pyarrow.parquet')
  (folder / 'bad.png').write_bytes(b'')
  out = tmp_path / 'out'
  flags = ('--input', folder, '--output', out, '--measures')
  assert cases.run(*flags) == 3
  table = parquet.read_table(out / 'predictions.parquet')
  text = {'image_id', 'file', 'status', 'problem', 'reasons', 'ita_reason'}
  names = {name for name in table.column_names if table[name].type == 'string'}
  assert names == text
  typed = {row['image_id']: row for row in table.to_pylist()}
  for name, row in _rows(out).items():
    assert list(typed[name]) == list(row)
    for column, cell in row.items():
      found = typed[name][column]
      if cell and column not in text:
        assert found == float(cell)
      else:
        assert found == (cell or None)
  assert type(typed['photo']['area_px']) is int
  # A later run writes it again.
  (folder / 'bad.png').unlink()
  Image.new('RGB', (96, 64)).save(folder / 'bad.png')
  assert cases.run(*flags) == 0
  table = parquet.read_table(out / 'predictions.parquet')
  assert set(table['status'].to_pylist()) == {'predicted'}


def test_resuming_needs_the_same_measures(folder, tmp_path, capsys):
  out = tmp_path / 'out'
  flags = ['--input', folder, '--output', out]
  measures = ['--measures', '--pixel_spacing', 0.1]
  whole = _measured(folder, out, *measures)
  (out / 'photo.png').unlink()
  assert _measured(folder, out, *measures) == whole
  message = cases.end(capsys, *flags)
  assert 'measures: True there, False now' in message
  assert 'columns' not in message
  message = cases.end(capsys, *flags, *measures[:-1], 0.2)
  assert 'pixel_spacing: [0.1, 0.1] there, [0.2, 0.2] now' in message
  assert cases.run(*flags, '--overwrite') == 0
  assert 'area_px' not in _rows(out)['photo']


def test_parts_of_several_processes_keep_the_columns(folder, tmp_path):
  Image.fromarray(cases.picture(50, 60)[0]).save(folder / 'more.png')
  out = tmp_path / 'out'
  whole = _measured(folder, out, '--measures')
  path = out / 'predictions.csv'
  header, first, second = path.read_text().splitlines(keepends=True)
  path.write_text(header + first)
  (out / 'predictions.part1.csv').write_text(header + second)
  assert _measured(folder, out, '--measures') == whole
  assert not (out / 'predictions.part1.csv').exists()


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--pixel_spacing', '0.1'], 'add --measures'),
    (['--measures', '--pixel_spacing', '1', '2', '3'], 'has 3 numbers'),
  ],
)
def test_a_spacing_that_does_not_fit_is_refused(
  folder, tmp_path, capsys, flags, words
):
  out = tmp_path / 'out'
  message = cases.end(capsys, '--input', folder, '--output', out, *flags)
  assert words in message
  assert not out.exists()


@pytest.mark.parametrize('text', ['0', '-1', 'nan', 'inf', 'small'])
def test_a_spacing_is_a_distance(folder, tmp_path, capsys, text):
  flags = ['--input', folder, '--output', tmp_path / 'out', '--measures']
  assert cases.run(*flags, f'--pixel_spacing={text}') == 2
  assert 'give millimetres above 0, such as 0.02' in capsys.readouterr().err
