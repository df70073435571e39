"""The comparison of all networks: same protocol, fair splits, right sums."""

import argparse
import fcntl
import json
from typing import ClassVar

import measured
import networks
import networks_protocol as protocol
import numpy as np
import pytest

from skinseg_jax.data import splits
from skinseg_jax.models import build
from skinseg_jax.runtime import errors

_SETTING = protocol.SETTINGS['smoke']


def test_the_views_hold_what_they_promise(tmp_path):
  models = lambda view: [
    protocol.NETWORKS[n] for n in protocol.VIEWS[view].names
  ]
  alone = {model.architecture for model in models('scratch')}
  on_encoder = models('pretrained')
  assert alone | {m.architecture for m in on_encoder} == set(
    build.ARCHITECTURES
  )
  assert {m.encoder for m in on_encoder} == {'efficientnet_lite0'}
  assert {m.encoder_weights for m in on_encoder} == {'imagenet'}
  assert {model.encoder for model in models('scratch')} == {''}
  # U-Net is what the others are compared with.
  for view in protocol.VIEWS.values():
    assert protocol.NETWORKS[view.reference].architecture == 'unet'
  # Everything but the network is the same.
  first, *others = [
    protocol.config(model, _SETTING, 1e-3, tmp_path)
    for model in protocol.NETWORKS.values()
  ]
  for config in others:
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
  split = protocol.choice_split(rows)
  assert (len(split.train), len(split.validation)) == protocol._CHOICE
  assert max(split.train + split.validation) < rows[8016]['image_id']
  lesion = {row['image_id']: row['lesion_id'] for row in rows}
  assert not {lesion[i] for i in split.train} & {
    lesion[i] for i in split.validation
  }


_LESIONS = {'t1': 'a', 'v1': 'b', 'v2': 'c', 'v3': 'c'}


class _Source:
  metadata = tuple(
    {'image_id': image, 'lesion_id': lesion}
    for image, lesion in _LESIONS.items()
  )


class _Data:
  """Many images of 32 px; each has a dark square or bar."""

  images = np.full((96, 32, 32, 3), 220, np.uint8)
  images[::2, 8:24, 8:24] = images[1::2, 12:20, 4:28] = 60
  masks = (images[..., 0] == 60).astype(np.uint8)
  image_ids = ('t1', 'v1', 'v2', 'v3', *map(str, range(92)))


@pytest.fixture
def study(monkeypatch, tmp_path):
  """A study without images; its split has one training image."""
  split = splits.Split(['t1'], ['v1', 'v2', 'v3'])
  monkeypatch.setattr(splits, 'make_split', lambda *_: split)
  monkeypatch.setattr(protocol, 'choice_split', lambda _: split)
  monkeypatch.setattr(networks.cache, 'open_cache', lambda *_: _Data)
  study = networks.Study(tmp_path, _SETTING, [0, 1], _Source(), tmp_path)
  monkeypatch.setattr(networks, 'open_study', lambda _: study)
  (tmp_path / '.locks').mkdir()
  return study


@pytest.fixture
def trained(monkeypatch):
  """Replaces training: the rate decides the Dice, some rates diverge."""
  done = []
  best, diverging = [1e-3], set()

  def measure(configs, folder, source, *, recompute):
    del source, recompute
    ((name, config),) = configs.items()
    done.append((name, config))
    rate = config.train.learning_rate
    if rate in diverging:
      raise errors.DivergenceError('not finite\nsome advice')
    good = 9 if rate == best[0] else 5
    counts = {'tp': [good] * 3, 'fp': [1] * 3, 'fn': [1] * 3, 'tn': [5] * 3}
    measured.save(
      folder / f'{name}.npz',
      fingerprint=measured.fingerprint(config, splits.make_split()),
      seconds=60.0,
      cpu_seconds=120.0,
      **{key: np.array(value) for key, value in counts.items()},
    )

  monkeypatch.setattr(measured, 'measure', measure)
  done_names = lambda: [name for name, _ in done]
  return argparse.Namespace(
    done=done, names=done_names, best=best, diverging=diverging
  )


def test_the_best_rate_is_used_and_nothing_is_trained_twice(trained, study):
  study = study._replace(setting=_SETTING._replace(epochs=2))
  about = networks.train('unet', study)
  assert trained.names() == [
    *(f'unet_rate{rate:g}' for rate in protocol.RATES),
    'unet_seed0', 'unet_seed1',
  ]  # fmt: skip
  # Rates are chosen by trainings of as many epochs, on other images.
  assert {c.train.epochs for _, c in trained.done} == {2}
  for _, config in trained.done[:3]:
    assert config.data.split.endswith('choice_split.csv')
  for seed, (_, config) in enumerate(trained.done[-2:]):
    assert config.train.learning_rate == 1e-3
    assert config.train.seed == seed
    assert config.data.split == 'paper'
  assert about['learning_rate'] == 1e-3
  assert about['tried'] == pytest.approx(
    {'0.0003': 10 / 12, '0.001': 18 / 20, '0.003': 10 / 12}, abs=1e-4
  )
  assert networks.train('unet', study) == about
  assert len(trained.done) == 5
  networks.train('unet', study._replace(seeds=[0, 1, 2]))
  assert trained.names()[5:] == ['unet_seed2']


def test_a_larger_rate_is_tried_while_the_largest_is_the_best(trained, study):
  trained.best[0] = 1e-2
  # 3e-3 is as good as the smaller ones, so 1e-2 is tried; 3e-2 is worse.
  assert networks.train('fpn_lite0', study)['learning_rate'] == 1e-2
  rates = [c.train.learning_rate for name, c in trained.done if 'rate' in name]
  assert rates == [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]


def test_a_rate_that_diverges_is_not_chosen_and_not_tried_again(trained, study):
  trained.diverging.add(3e-3)
  about = networks.train('unet', study)
  assert about['learning_rate'] == 1e-3
  assert about['tried']['0.003'] == -1
  networks.train('unet', study)
  assert len(trained.done) == 5
  trained.diverging.update(protocol.RATES + protocol.LARGER_RATES)
  with pytest.raises(errors.DivergenceError, match='each rate'):
    networks.train('segnet', study)


def test_a_result_of_another_setting_is_refused(trained, study):
  networks.train('unet', study)
  other = study._replace(setting=protocol.SETTINGS['cpu'])
  with pytest.raises(errors.InputError, match='another folder'):
    networks.train('unet', other)


def test_what_is_done_has_a_file_and_what_fails_another(
  trained, study, monkeypatch
):
  times = iter([7.123, 9.0])
  monkeypatch.setattr(networks, 'milliseconds', lambda *_: next(times))
  for _ in range(2):  # It is timed once.
    networks.measure('unet', study)
    about = json.loads((study.folder / 'unet.json').read_text())
    assert about['predict_ms'] == 7.12
    assert about['learning_rate'] == 1e-3
    assert about['epochs'] == _SETTING.epochs
  trained.diverging.update(protocol.RATES + protocol.LARGER_RATES)
  networks.measure('segnet', study)
  failed = (study.folder / 'segnet.failed').read_text()
  assert failed == 'DivergenceError: the training diverged with each rate\n'
  assert not (study.folder / 'segnet.json').exists()


class _Process:
  """A process that ends with the exit code of its network."""

  started: ClassVar[list[str]] = []
  codes: ClassVar[dict[str, int]] = {
    'segnet': -9,
    'resunetplusplus': 1,
    'fpn_lite0': 2,
    'unet_lite0': 130,
  }

  def __init__(self, target, args, daemon):
    assert target is networks._child
    assert daemon  # It ends with the script.
    self.name = args[0]

  def start(self):
    self.started.append(self.name)

  def join(self):
    self.exitcode = self.codes.get(self.name, 0)


@pytest.fixture
def main(monkeypatch, study):
  """Runs the script for some names, without real processes."""
  _Process.started.clear()
  monkeypatch.setattr(
    networks.multiprocessing,
    'get_context',
    lambda _: argparse.Namespace(Process=_Process),
  )
  monkeypatch.setattr(networks.signal, 'signal', lambda *_: None)
  monkeypatch.setattr(
    networks.train_state, 'find_initial_weights', lambda _: {}
  )
  base = ['networks.py', '--output_dir', str(study.folder)]
  return lambda *names: networks.main([*base, '--only', *names])


def test_a_process_that_crashes_is_in_the_table_and_others_go_on(
  main, study, capsys
):
  main('segnet', 'unet', 'resunetplusplus')
  assert _Process.started == ['segnet', 'unet', 'resunetplusplus']
  table = capsys.readouterr().out
  assert '| `segnet` | failed: the process ended with exit code -9 |' in table
  assert '| `resunetplusplus` | failed:' in table
  main('segnet', 'unet')  # What failed waits until its file is removed.
  assert _Process.started[3:] == ['unet']


@pytest.mark.parametrize(
  ('name', 'code'), [('fpn_lite0', 2), ('unet_lite0', 130)]
)
def test_wrong_input_and_a_stop_end_the_study(main, study, name, code):
  with pytest.raises(SystemExit) as end:
    main(name, 'unet')
  assert end.value.code == code
  assert _Process.started == [name]
  assert not (study.folder / f'{name}.failed').exists()


def test_missing_weights_are_told_before_anything_is_trained(main, monkeypatch):
  def find(config):
    if config.model.encoder_weights:
      raise errors.InputError('install it')
    return {}

  monkeypatch.setattr(networks.train_state, 'find_initial_weights', find)
  main('unet', 'segnet')
  with pytest.raises(errors.InputError, match='install it'):
    main('unet', 'fpn_lite0')
  assert _Process.started == ['unet', 'segnet']


def test_what_another_process_measures_is_left_to_it(
  study, monkeypatch, capsys
):
  measured_names = []
  monkeypatch.setattr(
    networks, 'measure', lambda name, _: measured_names.append(name)
  )
  with (study.folder / '.locks' / 'unet').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    networks._measure_alone('unet', None)
    networks._measure_alone('segnet', None)
  networks._measure_alone('unet', None)
  assert measured_names == ['segnet', 'unet']
  assert capsys.readouterr().out == 'unet: another process measures it\n'


def test_classical_methods_are_scored_on_the_validation_images(study):
  pytest.importorskip('cv2', reason="needs the extra 'classical'")
  pytest.importorskip('skimage', reason="needs the extra 'classical'")
  networks.score_classical('otsu_grey', study)
  path = study.folder / 'otsu_grey.npz'
  with np.load(path) as counts:
    total = counts['tp'] + counts['fn']
    # Images 1 to 3: bar, square, bar.
    assert total.tolist() == [8 * 24, 16 * 16, 8 * 24]
    assert (counts['tp'] > 0.8 * total).all()
  written = path.stat().st_mtime_ns
  networks.score_classical('otsu_grey', study)
  assert path.stat().st_mtime_ns == written
  other = study._replace(setting=protocol.SETTINGS['cpu'])
  with pytest.raises(errors.InputError, match='another folder'):
    networks.score_classical('otsu_grey', other)


@pytest.mark.parametrize('name', ['unet', 'pspnet_lite0', 'edges'])
def test_what_is_timed_predicts_each_image(name):
  if name == 'edges':
    pytest.importorskip('cv2', reason="needs the extra 'classical'")
    pytest.importorskip('skimage', reason="needs the extra 'classical'")
  predicted = networks._predictor(name, _SETTING)(_Data.images[:2])
  shapes = [np.squeeze(each).shape for each in predicted]
  assert shapes == [(32, 32), (32, 32)]


def test_the_time_is_of_one_image(monkeypatch, study):
  seen = []
  predict = lambda images: seen.append(len(images))
  monkeypatch.setattr(networks, '_predictor', lambda *_: predict)
  clock = iter(range(0, 1000, 16))  # The 32 images take 16 s.
  monkeypatch.setattr(networks.time, 'perf_counter', lambda: next(clock))
  assert networks.milliseconds('unet', study) == 500
  assert seen == [32] * (1 + networks._TIMED_TURNS)
