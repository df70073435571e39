"""What training starts from, and how fast an encoder learns."""

import copy
import dataclasses
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import run_files
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax import main
from skinseg_jax.data import input_pipeline
from skinseg_jax.inference import trained_model
from skinseg_jax.models import build
from skinseg_jax.runtime import errors
from skinseg_jax.training import train_state, train_step
from skinseg_jax.weights import pretrained, tensor_files, torch_layouts


@pytest.mark.parametrize('optimizer', ['adam', 'adamw'])
def test_the_encoder_takes_a_share_of_the_step(optimizer):
  params = {
    'encoder': {'conv1': {'kernel': np.ones((2, 2), np.float32)}},
    'decoder': {'encoder': np.ones(3, np.float32)},
  }
  grads = jax.tree.map(lambda x: 0.3 * x, params)
  updates = {}
  for rate in (1.0, 0.1, 0.0):
    config = config_lib.TrainConfig(encoder_rate=rate, optimizer=optimizer)
    config.weight_decay = 0.2 if optimizer == 'adamw' else 0.0
    ours = train_state.create_optimizer(config, 1)
    updates[rate], _ = ours.update(grads, ours.init(params), params)
  whole = updates[1.0]['encoder']['conv1']['kernel']
  assert (whole < 0).all()
  for rate, update in updates.items():
    np.testing.assert_allclose(
      update['encoder']['conv1']['kernel'], rate * whole, rtol=1e-6
    )
    # Only the outermost name counts.
    assert np.array_equal(
      update['decoder']['encoder'], updates[1.0]['decoder']['encoder']
    )


def _static(config):
  return train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  )


def _leaves(tree):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _equal(one, two):
  return all(map(np.array_equal, _leaves(one), _leaves(two)))


@pytest.mark.parametrize('ema', [0.0, 0.9])
def test_another_runs_best_checkpoint_is_started_from(tiny_run, ema):
  workdir, _ = tiny_run
  best = trained_model.load(workdir, 'best')
  config = copy.deepcopy(best.config)
  config.train.init_from, config.train.ema = str(workdir), ema
  recorded = train_state.find_initial_weights(config)
  assert recorded['init_from']['workdir'] == str(workdir)
  assert recorded['init_from']['step'] == best.step
  static = _static(config)
  state = train_state.with_initial_weights(static, config, recorded)
  assert jax.tree.structure(state) == jax.tree.structure(static.state)
  assert _equal(state[0], best.state)
  assert not _equal(state[0], static.state[0])
  # The optimiser starts fresh.
  if ema:
    assert _equal(state[1][0], best.state)
    assert _equal(state[1][1], static.state[1][1])
  else:
    assert _equal(state[1], static.state[1])


def test_another_width_cannot_be_started_from(tiny_run):
  workdir, _ = tiny_run
  config = trained_model.load(workdir, 'last').config
  config.model.width, config.train.init_from = 4, str(workdir)
  with pytest.raises(errors.InputError, match='model.width: 2 there, 4 now'):
    train_state.find_initial_weights(config)


def test_a_run_says_what_it_started_from(tiny_run, tmp_path):
  workdir, _ = tiny_run
  config = trained_model.load(workdir, 'last').config
  config.train.init_from, config.train.epochs = str(workdir), 1
  main.train_and_evaluate(config, tmp_path / 'run')
  environment = json.loads((tmp_path / 'run' / 'environment.json').read_text())
  step = trained_model.load(workdir, 'best').step
  recorded = environment['initial_weights']['init_from']
  assert (recorded['workdir'], recorded['step']) == (str(workdir), step)


def test_a_checkpoint_that_changed_or_went_is_refused(tiny_run, tmp_path):
  source = shutil.copytree(tiny_run[0], tmp_path / 'source')
  config = trained_model.load(source, 'last').config
  config.train.init_from = str(source)
  recorded = train_state.find_initial_weights(config)
  static = _static(config)
  train_state.with_initial_weights(static, config, recorded)
  other = {'init_from': {**recorded['init_from'], 'sha256': '0' * 64}}
  with pytest.raises(errors.InputError, match='other weights now; start this'):
    train_state.with_initial_weights(static, config, other)
  other = {'init_from': {**recorded['init_from'], 'step': 77}}
  with pytest.raises(errors.InputError, match='cannot be read any more; start'):
    train_state.with_initial_weights(static, config, other)


def _encoder_config(tmp_path):
  """A network with dropout on an encoder with weights from a file."""
  config = config_lib.Config()
  config.data.source, config.data.split = 'synthetic', 'random'
  config.data.data_dir = str(tmp_path / 'data')
  config.data.num_synthetic, config.data.image_size = 12, (64, 64)
  config.model.architecture = 'pspnet'
  config.model.encoder = 'efficientnet_lite0'
  config.train.batch_size, config.train.epochs = 4, 2
  config.train.encoder_rate = 0.5
  config.evaluation.batch_size = 4
  return config


def _write_encoder(config, path):
  encoder = build.create(config.model, seed=5).encoder
  tensor_files.write(path, torch_layouts.from_flax(encoder))
  config.model.encoder_weights = str(path)
  return nnx.state(encoder)


def test_an_encoder_starts_with_the_weights_of_a_file(tmp_path):
  config = _encoder_config(tmp_path)
  written = _write_encoder(config, tmp_path / 'encoder.safetensors')
  recorded = train_state.find_initial_weights(config)
  static = _static(config)
  state = train_state.with_initial_weights(static, config, recorded)
  assert jax.tree.structure(state) == jax.tree.structure(static.state)
  assert _equal(state[0]['encoder'], written)
  assert _equal(state[0]['decoder'], static.state[0]['decoder'])
  # Another file in its place is not what the run began with.
  _write_encoder(_encoder_config(tmp_path), tmp_path / 'other.safetensors')
  recorded['encoder_weights']['sha256'] = '0' * 64
  with pytest.raises(errors.InputError, match='SHA-256'):
    train_state.with_initial_weights(static, config, recorded)


@pytest.mark.slow
def test_dropout_and_pretrained_weights_resume_to_the_bit(
  tmp_path, monkeypatch
):
  config = _encoder_config(tmp_path)
  path = tmp_path / 'encoder.safetensors'
  _write_encoder(config, path)
  expected = main.train_and_evaluate(config, tmp_path / 'whole')
  half = run_files.changed(config, epochs=1)
  main.train_and_evaluate(half, tmp_path / 'parts')
  # Only the start needs the file.
  path.unlink()
  monkeypatch.delattr(pretrained, 'find')
  resumed = main.train_and_evaluate(config, tmp_path / 'parts')
  assert resumed['counts'] == expected['counts']
  whole, parts = (
    run_files.checkpoint(tmp_path / name, config) for name in ('whole', 'parts')
  )
  assert whole[0] == parts[0] == 4
  assert all(map(np.array_equal, whole[1], parts[1]))


def test_dropout_follows_from_seed_and_step_alone():
  keys = [
    tuple(jax.random.key_data(train_step.dropout_key(seed, step)).tolist())
    for seed, step in ((0, 0), (0, 1), (1, 0), (0, 0))
  ]
  assert keys[0] == keys[3]
  assert len(set(keys)) == 3


_ON_DEVICES = """
import jax, numpy as np, sys
jax.config.update('jax_enable_x64', True)
from skinseg_jax import config as config_lib
from skinseg_jax.data import input_pipeline
from skinseg_jax.inference import forward_pass
from skinseg_jax.training import train_state, train_step
config = config_lib.Config()
config.model.architecture, config.model.encoder = 'pspnet', 'resnet18'
config.model.compute_dtype = 'float64'
config.train.accumulation_steps = int(sys.argv[3])
sharding = input_pipeline.data_sharding()
static = train_state.create(config, sharding, num_updates=1)
wide = lambda x: x.astype('float64') if x.dtype == 'float32' else x
state = jax.tree.map(wide, static.state)
rng = np.random.default_rng(0)
for _ in range(2):
  batch = {
    'image': rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
    'mask': rng.integers(0, 2, (8, 32, 32), np.uint8),
  }
  state, metrics = train_step.train_step(
    static.graphdef, state, jax.device_put(batch, sharding), config=config
  )
logits = forward_pass.forward(
  static.eval_graphdef, state[0], jax.device_put(batch, sharding)['image'],
  views='off',
)
lesion = (np.asarray(logits) > 0).sum(axis=(1, 2, 3))
leaves = jax.tree.leaves(state[0])
assert len(leaves[0].sharding.device_set) == int(sys.argv[1])
np.savez(sys.argv[2], lesion, metrics['loss'], *map(np.asarray, leaves))
"""


@pytest.mark.slow
@pytest.mark.parametrize(('parts', 'numbers'), [(1, (1, 2, 4)), (2, (1, 4))])
def test_dropout_is_the_same_on_one_two_and_four_devices(
  tmp_path, parts, numbers
):
  results = []
  for devices in numbers:
    path = tmp_path / f'{devices}.npz'
    flag = f'--xla_force_host_platform_device_count={devices}'
    subprocess.run(
      [sys.executable, '-c', _ON_DEVICES, str(devices), path, str(parts)],
      check=True,
      env={**os.environ, 'XLA_FLAGS': flag, 'JAX_PLATFORMS': 'cpu'},
    )
    with np.load(path) as arrays:
      results.append([arrays[name] for name in arrays.files])
  one, *others = results
  for other in others:
    np.testing.assert_array_equal(one[0], other[0])  # Pixels called lesion.
    for a, b in zip(one, other, strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * np.abs(a).max())


@pytest.mark.parametrize('changes', [{'encoder_weights': 'imagenet'}])
def test_init_from_gives_all_weights(tiny_run, changes):
  from skinseg_jax import config_rules

  config = config_lib.Config()
  config.data.source = 'synthetic'
  config.model = dataclasses.replace(
    config.model, encoder='resnet18', **changes
  )
  config.train.init_from = str(tiny_run[0])
  with pytest.raises(errors.InputError, match='empty with train.init_from'):
    config_rules.validate(config)
