"""The paper's split on the real data, to the pixel."""

import numpy as np
import pytest

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, input_pipeline, splits
from skinseg_jax.evaluation import paper
from skinseg_jax.metrics import confusion


@pytest.fixture(scope='module')
def data(ham10000_source, tmp_path_factory):
  return cache.open_cache(
    ham10000_source, (224, 224), tmp_path_factory.mktemp('cache')
  )


@pytest.mark.ham10000
@pytest.mark.slow
def test_masks_hold_the_papers_pixels(ham10000_source, data):
  split = splits.make_split(
    config_lib.DataConfig(split='paper'), ham10000_source.metadata
  )
  lesion = {
    subset: sum(
      int(data.masks[i].sum(dtype=np.int64))
      for i in input_pipeline.select(data, split.subset(subset))
    )
    for subset in splits.SUBSETS
  }
  assert lesion == {'train': 109_136_645, 'validation': 24_727_451}
  assert lesion['validation'] == paper.COUNTS['tp'] + paper.COUNTS['fn']
  pixels = len(split.validation) * 224 * 224
  assert pixels - lesion['validation'] == 75_574_373


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
