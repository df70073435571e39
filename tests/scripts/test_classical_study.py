"""The study of classical methods counts right and chooses the best value."""

import numpy as np
import pytest

pytest.importorskip('cv2', reason="needs the extra 'classical'")
pytest.importorskip('skimage', reason="needs the extra 'classical'")

import classical as study

from skinseg_jax.classical import catalog, parameters


@pytest.fixture
def data():
  """Three images with a dark disc of radius 15, 16 and 17."""
  y, x = np.mgrid[:64, :64]
  masks = np.stack([np.hypot(y - 30, x - 33) < 15 + i for i in range(3)])
  images = np.where(masks[..., None], (120, 75, 60), (225, 180, 165))
  return study.Images(images.astype(np.uint8), masks.astype(np.uint8))


def test_counts_are_those_of_the_masks(data):
  settings = parameters.METHODS['otsu_blue']
  counts = study.counts(settings, data)
  segment = catalog.segmenter(settings)
  for i, (image, mask) in enumerate(zip(data.images, data.masks, strict=True)):
    found, true = segment(image), mask > 0
    assert counts['tp'][i] == (found & true).sum()
    assert counts['fp'][i] == (found & ~true).sum()
    assert counts['fn'][i] == (~found & true).sum()
    assert counts['tn'][i] == (~found & ~true).sum()


def test_a_field_inside_a_field_is_replaced():
  settings = parameters.GrabCut()
  changed = study.replaced(settings, 'seed.clean_up.growth', 0.5)
  assert changed.seed.clean_up.growth == 0.5
  assert changed.seed.place == settings.seed.place
  assert settings.seed.clean_up.growth != 0.5


def test_the_best_value_is_kept_for_the_next_field(data, monkeypatch):
  grid = (('clean_up.growth', (0.0, 0.2)), ('place', (0.5, 0.6)))
  monkeypatch.setitem(study.GRIDS, 'otsu_blue', grid)
  rows = study.choose('otsu_blue', data)
  assert [row['field'] for row in rows] == [
    'clean_up.growth', 'clean_up.growth', 'place', 'place'
  ]  # fmt: skip
  # Masks of a sharp disc need no growth, so the next rows go on without it.
  assert rows[0]['pooled_dice'] > 0.95 > rows[1]['pooled_dice']
  assert rows[3]['pooled_dice'] > 0.95


@pytest.mark.parametrize('name', parameters.METHODS)
def test_every_field_of_the_grids_exists(name):
  for field, values in study.GRIDS[name]:
    for value in values:
      study.replaced(parameters.METHODS[name], field, value)
