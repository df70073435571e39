"""One pass over the images measures the same as its parts one by one."""

import cv2
import fake_model
import numpy as np
import pytest

from skinseg_jax.data import input_pipeline
from skinseg_jax.evaluation import assessment, subgroups
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


def test_native_size_can_be_left_out(model, own):
  assert _assess(model, own, native_size=False).native_counts is None
