"""Ranges of the measures over the views of a picture."""

import copy
import csv
import dataclasses
import json

import fake_model
import numpy as np
import predict_cases as cases
import pytest
from PIL import Image

from skinseg_jax.inference import (
  forward_pass,
  predictions,
  predictor,
  trained_model,
)
from skinseg_jax.measures import lesion, spread

_SIDE = 64


@pytest.fixture
def model(monkeypatch, tmp_path):
  made = cases.make_model(monkeypatch, tmp_path, (_SIDE, _SIDE))
  fake_model.make_uneven(monkeypatch)
  made.config.evaluation.test_time_augmentation = 'dihedral'
  return made


def _blurred_disc(radius, depth):
  """Its outline depends on how sure the model is."""
  rows, columns = np.mgrid[:_SIDE, :_SIDE]
  away = np.hypot((rows - 30) / 1.2, columns - 35)
  grey = 230 - depth / (1 + np.exp((away - radius) / 3))
  tint = np.array([10, 0, -10])  # Without it, skin has no typology angle.
  return (grey.astype(int)[..., None] + tint).astype(np.uint8)


def _views(image):
  """Masks of the eight views, without the code of the package."""
  rows, columns = np.mgrid[:_SIDE, :_SIDE]
  slope = 2 * rows / _SIDE + 3 * columns / _SIDE
  masks = []
  for turns in range(4):
    for mirror in (False, True):
      there = lambda x, t=turns, m=mirror: np.rot90(x[:, ::-1] if m else x, t)
      grey = there(image.mean(axis=2))
      seen = np.rot90((128 - grey) / 16 - slope > 0, -turns)
      masks.append(np.ascontiguousarray(seen[:, ::-1] if mirror else seen))
  return masks


def _row(image, tmp_path, *flags):
  Image.fromarray(image).save(tmp_path / 'x.png')
  paths = ('--input', tmp_path / 'x.png', '--output', tmp_path / 'out')
  assert cases.run(*paths, '--measures', *flags) == 0
  with (tmp_path / 'out/predictions.csv').open(newline='') as file:
    (row,) = csv.DictReader(file)
  return row


def test_each_measure_has_its_range_over_the_views(model, tmp_path):
  image = _blurred_disc(15, 200)
  row = _row(image, tmp_path, '--pixel_spacing', 0.1)
  rows = [lesion.measure(image, mask, (0.1, 0.1)) for mask in _views(image)]
  assert row['views'] == '8'
  assert len({found.area_px for found in rows}) > 3
  for name in spread.NAMES:
    if name == 'orientation':
      continue
    values = [float(getattr(found, name)) for found in rows]
    for end, quantile in (('low', 0.05), ('high', 0.95)):
      expected = np.quantile(values, quantile)
      found = float(row[f'{name}_{end}'])
      assert found == pytest.approx(expected, abs=2e-6), (name, end)
  # In Python they are the same.
  ranges = predictor.Predictor(model).predict(image).spread((0.1, 0.1))
  areas = [found.area_mm2 for found in rows]
  assert ranges['area_mm2'].count == 8
  assert ranges['area_mm2'].deviation == pytest.approx(np.std(areas, ddof=1))
  for name, one in ranges.items():
    assert float(row[f'{name}_low']) == pytest.approx(one.low, abs=1e-6)


def test_a_view_that_finds_nothing_leaves_no_range_but_of_sizes(
  model, tmp_path
):
  image = _blurred_disc(9, 150)
  found = [int(mask.sum()) for mask in _views(image)]
  assert 0 in found
  assert max(found) > 10
  row = _row(image, tmp_path)
  low, high = np.quantile(found, (0.05, 0.95))
  assert float(row['area_px_low']) == pytest.approx(low, abs=1e-6)
  assert float(row['area_px_high']) == pytest.approx(high, abs=1e-6)
  assert row['compactness_low'] == row['compactness_high'] == ''
  assert row['skin_lightness_low'] != ''


def test_masks_of_views_are_cleaned_as_the_mask(model, tmp_path):
  image = _blurred_disc(15, 200)
  image[26:34, 31:39] = 230
  row = _row(image, tmp_path, '--fill_holes')
  assert row['area_px_low'] != row['area_px_high']
  for name in ('area_px', 'perimeter_px'):
    values = sorted(float(row[name + end]) for end in ('_low', '', '_high'))
    assert values[1] == float(row[name])
  # Without the hole, an outline of this size is at most as long as a square's.
  assert float(row['perimeter_px_high']) < 4 * float(row['area_px_high']) ** 0.5


def test_each_picture_is_predicted_once(model, tmp_path, monkeypatch):
  asked = []
  each_view = forward_pass.each_view

  def watch(graphdef, state, images, *, views):
    asked.append((len(images), views))
    return each_view(graphdef, state, images, views=views)

  monkeypatch.setattr(forward_pass, 'each_view', watch)
  _row(_blurred_disc(15, 200), tmp_path)
  assert asked == [(1, 'dihedral')]


def test_the_views_of_few_pictures_wait_for_their_files(
  model, tmp_path, monkeypatch
):
  # Of two pictures, eight views each.
  monkeypatch.setattr(predictions, '_WAITING_BYTES', 2 * 8 * 4 * _SIDE**2)
  monkeypatch.setattr(predictor, 'BATCH_SIZE', 4)
  for i in range(12):
    Image.fromarray(_blurred_disc(12, 200)).save(tmp_path / f'{i}.png')
  taken, waiting = [], []
  result, answers = predictions._result, predictor.answers

  def watch(*args, **options):
    waiting.append(4 * len(waiting) - len(taken))
    return answers(*args, **options)

  monkeypatch.setattr(predictor, 'answers', watch)
  monkeypatch.setattr(
    predictions, '_result', lambda row: taken.append(row) or result(row)
  )
  flags = ('--input', tmp_path, '--output', tmp_path / 'out', '--measures')
  assert cases.run(*flags) == 0
  assert waiting == [0, 2, 2]


def test_several_models_have_the_ranges_of_all_their_views(model):
  other = dataclasses.replace(model, config=copy.deepcopy(model.config))
  other.config.evaluation.test_time_augmentation = 'off'
  both = trained_model.Ensemble([model, other], model.config)
  image = _blurred_disc(15, 200)
  found = predictor.Predictor(both).predict(image).spread()['area_px']
  masks = [*_views(image), _views(image)[0]]
  areas = [mask.sum() for mask in masks]
  assert found.count == 9
  assert found.deviation == pytest.approx(np.std(areas, ddof=1))


def test_columns_of_another_version_are_not_mixed(model, tmp_path, capsys):
  _row(_blurred_disc(15, 200), tmp_path)
  path = tmp_path / 'out/predictions.json'
  settings = json.loads(path.read_text())
  settings['columns'].remove('views')
  path.write_text(json.dumps(settings))
  flags = ('--input', tmp_path / 'x.png', '--output', tmp_path / 'out')
  assert cases.run(*flags, '--measures') == 2
  error = capsys.readouterr().err
  assert 'columns of the table' in error
  assert '--overwrite' in error


@pytest.mark.parametrize(
  ('views', 'flags', 'count'),
  [('off', (), '1'), ('dihedral', ('--tiles', 40), '')],
)
def test_where_there_is_no_range(model, tmp_path, capsys, views, flags, count):
  model.config.evaluation.test_time_augmentation = views
  row = _row(_blurred_disc(15, 200), tmp_path, *flags)
  assert row['views'] == count
  assert row['area_px'] != ''
  ranges = [name for name in row if name.endswith(('_low', '_high'))]
  assert len(ranges) == 2 * len(spread.NAMES)
  assert {row[name] for name in ranges} == {''}
  assert 'measures have no range' in capsys.readouterr().out


def test_masks_are_the_same_without_measures(model, tmp_path):
  image = _blurred_disc(15, 200)
  _row(image, tmp_path, '--probability')
  flags = ('--input', tmp_path / 'x.png', '--probability', '--output')
  assert cases.run(*flags, tmp_path / 'plain') == 0
  for name in ('x.png', 'probability/x.png'):
    measured = (tmp_path / 'out' / name).read_bytes()
    assert (tmp_path / 'plain' / name).read_bytes() == measured
