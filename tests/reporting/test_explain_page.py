"""Sheets and page of explanations with nothing to show."""

import types

import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax.explanation import explainer
from skinseg_jax.inference import trained_model
from skinseg_jax.reporting import explain_page


def _nothing():
  """No lesion, and a Grad-CAM without a value above 0."""
  flat = np.zeros((8, 8), np.float32)
  below = -np.arange(4, dtype=np.float32).reshape(2, 2)
  return explainer.Explanation(
    image=np.full((8, 8, 3), 200, np.uint8),
    size=(30, 50),
    probability=flat,
    mask=flat > 0.5,
    entropy=flat,
    spread=flat,
    of_lesion=False,
    maps=[
      explainer.Map(explainer.GRAD_CAM, '$x_1', below, below, 1.0),
      explainer.Map(explainer.OCCLUSION, '', flat, flat, None),
    ],
  )


def test_nothing_to_show_and_more_than_the_page_shows(tmp_path, monkeypatch):
  monkeypatch.setattr(explain_page, '_SHOWN', 1)
  page = explain_page.Page(tmp_path)
  for name in ('first', 'second'):
    page.add(name, _nothing())
  explain = types.SimpleNamespace(patch=4, gates=())
  config = config_lib.Config()
  model = trained_model.TrainedModel(config, None, None, 9, None)
  page.write('explain.html', explain, model, 'run', 0)
  assert (tmp_path / 'second.png').exists()
  text = (tmp_path / 'explain.html').read_text('utf-8')
  assert 'The first 1 of 2' in text
  assert text.count('<img ') == 1
  assert 'no attention gates' in text
  assert '<td>1.00</td><td>1.00</td><td>1.00</td><td>2 of 2</td>' in text
  assert '<td>–</td><td>–</td><td>–</td><td>0 of 2</td>' in text
