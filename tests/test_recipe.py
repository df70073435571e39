import importlib.util
import pathlib

import numpy as np
import pytest

from skinseg_jax import config as config_lib
from skinseg_jax import metrics

_ROOT = pathlib.Path(__file__).parents[1]


def _load(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='module')
def recipe():
  return _load(_ROOT / 'scripts' / 'recipe.py')


def test_the_small_config_is_the_papers_with_the_parts_of_the_recipe(recipe):
  small = _load(_ROOT / 'configs' / 'ham10000_small.py').get_config()
  best = _load(_ROOT / 'configs' / 'ham10000_best_small.py').get_config()
  assert recipe.with_parts(small, recipe.RECIPE) == best


def test_cases_take_each_part_alone_and_away(recipe):
  cases = recipe.cases()
  assert cases['paper'] == ()
  assert cases['whole recipe'] == recipe.RECIPE
  for part in recipe.PARTS:
    assert cases[f'paper with {part}'] == (part,)
    if part in recipe.RECIPE:
      rest = cases[f'whole without {part}']
      assert {*rest, part} == set(recipe.RECIPE)
      assert part not in rest
    else:
      assert cases[f'whole with {part}'][-1] == part
  base = config_lib.Config()
  changed = {n: recipe.with_parts(base, parts) for n, parts in cases.items()}
  assert base == config_lib.Config()
  # No part does nothing.
  assert sum(config == base for config in changed.values()) == 1


def test_validation_is_a_fifth_of_the_training_images_by_lesion(recipe):
  # Lesions of five images each; the paper's validation images are the last.
  rows = [
    {
      'image_id': f'ISIC_{24306 + i:07d}',
      'lesion_id': f'L{i // 5}',
      'dx': 'nv',
    }
    for i in range(10015)
  ]
  split = recipe.inner_split(rows)
  assert sorted(split.train + split.validation) == [
    row['image_id'] for row in rows[:8016]
  ]
  assert len(split.validation) == pytest.approx(8016 / 5, abs=5)
  lesion = {row['image_id']: row['lesion_id'] for row in rows}
  assert not {lesion[i] for i in split.train} & {
    lesion[i] for i in split.validation
  }


def test_table_by_hand(recipe, tmp_path):
  counts = {
    'paper': {'tp': [6, 2], 'fp': [0, 0], 'fn': [2, 2], 'tn': [2, 6]},
    'paper with cosine': {
      'tp': [8, 4],
      'fp': [0, 0],
      'fn': [0, 0],
      'tn': [2, 6],
    },
  }
  for name, columns in counts.items():
    arrays = {n: np.array(columns[n]) for n in metrics.COUNTS}
    np.savez(tmp_path / f'{name}.npz', seconds=1.0, **arrays)
  text = recipe.table([tmp_path], list(counts), ['a', 'b'])
  paper, cosine = text.splitlines()[2:]
  # Pooled 2 * 8 / (16 + 4) = .8; per image 12 / 14 and 4 / 6, mean .7619;
  # IoU .75 and .5, of which .65 and more count: .375.
  assert paper == '| paper | 0.8000 |  | 0.7619 |  | 0.3750 |  |'
  assert cosine.startswith('| paper with cosine | 1.0000 | +0.2000 (')
  assert '| 1.0000 | +0.2381 (' in cosine
