"""One pass over the images measures the same as its parts one by one."""

import math

import cv2
import fake_model
import numpy as np
import pytest

from skinseg_jax.data import cache, input_pipeline
from skinseg_jax.evaluation import (
  assessment,
  result_files,
  subgroups,
  summaries,
)
from skinseg_jax.metrics import calibration, confusion, surface


@pytest.fixture
def model(monkeypatch, tmp_path):
  return fake_model.make(monkeypatch, tmp_path)


@pytest.fixture
def own(model):
  return fake_model.run_data(model)


def _assess(model, own, **changes):
  # 7 images in batches of 4: the second is padded.
  options = {'native_size': True, **changes}
  return assessment.assess(
    model, own.source, own.data, own.split.validation, **options
  )


def _predictions(own):
  """Images, true masks and probabilities of the validation images."""
  places = input_pipeline.select(own.data, own.split.validation)
  images, masks = own.data.images[places], own.data.masks[places]
  return images, masks, fake_model.probabilities(images)


def _counts(predicted, true):
  axes = tuple(range(1, np.ndim(true)))
  return {
    'tp': np.sum(predicted & (true == 1), axes),
    'fp': np.sum(predicted & (true == 0), axes),
    'fn': np.sum(~predicted & (true == 1), axes),
    'tn': np.sum(~predicted & (true == 0), axes),
  }


def test_every_image_is_measured_once_in_order(model, own):
  assessed = _assess(model, own)
  images, masks, probabilities = _predictions(own)
  predicted = probabilities > 0.5
  assert assessed.image_ids == own.split.validation
  for name, expected in _counts(predicted, masks).items():
    assert assessed.counts[name].tolist() == expected.tolist()
  bits = np.unpackbits(assessed.packed, axis=1).reshape(masks.shape)
  assert np.array_equal(bits, predicted)
  for name, expected in surface.batch_scores(predicted, masks).items():
    assert assessed.surface[name] == pytest.approx(expected)
  for name, expected in subgroups.measure_all(images, masks).items():
    assert assessed.measured[name] == pytest.approx(expected, nan_ok=True)
  assert assessed.pieces.tolist() == [subgroups.pieces(m) for m in predicted]


def test_loss_squared_error_and_histogram(model, own):
  assessed = _assess(model, own)
  images, masks, probabilities = _predictions(own)
  z = fake_model.logits(images)[..., 0].astype(np.float64)
  losses = (np.logaddexp(0, z) - z * masks).mean(axis=(1, 2))
  assert assessed.loss == pytest.approx(losses, rel=1e-5)
  squares = ((probabilities - masks) ** 2).sum(axis=(1, 2))
  assert assessed.squared_error == pytest.approx(squares, rel=1e-5)
  # Padding is not counted.
  assert assessed.histogram.sum() == masks.size
  at_half = calibration.counts_above(assessed.histogram)
  pooled = confusion.pool(assessed.counts)
  assert {n: v[calibration.BINS // 2] for n, v in at_half.items()} == pooled


def test_native_size_against_opencv(model, own):
  assessed = _assess(model, own)
  _, _, probabilities = _predictions(own)
  places = input_pipeline.select(own.data, own.split.validation)
  for i, place in enumerate(places):
    truth = own.source[int(place)]['mask']
    resized = cv2.resize(probabilities[i].astype(np.float32), truth.shape[::-1])
    # A pixel at the threshold may be lesion or skin.
    unsure = np.abs(resized - 0.5) < 1e-6
    expected = _counts((resized > 0.5)[None], truth[None])
    for name in confusion.COUNTS:
      found = assessed.native_counts[name][i]
      assert abs(found - expected[name][0]) <= unsure.sum()
  totals = sum(assessed.native_counts.values())
  assert totals.tolist() == [48 * 40] * 7


# Skin tones, and why they have no typology angle.
_TONES = {
  (235, 200, 180): '',
  (190, 140, 110): '',
  (150, 105, 80): '',
  (150, 160, 200): 'b* is not positive',
  (12, 9, 7): 'too dark',
}


def _typology_angle(tone):
  """By OpenCV's conversion of sRGB to CIELAB."""
  pixel = np.float32([[tone]]) / 255
  lightness, _, yellow = cv2.cvtColor(pixel, cv2.COLOR_RGB2Lab)[0, 0]
  return math.degrees(math.atan2(lightness - 50, yellow))


def test_skin_around_the_true_lesion(model, tmp_path):
  images = np.empty((len(_TONES) + 1, 32, 32, 3), np.uint8)
  images[:-1] = np.array(list(_TONES))[:, None, None]
  masks = np.zeros(images.shape[:3], np.uint8)
  masks[:, 10:22, 12:20] = 1
  # What the model predicts does not matter, and neither does the lesion.
  images[masks > 0] = 10
  images[:, :3] = 1
  images[-1], masks[-1] = 200, 1
  ids = [f'i{number}' for number in range(len(images))]
  data = cache.CachedData(images, masks, ids, 'f')
  assessed = assessment.assess(model, None, data, ids, native_size=False)
  reasons = [*_TONES.values(), 'too little skin']
  assert assessed.skin['reason'].tolist() == reasons
  angles = [_typology_angle(tone) for tone in _TONES]
  expected = [
    a if r == '' else np.nan for a, r in zip(angles, reasons, strict=False)
  ]
  assert assessed.skin['ita'][:-1] == pytest.approx(
    expected, abs=0.5, nan_ok=True
  )
  assert np.isnan(assessed.skin['ita'][-1])
  assert expected[0] > expected[1] > 20 > expected[2]
  # In the table, there is a cell for each.
  metadata = [{'image_id': name, 'lesion_id': name, 'dx': ''} for name in ids]
  summary = summaries.summarise(
    assessed, metadata, image_size=(32, 32), threshold=0.5
  )
  tone = summary['skin_tone']
  assert (tone['images'], tone['lesions']) == (3, 3)
  assert tone['unavailable'] == dict.fromkeys(reasons[3:], 1)
  directory = tmp_path / 'run/evaluation/clinic'
  summary['checkpoint_step'] = 1
  result_files.write(directory, summary, assessed, metadata)
  read = result_files.read(tmp_path / 'run', 'clinic')
  assert [row['ita'] == '' for row in read.rows] == [r != '' for r in reasons]
  np.testing.assert_allclose(
    read.column('ita'), assessed.skin['ita'], atol=0.006
  )
  kept = result_files.read_measurements(tmp_path / 'run', 'clinic')
  assert kept.skin['reason'].tolist() == reasons


def test_native_size_can_be_left_out(model, own):
  assert _assess(model, own, native_size=False).native_counts is None
