"""The comparison of all networks: same protocol, fair splits, right sums."""

import csv

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
    measured.save(
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
  return networks.study(name, seeds, _SETTING, folder, _Source(), folder)


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
  about = _study('unet', tmp_path, seeds=(0, 1, 2))
  assert trained[-1][0] == 'unet_seed2'
  assert about['learning_rate'] == 1e-3
  dice = {5: 10 / 12, 9: 18 / 20}
  assert about['tried'] == pytest.approx(
    {'0.0003': dice[5], '0.001': dice[9], '0.003': dice[5]}, abs=1e-4
  )
  assert about['epochs'] == 1


def test_a_failure_is_told_and_stops_nobody(trained, tmp_path):
  _study('segnet', tmp_path)
  _study('segnet', tmp_path)
  assert len(trained) == 1
  _study('unet', tmp_path)
  (tmp_path / 'unet.json').write_text('{"learning_rate": 1, "predict_ms": 1}')
  views = {'scratch': networks_report.View(['unet', 'segnet'], 'unet')}
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


def test_each_name_has_its_process_and_a_crash_stops_nobody(
  monkeypatch, tmp_path, capsys
):
  started = []

  def call(command):
    name = command[-1]
    started.append(name)
    (tmp_path / 'smoke' / 'networks.md').write_text('the table')
    return {'segnet': -9, 'fpn_lite0': 2}.get(name, 0)

  monkeypatch.setattr(networks.subprocess, 'call', call)
  argv = ['networks.py', '--output_dir', str(tmp_path), '--setting', 'smoke']
  networks.main([*argv, '--only', 'unet', 'segnet', 'otsu_blue'])
  assert started == ['unet', 'segnet', 'otsu_blue']
  assert 'SIGKILL' in (tmp_path / 'smoke' / 'segnet.failed').read_text()
  assert capsys.readouterr().out == 'the table\n'
  # Wrong input, and a user who stops it, end everything.
  with pytest.raises(SystemExit) as end:
    networks.main([*argv, '--only', 'fpn_lite0', 'unet'])
  assert end.value.code == 2
  assert started[3:] == ['fpn_lite0']
  assert not (tmp_path / 'smoke' / 'fpn_lite0.failed').exists()


@pytest.fixture
def source():
  """Two images of the paper's validation set."""
  images = np.full((2, 32, 32, 3), 220, np.uint8)
  images[0, 8:24, 8:24] = images[1, 12:20, 4:28] = 60
  masks = (images[..., 0] == 60).astype(np.uint8)
  return images, masks


def test_classical_methods_are_scored_on_the_same_images(
  monkeypatch, source, tmp_path
):
  pytest.importorskip('cv2', reason="needs the extra 'classical'")
  pytest.importorskip('skimage', reason="needs the extra 'classical'")
  import classical

  read = []

  def read_images(source_, image_ids, image_size, data_dir):
    del source_, data_dir
    read.append((image_ids, image_size))
    return classical.Images(*source, ['a', 'b'])

  monkeypatch.setattr(classical, 'read_images', read_images)
  split = splits.Split(['t'], ['v1', 'v2'])
  monkeypatch.setattr(splits, 'make_split', lambda *_: split)
  score = lambda setting: networks.score_classical(
    'otsu_grey', setting, tmp_path, _Source(), tmp_path
  )
  score(_SETTING)
  score(_SETTING)
  assert read == [(['v1', 'v2'], 32)]
  with np.load(tmp_path / 'otsu_grey.npz') as counts:
    total = counts['tp'] + counts['fn']
    assert total.tolist() == [16 * 16, 8 * 24]
    assert (counts['tp'] > 0.8 * total).all()
  with pytest.raises(errors.InputError, match='another folder'):
    score(networks.SETTINGS['cpu'])


@pytest.mark.parametrize('name', ['unet', 'pspnet_lite0', 'edges'])
def test_what_is_timed_predicts_each_image(name, source):
  if name == 'edges':
    pytest.importorskip('cv2', reason="needs the extra 'classical'")
    pytest.importorskip('skimage', reason="needs the extra 'classical'")
  predicted = networks._predictor(name, _SETTING)(source[0])
  shapes = [np.squeeze(each).shape for each in predicted]
  assert shapes == [(32, 32), (32, 32)]


def test_the_time_is_of_one_image(monkeypatch, source, tmp_path):
  class Data:
    images = np.repeat(source[0], 32, axis=0)

  monkeypatch.setattr(networks.cache, 'open_cache', lambda *_: Data)
  seen = []
  predict = lambda images: seen.append(len(images))
  monkeypatch.setattr(networks, '_predictor', lambda *_: predict)
  clock = iter(range(0, 1000, 16))  # The 32 images take 16 s.
  monkeypatch.setattr(networks.time, 'perf_counter', lambda: next(clock))
  found = networks.milliseconds('unet', _SETTING, _Source(), tmp_path)
  assert found == 500
  assert seen == [32] * (1 + networks._TIMED_TURNS)


def test_scores_and_differences_by_hand(tmp_path):
  # Two images of two lesions, two seeds.
  tables = {
    'unet': [([6, 2], [2, 0], [0, 2]), ([6, 4], [2, 0], [0, 0])],
    'fpn': [([6, 4], [0, 0], [0, 0]), ([6, 4], [0, 0], [0, 0])],
  }
  for name, seeds in tables.items():
    (tmp_path / f'{name}.json').write_text(
      '{"learning_rate": 0.001, "predict_ms": 7.5}'
    )
    for seed, (tp, fp, fn) in enumerate(seeds):
      np.savez(
        tmp_path / f'{name}_seed{seed}.npz',
        tp=tp, fp=fp, fn=fn, tn=[2, 6], seconds=1.0, cpu_seconds=90.0,
      )  # fmt: skip
  np.savez(tmp_path / 'edges.npz', tp=[6, 1], fp=[0, 0], fn=[0, 3], tn=[4, 6])
  (tmp_path / 'edges.json').write_text('{"predict_ms": 2.5}')
  views = {
    'scratch': networks_report.View(['unet', 'fpn', 'segnet'], 'unet'),
    'classical': networks_report.View(['edges', 'otsu_grey'], 'unet'),
  }
  networks_report.write(tmp_path, views, [0, 1], ['a', 'b'])
  with (tmp_path / 'networks.csv').open() as file:
    unet, fpn, edges = csv.DictReader(file)
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
  assert (unet['predict_ms'], edges['predict_ms']) == ('7.5', '2.5')
  # 12/12 and 2/5; there are no seeds and no training.
  assert float(edges['mean_dice']) == pytest.approx(0.7, abs=1e-4)
  assert float(edges['difference_of_mean_dice']) == pytest.approx(
    0.7 - (first + second) / 2, abs=1e-4
  )
  assert edges['cpu_minutes'] == edges['seeds'] == ''
  table = (tmp_path / 'networks.md').read_text().splitlines()
  assert table[-1].startswith('| `edges` | 0.8235 (')
  assert table[-1].endswith('|  | 2.5 ms |')
  assert table[2].endswith('| 1.5 min, 7.5 ms |')
  assert table[0].startswith('| scratch |')
  assert table[5].startswith('| classical |')
  assert (tmp_path / 'networks.png').exists()
