"""The paper's split on the real data, to the pixel."""

import pytest

from skinseg_jax import config as config_lib
from skinseg_jax.data import preprocessing, splits
from skinseg_jax.evaluation import paper
from skinseg_jax.metrics import confusion


@pytest.mark.ham10000
@pytest.mark.slow
def test_masks_hold_the_papers_pixels(ham10000_source):
  split = splits.make_split(
    config_lib.DataConfig(split='paper'), ham10000_source.metadata
  )
  pixels = {}
  for index, image_id in enumerate(ham10000_source.image_ids):
    data = ham10000_source._records[index]['mask']
    mask = preprocessing.decode_mask(data, image_id)
    pixels[image_id] = int(preprocessing.resize_mask(mask, (224, 224)).sum())
  lesion = {
    subset: sum(pixels[image_id] for image_id in split.subset(subset))
    for subset in splits.SUBSETS
  }
  assert lesion == {'train': 109_136_645, 'validation': 24_727_451}
  assert lesion['validation'] == paper.COUNTS['tp'] + paper.COUNTS['fn']
  total = len(split.validation) * 224 * 224
  assert total - lesion['validation'] == 75_574_373


def test_comparison_sets_run_and_paper_side_by_side():
  # The counts of a run that predicts every pixel correctly.
  counts = {'tp': 24_727_451, 'fp': 0, 'fn': 0, 'tn': 75_574_373}
  table = paper.comparison(
    {
      'image_size': [112, 112],
      'pooled': confusion.as_floats(confusion.ratios(counts)),
      'baselines': confusion.baselines(counts),
    }
  )
  rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
  assert rows['dice'] == ['100.00', '90.15', '0.00', '39.55']
  assert rows['accuracy'] == ['100.00', '95.47', '75.35', '24.65']
  assert 'this run at 112x112' in table
