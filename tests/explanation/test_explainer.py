"""The answer that a sheet shows, on a model whose views are known."""

import fake_model
import numpy as np
import pytest

from skinseg_jax.explanation import explainer
from skinseg_jax.inference import predictor


@pytest.mark.parametrize('size', [(32, 32), (24, 32)])
def test_one_view_has_the_spread_of_all_that_the_input_allows(
  monkeypatch, tmp_path, size
):
  model = fake_model.make(monkeypatch, tmp_path, image_size=size)
  fake_model.make_uneven(monkeypatch)
  image = np.random.default_rng(0).integers(90, 170, (*size, 3), np.uint8)
  probability, spread = explainer.answer(model, image)
  # `predict` has the same probability, of the upright picture alone.
  (expected,) = predictor.answers(model, [[image]], 1)
  np.testing.assert_array_equal(probability, expected.probability)
  views = 'dihedral' if size[0] == size[1] else 'flips'
  model.config.evaluation.test_time_augmentation = views
  mean, of_views = explainer.answer(model, image)
  np.testing.assert_array_equal(spread, of_views)
  assert np.abs(mean - probability).max() > 0.01
  # By hand, at the corner: the slope of `fake_model` in units of the axes.
  height, width = size
  ends = [(r, c) for r in (0, height - 1) for c in (0, width - 1)]
  logit = fake_model.logits(image[None])[0, 0, 0, 0]
  answers = [
    1 / (1 + np.exp(2 * r / height + 3 * c / width - logit)) for r, c in ends
  ]
  assert spread[0, 0] == pytest.approx(np.std(answers), abs=1e-6)
