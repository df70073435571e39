"""The gains of views, ensembles and cleaning, on masks counted by hand."""

import dataclasses

import better_masks
import numpy as np
import pytest

from skinseg_jax import config as config_lib
from skinseg_jax.inference import predictor


@dataclasses.dataclass(frozen=True)
class _Model:
  """Stands in for a network: what it answers does not depend on the picture."""

  answer: np.ndarray
  config: config_lib.Config


@pytest.fixture
def counted(monkeypatch):
  """Two pictures of 8 x 8 pixels; the lesion is a square of 16 pixels."""
  true = np.zeros((8, 8), np.uint8)
  true[1:5, 1:5] = 1
  ring = np.where(true, 0.9, 0.1).astype(np.float32)
  ring[2, 2] = 0.1  # A hole.
  ring[7, 7] = 0.9  # A second piece.
  nothing = np.full((8, 8), 0.3, np.float32)
  models = [_Model(one, config_lib.Config()) for one in (ring, nothing)]

  def answers(model, images, batch_size):
    flips = model.config.evaluation.test_time_augmentation == 'flips'
    answer = model.answer[::-1] if flips else model.answer
    return [predictor.Answer(answer, None, np.empty(0))] * len(images)

  monkeypatch.setattr(predictor, 'answers', answers)
  return better_masks.count(
    {
      'one': (models[:1], 'off'),
      'flipped': (models[:1], 'flips'),
      'both': (models, 'off'),
    },
    np.zeros((2, 8, 8, 3), np.uint8),
    np.stack([true, true]),
  )


@pytest.mark.parametrize(
  ('masks', 'cleaning', 'tp', 'fp'),
  [
    ('one', 'none', 15, 1),
    ('one', 'fill_holes', 16, 1),
    ('one', 'largest_component', 15, 0),
    ('one', 'fill_holes, largest_component', 16, 0),
    ('both', 'none', 15, 1),  # The mean of .9 and .3 is above a half.
    # Upside down, rows 3 and 4 of the square overlap with it.
    ('flipped', 'none', 8, 8),
  ],
)
def test_pixels_of_each_variant(counted, masks, cleaning, tp, fp):
  found = counted[masks, cleaning]
  assert found['tp'].tolist() == [tp, tp]
  assert found['fp'].tolist() == [fp, fp]
  assert (sum(found.values()) == 64).all()


def test_gains_are_differences_to_the_right_masks(counted):
  rows = {
    (row['masks'], row['cleaning']): row
    for row in better_masks.table(
      counted,
      ['a', 'b'],
      {'one': 'one', 'flipped': 'one', 'both': 'flipped'},
    )
  }
  one, filled = 2 * 15 / (16 + 16), 2 * 16 / (17 + 16)
  gain = float(rows['one', 'fill_holes']['gain_of_mean_dice'])
  assert gain == pytest.approx(filled - one, abs=1e-5)
  flipped = float(rows['flipped', 'none']['gain_of_pooled_dice'])
  assert flipped == pytest.approx(16 / 32 - one, abs=1e-5)
  both = float(rows['both', 'none']['gain_of_pooled_dice'])
  assert both == pytest.approx(one - 16 / 32, abs=1e-5)
  assert rows['both', 'none']['compared_with'] == 'flipped, none'
  assert 'gain_of_mean_dice' not in rows['one', 'none']
  assert rows['one', 'fill_holes']['changed_images'] == '2'


def test_folds_share_no_lesion_with_what_they_are_scored_on(monkeypatch):
  rows = [
    {'image_id': f'i{i:03}', 'lesion_id': f'l{i // 2}', 'dx': 'nv'}
    for i in range(200)
  ]
  lesion = {row['image_id']: row['lesion_id'] for row in rows}
  whole = better_masks.splits.make_split(
    config_lib.DataConfig(split='lesion', validation_fraction=0.2), rows
  )
  monkeypatch.setattr(better_masks.measured, 'inner_split', lambda _: whole)
  found = better_masks.fold_splits(rows)
  assert list(found) == ['one', *(f'fold_{i}' for i in range(5))]
  left_out = []
  for name, split in found.items():
    assert split.validation == whole.validation
    train = {lesion[i] for i in split.train}
    assert not train & {lesion[i] for i in split.validation}
    if name != 'one':
      left_out += sorted(set(whole.train) - set(split.train))
  assert sorted(left_out) == whole.train
