"""The comparison of all networks: same protocol, fair splits, right sums."""

import csv
import json

import measured
import networks
import networks_report
import numpy as np
import pytest

from skinseg_jax.data import splits
from skinseg_jax.models import build
from skinseg_jax.runtime import errors

_SETTING = networks.SETTINGS['smoke']


def test_both_views_hold_what_they_promise(tmp_path):
  views = {'scratch': set(), 'pretrained': set()}
  configs = []
  for network in networks.NETWORKS.values():
    views[network.view].add(network.model.architecture)
    configs.append(networks.config(network, _SETTING, 1e-3, tmp_path))
  assert views['scratch'] == set(build.ARCHITECTURES)
  assert views['pretrained'] == set(networks._ON_ENCODER)
  # Everything but the network is the same.
  first = configs[0]
  for config in configs[1:]:
    assert config.train == first.train
    assert config.augmentation == first.augmentation
    assert config.data == first.data


def test_the_rate_is_chosen_on_training_images_of_other_lesions():
  rows = [
    {
      'image_id': f'ISIC_{24306 + i:07d}',
      'lesion_id': f'L{i // 5}',
      'dx': 'nv',
    }
    for i in range(10015)
  ]
  split = networks.choice_split(rows)
  assert (len(split.train), len(split.validation)) == networks._CHOICE
  assert max(split.train + split.validation) < rows[8016]['image_id']
  lesion = {row['image_id']: row['lesion_id'] for row in rows}
  assert not {lesion[i] for i in split.train} & {
    lesion[i] for i in split.validation
  }


class _Source:
  metadata = ()


@pytest.fixture
def trained(monkeypatch):
  """Trainings are pretended: the rate decides the Dice of the images."""
  done = []

  def measure(configs, folder, source, *, recompute):
    del source, recompute
    ((name, config),) = configs.items()
    done.append((name, config))
    if config.model.architecture == 'segnet':
      raise FloatingPointError('nan')
    good = 9 if config.train.learning_rate == 1e-3 else 5
    counts = {'tp': [good] * 2, 'fp': [1] * 2, 'fn': [1] * 2, 'tn': [5] * 2}
    fingerprint = measured.fingerprint(config, splits.Split([], []))
    measured._save(
      folder / f'{name}.npz',
      fingerprint=fingerprint,
      seconds=60.0,
      cpu_seconds=120.0,
      **{key: np.array(value) for key, value in counts.items()},
    )

  monkeypatch.setattr(measured, 'measure', measure)
  empty = splits.Split([], [])
  monkeypatch.setattr(splits, 'make_split', lambda *_: empty)
  monkeypatch.setattr(networks, 'choice_split', lambda _: empty)
  return done


def _study(name, folder, seeds=(0, 1)):
  networks.study(name, seeds, _SETTING, folder, _Source(), folder)


def test_the_best_rate_is_used_and_nothing_is_trained_twice(trained, tmp_path):
  _study('unet', tmp_path)
  assert [name for name, _ in trained] == [
    *(f'unet_rate{rate:g}' for rate in networks.RATES),
    'unet_seed0', 'unet_seed1',
  ]  # fmt: skip
  for seed, (_, config) in enumerate(trained[-2:]):
    assert config.train.learning_rate == 1e-3
    assert config.train.seed == seed
    assert config.data.split == 'paper'
  _study('unet', tmp_path)
  assert len(trained) == 5
  _study('unet', tmp_path, seeds=(0, 1, 2))
  assert trained[-1][0] == 'unet_seed2'
  assert json.loads((tmp_path / 'unet.json').read_text())['epochs'] == 1


def test_a_failure_is_told_and_stops_nobody(trained, tmp_path):
  _study('segnet', tmp_path)
  _study('segnet', tmp_path)
  assert len(trained) == 1
  _study('unet', tmp_path)
  views = {'scratch': ['unet', 'segnet']}
  networks_report.write(tmp_path, views, [0], ['a', 'b'])
  with (tmp_path / 'networks.csv').open() as file:
    unet, segnet = csv.DictReader(file)
  assert segnet['failure'] == 'FloatingPointError: nan'
  assert float(unet['mean_dice']) == pytest.approx(18 / 20)
  assert 'failed: FloatingPointError' in (tmp_path / 'networks.md').read_text()


def test_a_result_of_another_setting_is_refused(trained, tmp_path):
  _study('unet', tmp_path)
  other = networks.SETTINGS['cpu']
  with pytest.raises(errors.InputError, match='another folder'):
    networks.study('unet', (0,), other, tmp_path, _Source(), tmp_path)


def test_scores_and_differences_by_hand(tmp_path):
  # Two images of two lesions, two seeds.
  tables = {
    'unet': [([6, 2], [2, 0], [0, 2]), ([6, 4], [2, 0], [0, 0])],
    'fpn': [([6, 4], [0, 0], [0, 0]), ([6, 4], [0, 0], [0, 0])],
  }
  for name, seeds in tables.items():
    (tmp_path / f'{name}.json').write_text('{"learning_rate": 0.001}')
    for seed, (tp, fp, fn) in enumerate(seeds):
      np.savez(
        tmp_path / f'{name}_seed{seed}.npz',
        tp=tp, fp=fp, fn=fn, tn=[2, 6], seconds=1.0, cpu_seconds=90.0,
      )  # fmt: skip
  networks_report.write(tmp_path, {'scratch': list(tables)}, [0, 1], ['a', 'b'])
  with (tmp_path / 'networks.csv').open() as file:
    unet, fpn = csv.DictReader(file)
  # 2 tp / (2 tp + fp + fn): 12/14 and 4/6, then 12/14 and 8/8.
  first, second = (12 / 14 + 4 / 6) / 2, (12 / 14 + 1) / 2
  assert float(unet['mean_dice']) == pytest.approx(
    (first + second) / 2, abs=1e-4
  )
  assert float(unet['mean_dice_worst_seed']) == pytest.approx(first, abs=1e-4)
  assert float(unet['mean_dice_best_seed']) == pytest.approx(second, abs=1e-4)
  assert float(unet['pooled_dice']) == pytest.approx(36 / 42, abs=1e-4)
  assert float(fpn['difference_of_mean_dice']) == pytest.approx(
    1 - (first + second) / 2, abs=1e-4
  )
  assert unet['difference_of_mean_dice'] == ''
  assert unet['cpu_minutes'] == '1.5'
  assert (tmp_path / 'networks.png').exists()
