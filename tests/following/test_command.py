"""The command follow on drawn lesions and a model whose answer is known."""

import csv
import os
import types

import drawn_shapes as drawn
import fake_model
import numpy as np
import pytest
from fake_dicom import dicom
from PIL import Image
from scipy import ndimage

pytest.importorskip('cv2', reason="needs the extra 'classical'")

from skinseg_jax import config as config_lib
from skinseg_jax import follow, predict
from skinseg_jax.following import changes, views
from skinseg_jax.inference import trained_model
from skinseg_jax.run import review_file
from skinseg_jax.runtime import errors
from skinseg_jax.weights import shared_model


@pytest.fixture
def model(monkeypatch, tmp_path):
  made = fake_model.make(monkeypatch, tmp_path / 'data', image_size=(160, 160))
  monkeypatch.setattr(trained_model, 'load', lambda *args: made)
  monkeypatch.setattr(config_lib, 'load', lambda path: made.config)
  return made


def _run(*flags):
  argv = ['follow', '--workdir', 'run', *map(str, flags)]
  try:
    errors.exit_with_message(follow.main, argv)
  except SystemExit as end:
    return end.code
  return 0


def _rows(out):
  with (out / 'follow.csv').open(newline='') as file:
    return list(csv.DictReader(file))


def _save(image, path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(image).save(path)


def test_growth_is_found_and_what_cannot_be_compared_is_said(
  model, tmp_path, capsys
):
  texture, folder = drawn.texture(), tmp_path / 'in'
  save = lambda name, image: _save(image, folder / f'arm/{name}.png')
  save('2024-01-01', drawn.lesion(texture)[0])
  move = {'scale': 0.8, 'degrees': 30.0, 'shift': (5, 8)}
  save('2024-03-01', drawn.lesion(texture, **move)[0])
  save('2024-06-01', drawn.lesion(texture, **move, growth=1.5)[0])
  save('2024-07-01', drawn.lesion(drawn.texture(seed=1))[0])
  save('2024-08-01', np.full((240, 320, 3), 200, np.uint8))
  (folder / 'arm/2024-09-01.png').write_bytes(b'')
  out = tmp_path / 'out'
  flags = ['--input', folder, '--output', out, '--pixel_spacing', 0.05]
  assert _run(*flags) == 3
  said = capsys.readouterr()
  assert '2024-09-01.png' in said.err
  assert '1 pictures are not registered' in said.out
  rows = _rows(out)
  assert [row['status'] for row in rows] == [
    'reference', 'registered', 'registered', 'not registered',
    'nothing found', 'skipped',
  ]  # fmt: skip
  assert [row['unit'] for row in rows] == ['mm'] * 3 + ['own px', '', '']
  # A pixel of 0.8 pixels of the reference.
  pixels = [float(row['pixel_mm']) for row in rows[:3]]
  assert pixels == pytest.approx([0.05, 0.04, 0.04], rel=0.01)
  assert [row['order'] for row in rows] == ['', *['after'] * 5]
  long, short = drawn.AXES
  area = np.pi * long * short * 0.05**2
  for row, growth in zip(rows, (1, 1, 1.5), strict=False):
    assert float(row['area']) == pytest.approx(area * growth**2, rel=0.02)
    diameter = 2 * long * growth * 0.05
    assert float(row['diameter']) == pytest.approx(diameter, rel=0.02)
    assert float(row['area_low']) <= float(row['area']) * 1.001
  assert float(rows[1]['scale']) == pytest.approx(0.8, rel=0.01)
  assert float(rows[1]['degrees']) == pytest.approx(30, abs=1)
  assert (rows[1]['area_beyond'], rows[2]['area_beyond']) == ('0', '1')
  assert float(rows[2]['area_change']) == pytest.approx(2.25, rel=0.03)
  assert 'points of the skin agree' in rows[3]['problem']
  assert rows[3]['area_change'] == ''
  assert rows[3]['lightness_change'] != ''
  page = (out / 'arm.html').read_text()
  assert 'not a medical device' in page
  assert 'Area: × 2.2' in page
  assert 'pixels of the reference are 0.05 mm apart' in page
  for text in (rows[1]['problem'], page, said.out):
    assert 'the --pixel_spacing of 0.05 mm is not used: registration' in text
  assert '://' not in page
  # The second time, the results are in the way.
  assert _run(*flags) == 2
  assert '--overwrite' in capsys.readouterr().err


def test_a_lesion_that_leaves_the_picture_is_not_compared(model, tmp_path):
  texture, folder = drawn.texture(), tmp_path / 'in'
  first, _ = drawn.lesion(texture)
  later, _ = drawn.lesion(texture, growth=1.2)
  _save(first, folder / '<arm>/1.png')
  _save(later[:, 130:], folder / '<arm>/2.png')
  out = tmp_path / 'out'
  assert _run('--input', folder, '--output', out) == 0
  first, later = _rows(out)
  assert (later['status'], later['unit']) == ('registered', 'px')
  assert 'lesion touches the border' in later['needs_review']
  assert later['area'] != ''
  assert later['area_change'] == later['asymmetry_major_change'] == ''
  page = (out / '<arm>.html').read_text()
  assert '<arm>' not in page
  assert 'leaves this picture or the reference' in page
  assert 'none of the measures that can be compared changed' in page
  assert 'The files have no dates' in page


def _poor(kind, image):
  if kind == 'too dark':
    return (image * 0.2).astype(np.uint8)
  if kind == 'blurred':
    return ndimage.gaussian_filter(image, (9, 9, 0))
  return image[:, 130:]  # Through the middle of the lesion.


_POOR = ('blurred', 'too dark', 'lesion touches the border')


@pytest.mark.parametrize('kind', _POOR)
def test_the_reference_is_the_first_picture_in_order(model, tmp_path, kind):
  texture, folder = drawn.texture(), tmp_path / 'in/arm'
  image, _ = drawn.lesion(texture)
  _save(np.full((240, 320, 3), 200, np.uint8), folder / '1.png')
  _save(_poor(kind, image), folder / '2.png')
  _save(image, folder / '3.png')
  _save(drawn.lesion(texture, growth=1.2)[0], folder / '4.png')
  out = tmp_path / 'out'
  assert _run('--input', tmp_path / 'in', '--output', out) == 0
  rows = _rows(out)
  assert [row['status'] for row in rows[::2]] == ['nothing found', 'reference']
  assert rows[1]['status'] != 'reference'
  assert kind in rows[1]['poor_reference'].split('; ')
  assert {rows[i]['poor_reference'] for i in (0, 2, 3)} == {''}
  assert float(rows[3]['area_change']) == pytest.approx(1.44, rel=0.02)
  page = (out / 'arm.html').read_text()
  assert 'picture 3: 3.png. It is the first picture that is good enough' in page
  assert (
    f'Not taken as reference: 2: 2.png ({rows[1]["poor_reference"]})' in page
  )


def test_without_a_picture_in_order_the_first_is_the_reference(
  model, tmp_path, capsys
):
  image, _ = drawn.lesion(drawn.texture())
  for i, kind in enumerate(_POOR, 1):
    _save(_poor(kind, image), tmp_path / f'in/arm/{i}.png')
  out = tmp_path / 'out'
  assert _run('--input', tmp_path / 'in', '--output', out) == 0
  rows = _rows(out)
  assert rows[0]['status'] == 'reference'
  assert [row['poor_reference'] for row in rows] == ['blurred', '', '']
  assert all(row['status'] != 'reference' for row in rows[1:])
  page = (out / 'arm.html').read_text()
  assert 'No picture of this lesion is good enough' in page
  assert '1.png: blurred' in capsys.readouterr().out


def test_a_piece_at_the_border_beside_the_lesion_does_no_harm(model, tmp_path):
  image, _ = drawn.lesion(drawn.texture())
  corner = image.copy()
  corner[:12, :12] = (95, 60, 50)
  _save(corner, tmp_path / 'in/arm/1.png')
  _save(image, tmp_path / 'in/arm/2.png')
  out = tmp_path / 'out'
  assert _run('--input', tmp_path / 'in', '--output', out) == 0
  first, _ = _rows(out)
  assert 'lesion touches the border' in first['needs_review']
  assert (first['status'], first['poor_reference']) == ('reference', '')


def _two_lesions(texture, radii):
  """Discs left and right on skin; a radius of 0 is none."""
  rows, columns = np.mgrid[:240, :320]
  image = np.full((240, 320, 3), (205, 165, 150), float)
  image += texture[280:520, 240:560, None]
  for radius, column in zip(radii, (90, 240), strict=True):
    disc = np.hypot(rows - 120, columns - column) < radius
    image[disc] = (95, 60, 50)
  return np.clip(image, 45, 255).astype(np.uint8)


def test_the_lesion_of_the_first_picture_is_followed(model, tmp_path):
  texture, folder = drawn.texture(), tmp_path / 'in'
  # The other one is the larger one in the second picture, and alone in the
  # third.
  for name, radii in ((1, (45, 40)), (2, (40, 48)), (3, (0, 48))):
    _save(_two_lesions(texture, radii), folder / f'arm/{name}.png')
  out = tmp_path / 'out'
  assert _run('--input', folder, '--output', out) == 0
  first, second, third = _rows(out)
  assert 'several lesions' in first['needs_review']
  assert 'several lesions' in second['needs_review']
  assert first['status'] == 'reference'
  assert second['status'] == third['status'] == 'registered'
  change = float(second['area_change'])
  assert change == pytest.approx(40**2 / 45**2, rel=0.04)
  assert third['area'] == third['area_change'] == ''
  assert third['lightness_change'] == ''
  assert 'where the reference has it' in third['problem']
  assert third['problem'] in (out / 'arm.html').read_text()


@pytest.mark.parametrize('own', ['dihedral', 'off'])
def test_values_are_those_of_predict_and_ranges_of_all_views(
  model, tmp_path, monkeypatch, own
):
  model.config.evaluation.test_time_augmentation = own
  fake_model.make_uneven(monkeypatch)
  image = drawn.lesion(drawn.texture())[0]
  image = ndimage.gaussian_filter(image, (6, 6, 0))  # Makes views differ.
  _save(image, tmp_path / 'in/arm/1.png')
  flags = ('--input', tmp_path / 'in', '--pixel_spacing', 0.05)
  assert _run(*flags, '--output', tmp_path / 'out') == 0
  (followed,) = _rows(tmp_path / 'out')

  def predicted_by(views):
    model.config.evaluation.test_time_augmentation = views
    cleaned = ('--measures', '--fill_holes', '--largest_component')
    out = tmp_path / views
    predict.main([
      'predict', '--workdir=run', *map(str, flags), *cleaned, f'--output={out}',
    ])  # fmt: skip
    with (out / 'predictions.csv').open(newline='') as file:
      (row,) = csv.DictReader(file)
    return row

  predicted, of_views = predicted_by(own), predicted_by('dihedral')
  assert (predicted['views'] == '1') == (own == 'off')
  assert (predicted['area_mm2'] != of_views['area_mm2']) == (own == 'off')
  assert followed['needs_review'] == predicted['reasons']
  for name, column in (
    ('area', 'area_mm2'),
    ('diameter', 'largest_diameter_mm'),
    ('perimeter', 'perimeter_mm'),
    ('asymmetry_major', 'asymmetry_major'),
    ('asymmetry_minor', 'asymmetry_minor'),
  ):
    for end, row in (('', predicted), ('_low', of_views), ('_high', of_views)):
      assert float(followed[name + end]) == pytest.approx(
        float(row[column + end]), rel=1e-5, abs=1e-6
      )
  assert float(of_views['area_mm2_low']) < float(of_views['area_mm2_high'])


def test_the_page_says_whose_limits_it_has(model, tmp_path):
  _save(drawn.lesion(drawn.texture())[0], tmp_path / 'in/arm/1.png')
  assert _run('--input', tmp_path / 'in', '--output', tmp_path / 'out') == 0
  page = (tmp_path / 'out/arm.html').read_text()
  assert 'This page was made with <code>run</code>' in page
  flags = ('--workdir', shared_model.SHIPPED, '--output', tmp_path / 'own')
  assert _run('--input', tmp_path / 'in', *flags) == 0
  page = (tmp_path / 'own/arm.html').read_text()
  assert 'This page was made with' not in page
  assert f'{changes.PAIRS} pairs of pictures' in page


def test_the_calibration_of_the_model_is_used(model, tmp_path, monkeypatch):
  asked = []
  made = types.SimpleNamespace(
    expected=lambda signs: 0.5, is_low=lambda signs: True,
    is_unlike=lambda signs, features: features == [0.0], dark=0.0,
    blurred=-9.0,
  )  # fmt: skip

  def of_model(folder, identity):
    asked.append((folder.name, identity))
    return made

  monkeypatch.setattr(review_file, 'of_model', of_model)
  _save(drawn.lesion(drawn.texture())[0], tmp_path / 'in/arm/1.png')
  assert _run('--input', tmp_path / 'in', '--output', tmp_path / 'out') == 0
  (row,) = _rows(tmp_path / 'out')
  expected = 'unlike the training images; low expected Dice'
  assert row['needs_review'] == expected
  assert asked == [('run', model.identity())]


def test_a_spacing_that_is_not_used_is_reported(model, tmp_path):
  texture, folder = drawn.texture(), tmp_path / 'in/arm'
  folder.mkdir(parents=True)
  pictures = (
    (1, 1.0, [0.05, 0.05]),  # Sets the unit.
    (2, 0.8, [0.04, 0.04]),  # As registration says.
    (3, 0.8, [0.05, 0.05]),
    (4, 1.0, [0.05, 0.06]),
  )
  for name, scale, spacing in pictures:
    image, _ = drawn.lesion(texture, scale=scale)
    data = dicom(image, 'RGB', PixelSpacing=spacing)
    (folder / f'{name}.dcm').write_bytes(data)
  assert _run('--input', tmp_path / 'in', '--output', tmp_path / 'out') == 0
  rows = _rows(tmp_path / 'out')
  assert [row['unit'] for row in rows] == ['mm'] * 4
  problems = [row['problem'] for row in rows]
  assert problems[:2] == ['', '']
  assert problems[2].startswith('its spacing of 0.05 mm is not used: regis')
  assert '0.05 x 0.06 mm are not square' in problems[3]
  assert 'are not square' in (tmp_path / 'out/arm.html').read_text()
  # A file that states its pixels keeps them, also where they are not square.
  (folder / '1.dcm').write_bytes((folder / '4.dcm').read_bytes())
  flags = ('--pixel_spacing', 0.05, '--output', tmp_path / 'given')
  assert _run('--input', tmp_path / 'in', *flags) == 0
  first, second, *_ = _rows(tmp_path / 'given')
  assert (first['unit'], first['pixel_mm']) == ('px', '')
  assert second['problem'].endswith(
    'not used: the reference has none that can be used'
  )


def test_a_given_spacing_is_that_of_all_pictures(model, tmp_path):
  texture, folder = drawn.texture(), tmp_path / 'in/arm'
  # The first one is no reference, and was taken from half the distance.
  near = drawn.lesion(texture, scale=0.5, shift=(0, 100))[0]
  _save(near, folder / '1.png')
  for name in (2, 3):
    _save(drawn.lesion(texture)[0], folder / f'{name}.png')
  flags = ('--pixel_spacing', 0.05, '--output', tmp_path / 'out')
  assert _run('--input', tmp_path / 'in', *flags) == 0
  first, second, third = _rows(tmp_path / 'out')
  assert second['status'] == 'reference'
  assert first['status'] == third['status'] == 'registered'
  assert first['problem'] == (
    'the --pixel_spacing of 0.05 mm is not used: registration gives 0.025 mm'
  )
  assert second['problem'] == third['problem'] == ''


def test_names_that_are_not_utf_8(model, tmp_path, capfd):
  name = os.fsdecode(b'\xff arm')
  image, _ = drawn.lesion(drawn.texture())
  try:
    _save(image, tmp_path / 'in' / name / '1.png')
  except OSError:
    pytest.skip('this file system takes UTF-8 only')
  other, _ = drawn.lesion(drawn.texture(seed=1))
  _save(other, tmp_path / 'in' / name / '2.png')
  out = tmp_path / 'out'
  assert _run('--input', tmp_path / 'in', '--output', out) == 0
  assert os.fsencode(name) in (out / 'follow.csv').read_bytes()
  assert '? arm' in (out / f'{name}.html').read_text()
  assert '1 pictures are not registered' in capfd.readouterr().out


def test_nothing_is_written_into_a_shared_model(model, tmp_path, capsys):
  folder = fake_model.shared_folder(tmp_path / 'model')
  _save(drawn.lesion(drawn.texture())[0], tmp_path / 'in/arm/1.png')
  flags = ('--input', tmp_path / 'in', '--workdir', folder, '--output')
  assert _run(*flags, folder / 'pages') == 2
  message = capsys.readouterr().err
  assert f'--output {folder / "pages"} is in the folder of the mod' in message
  assert len(list(folder.rglob('*'))) == 2
  assert _run(*flags, tmp_path / 'out') == 0
  assert len(_rows(tmp_path / 'out')) == 1


def test_without_opencv_the_message_says_what_to_type(
  monkeypatch, tmp_path, capsys
):
  monkeypatch.setattr(
    follow.registration.importlib.util, 'find_spec', lambda name: None
  )
  assert _run('--input', tmp_path, '--output', tmp_path / 'out') == 2
  assert 'pip install "skinseg_jax[classical]"' in capsys.readouterr().err


@pytest.mark.parametrize(('size', 'count'), [((64, 64), 8), ((48, 64), 4)])
def test_views_are_turned_back(monkeypatch, tmp_path, size, count):
  made = fake_model.make(monkeypatch, tmp_path, image_size=size)
  image = np.full((*size, 3), 230, np.uint8)
  image[5:20, 8:40] = 20
  image[20:30, 8:14] = 20
  found = views.predict(made, image, size, bands=True)
  masks = list(found.views())
  assert len(masks) == count
  for mask in (found.mask, *masks):
    np.testing.assert_array_equal(mask, image[..., 0] < 128)
  assert not list(views.predict(made, image, size, bands=False).views())
