import dataclasses
import importlib.util
import pathlib

import measured
import numpy as np
import pytest
from scipy import ndimage

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, input_pipeline, splits
from skinseg_jax.data.sources import catalog
from skinseg_jax.inference import trained_model
from skinseg_jax.metrics import confusion
from skinseg_jax.runtime import errors
from skinseg_jax.training import train_state

_ROOT = pathlib.Path(__file__).parents[2]


def _load(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='module')
def recipe():
  return _load(_ROOT / 'scripts' / 'studies' / 'recipe.py')


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
  # Every part changes the config; only the paper's recipe equals the base.
  assert sum(config == base for config in changed.values()) == 1


def test_validation_is_a_fifth_of_the_training_images_by_lesion(recipe):
  # Each lesion has five images; the paper's validation images come last.
  rows = [
    {
      'image_id': f'ISIC_{24306 + i:07d}',
      'lesion_id': f'L{i // 5}',
      'dx': 'nv',
    }
    for i in range(10015)
  ]
  split = measured.inner_split(rows)
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
    arrays = {n: np.array(columns[n]) for n in confusion.COUNTS}
    np.savez(tmp_path / f'{name}.npz', seconds=1.0, **arrays)
  text = recipe.table([tmp_path], list(counts), ['a', 'b'])
  paper, cosine = text.splitlines()[2:]
  # Pooled 2 * 8 / (16 + 4) = .8; per image 12 / 14 and 4 / 6, mean .7619;
  # IoU .75 and .5; values below .65 count as 0: mean .375.
  assert paper == '| paper | 0.8000 |  | 0.7619 |  | 0.3750 |  |'
  assert cosine.startswith('| paper with cosine | 1.0000 | +0.2000 (')
  assert '| 1.0000 | +0.2381 (' in cosine


def test_the_whole_recipe_is_compared_with_the_papers_its_parts_with_it(
  recipe, tmp_path
):
  right = {'paper': 4, 'whole recipe': 6, 'whole without turns': 7}
  for seed in ('seed0', 'seed1'):
    (tmp_path / seed).mkdir()
    for name, tp in right.items():
      tp -= seed == 'seed1'  # The mean of both is half a pixel lower.
      arrays = {
        'tp': [tp] * 2,
        'fp': [0] * 2,
        'fn': [8 - tp] * 2,
        'tn': [2] * 2,
      }
      np.savez(tmp_path / seed / f'{name}.npz', seconds=1.0, **arrays)
  text = recipe.table(
    [tmp_path / 'seed0', tmp_path / 'seed1'], list(right), ['a', 'b']
  )
  pooled = [line.split(' | ')[1:3] for line in text.splitlines()[2:]]
  # 16 lesion pixels in two seeds: 2 * 7 / (7 + 16), 2 * 11 / 27, 2 * 13 / 29.
  assert [row[0] for row in pooled] == ['0.6087', '0.8148', '0.8966']
  # Both images are equal, so every draw gives the same result.
  assert pooled[1][1] == '+0.2061 (+0.2061 to +0.2061)*'
  assert pooled[2][1] == '+0.0817 (+0.0817 to +0.0817)*'


@pytest.fixture(scope='module')
def tiny(tiny_config):
  """A one-epoch config without augmentation, its source and its split."""
  config = dataclasses.replace(
    tiny_config,
    train=dataclasses.replace(tiny_config.train, epochs=1, ema=0.9),
  )
  source = catalog.open_source(config.data)
  return config, source, splits.make_split(config.data, source.metadata)


def test_recomputed_statistics_belong_to_the_images(recipe, tiny, monkeypatch):
  config, source, _ = tiny
  data = cache.open_cache(
    source, config.data.image_size, pathlib.Path(config.data.data_dir)
  )
  sharding = input_pipeline.data_sharding()
  made = train_state.create(config, sharding, num_updates=1)
  model = trained_model.TrainedModel(
    config=config,
    graphdef=made.eval_graphdef,
    state=made.state[0],
    step=0,
    best=None,
  )
  monkeypatch.setattr(measured, '_BATCH_SIZE', 9)
  state = measured.recomputed_statistics(model, data, data.image_ids)
  # Three whole batches of 28 images. The input of the first layer does not
  # depend on other layers.
  chosen = [i * 28 // 27 for i in range(27)]
  images = np.asarray(data.images[chosen], np.float64) / 255
  kernel = np.asarray(state['downs'][0]['conv1']['kernel'][...], np.float64)
  norm = state['downs'][0]['norm1']
  for feature in range(kernel.shape[-1]):
    maps = sum(
      ndimage.correlate(
        images[..., i], kernel[None, :, :, i, feature], mode='constant'
      )
      for i in range(3)
    ).reshape(3, -1)
    np.testing.assert_allclose(norm['mean'][feature], maps.mean(), rtol=1e-4)
    # The mean of the variances of the three batches.
    np.testing.assert_allclose(
      norm['var'][feature], maps.var(axis=1).mean(), rtol=1e-4
    )
  # The learned weights are unchanged.
  assert np.array_equal(
    kernel, made.state[0]['downs'][0]['conv1']['kernel'][...]
  )


def test_cases_that_predict_differently_share_a_training(
  recipe, tiny, tmp_path, monkeypatch
):
  config, source, split = tiny
  splits.write_split(split, tmp_path / 'split.csv')
  config = dataclasses.replace(
    config,
    data=dataclasses.replace(config.data, split=str(tmp_path / 'split.csv')),
  )
  views = dataclasses.replace(
    config,
    evaluation=dataclasses.replace(
      config.evaluation, test_time_augmentation='flips'
    ),
  )
  started = []
  trainer = measured.trainer_lib.Trainer
  monkeypatch.setattr(
    measured.trainer_lib,
    'Trainer',
    lambda *args: started.append(args) or trainer(*args),
  )
  # There is no whole batch of 32 images to compute statistics from.
  monkeypatch.setattr(measured, '_BATCH_SIZE', 4)
  measured.measure(
    {'one': config, 'views': views}, tmp_path, source, recompute=True
  )
  assert len(started) == 1
  assert {path.name for path in tmp_path.glob('*.npz')} == {
    f'{name}{suffix}.npz'
    for name in ('one', 'views')
    for suffix in ('', ', statistics recomputed')
  }
  scored = dict(np.load(tmp_path / 'one.npz'))
  pixels = sum(scored[name] for name in confusion.COUNTS)
  assert pixels.tolist() == [32 * 32] * len(split.validation)
  wanted = measured.fingerprint(config, split)
  assert measured.is_measured(tmp_path / 'one.npz', wanted)
  assert not measured.is_measured(tmp_path / 'two.npz', wanted)
  with pytest.raises(errors.InputError, match='another config'):
    measured.is_measured(tmp_path / 'views.npz', wanted)
