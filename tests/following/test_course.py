"""Which picture is the reference, what it costs, and the order of changes."""

import types

import drawn_shapes as drawn
import fake_model
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

pytest.importorskip('cv2', reason="needs the extra 'classical'")

from skinseg_jax.data import preprocessing
from skinseg_jax.following import course, series, table, views
from skinseg_jax.inference import forward_pass, predictor
from skinseg_jax.measures import lesion

_SIDE = 160


@pytest.fixture
def model(monkeypatch, tmp_path):
  made = fake_model.make(
    monkeypatch, tmp_path / 'data', image_size=(_SIDE, _SIDE)
  )
  made.config.evaluation.test_time_augmentation = 'dihedral'
  return made


@pytest.fixture
def follow(model, tmp_path):
  def follow(images, calibration=None):
    entries = []
    for number, image in enumerate(images, 1):
      path = tmp_path / f'{number}.png'
      Image.fromarray(image).save(path)
      entries.append(series.Entry(path, None))
    one = series.Series('arm', entries)
    visits = course.follow(one, model, None, calibration)
    return visits, list(table.rows(one, visits))

  return follow


def _count(monkeypatch):
  """Counts the pictures that a network predicts."""
  counted, each_view = [], forward_pass.each_view

  def counting(graphdef, state, images, *, views):
    counted.append(len(images))
    return each_view(graphdef, state, images, views=views)

  monkeypatch.setattr(forward_pass, 'each_view', counting)
  return counted


@pytest.mark.parametrize('in_order', [2, None])
def test_each_picture_is_predicted_once(follow, monkeypatch, in_order):
  counted = _count(monkeypatch)
  image = drawn.lesion(drawn.texture())[0]
  images = [ndimage.gaussian_filter(image, (9, 9, 0))] * 5
  if in_order is not None:
    images[in_order] = image
  visits, _ = follow(images)
  assert sum(counted) == 5
  reference = in_order or 0
  assert visits[reference].status == course.REFERENCE
  earlier = [visit.earlier for visit in visits]
  assert earlier == [number < reference for number in range(5)]
  # Those before the reference, or the reference itself.
  poor = [bool(visit.poor) for visit in visits]
  expected = [True, True, False, False, False]
  assert poor == (expected if in_order else [True] + [False] * 4)


def test_growth_is_growth_before_and_after_the_reference(follow):
  texture = drawn.texture()
  first, second, third = (
    drawn.lesion(texture, growth=growth)[0] for growth in (1.0, 1.2, 1.5)
  )
  calibration = types.SimpleNamespace(
    expected=lambda signs: 0.9, is_low=lambda signs: False,
    is_unlike=lambda signs, features: False, dark=177.0, blurred=-9.0,
  )  # fmt: skip
  brighter = [
    np.clip(image * 1.15, 0, 255).astype(np.uint8) for image in (second, third)
  ]
  visits, rows = follow([first, *brighter], calibration)
  assert visits[0].poor == 'too dark'
  assert [visit.status for visit in visits] == [
    course.REGISTERED, course.REFERENCE, course.REGISTERED,
  ]  # fmt: skip
  assert [row['order'] for row in rows] == ['before', '', 'after']
  for i, grown in ((0, 1.2), (1, 1.25)):
    for name, expected in (('area', grown**2), ('diameter', grown)):
      changed = rows[2 * i]
      change = float(changed[f'{name}_change'])
      ratio = float(rows[i + 1][name]) / float(rows[i][name])
      assert change == pytest.approx(ratio, rel=1e-4)
      assert change == pytest.approx(expected, rel=0.02)
      assert changed[f'{name}_beyond'] == '1'
  # L* of the lesion minus that of its skin, from the first to the second.
  light = [float(row['lightness']) for row in rows[:2]]
  change = float(rows[0]['lightness_change'])
  assert change == pytest.approx(light[1] - light[0], abs=1e-3)


def test_a_large_picture_has_the_probability_of_predict(
  follow, model, monkeypatch
):
  fake_model.make_uneven(monkeypatch)
  image = drawn.lesion(drawn.texture())[0].repeat(6, axis=0).repeat(6, axis=1)
  (visit,), (row,) = follow([image])
  (answer,) = predictor.answers(model, [predictor.resize(model, image)], 1)
  reduced = preprocessing.resize_probability(answer.probability, (768, 1024))
  np.testing.assert_array_equal(visit.mask, views.largest(reduced > 0.5))
  # Lengths are in pixels of the file.
  predicted = predictor.Predictor(model).predict(image)
  whole = lesion.measure(image, views.largest(predicted.mask))
  diameter = float(row['diameter'])
  assert diameter == pytest.approx(whole.largest_diameter_px, rel=0.01)
