"""Batches in parts and rematerialisation change memory use, not results."""

import copy

import jax
import numpy as np
import pytest
from flax import nnx

from skinseg_jax import config_rules
from skinseg_jax.data import input_pipeline
from skinseg_jax.runtime import compilation, errors
from skinseg_jax.training import train_state
from skinseg_jax.training import train_step as train_step_lib


@pytest.fixture(scope='module')
def config(tiny_config):
  config = copy.deepcopy(tiny_config)
  config.augmentation.rotation_degrees = 0.0
  config.augmentation.horizontal_flip = 0.0
  config.augmentation.vertical_flip = 0.0
  return config


def _batch(num_images, size):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (num_images, size, size, 3), np.uint8)
  return {'image': images, 'mask': (images[..., 0] > 128).astype(np.uint8)}


def _step(config, batch, **changes):
  """Statistics before an update, the state after it, and its result."""
  config = copy.deepcopy(config)
  for name, value in changes.items():
    setattr(config.train, name, value)
  static = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  )
  before = [
    np.asarray(leaf)
    for leaf in jax.tree.leaves(
      nnx.filter_state(static.state[0], nnx.BatchStat)
    )
  ]
  compiled = compilation.compile_step(
    train_step_lib.train_step,
    static.graphdef,
    static.state,
    batch,
    xla_options='',
    config=config,
  )
  state, returned = compiled(static.graphdef, static.state, batch)
  return before, state, jax.device_get(returned), compiled


@pytest.fixture(scope='module')
def half(config):
  """One update on two images."""
  return _step(config, _batch(2, 32))


def test_parts_of_a_batch_act_as_their_mean(config, half):
  # The parts are images 0 and 2, and images 1 and 3; here both parts hold the
  # same two images.
  batch = _batch(2, 32)
  twice = {name: np.repeat(rows, 2, axis=0) for name, rows in batch.items()}
  before, state, returned, _ = _step(config, twice, accumulation_steps=2)
  _, expected, half_returned, _ = half
  params = lambda state: jax.tree.leaves(nnx.filter_state(state[0], nnx.Param))
  for found, wanted in zip(params(state), params(expected), strict=True):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
  assert returned['loss'] == pytest.approx(half_returned['loss'], rel=1e-6)
  for name in ('tp', 'fp', 'fn', 'tn'):
    assert returned[name] == 2 * half_returned[name]
  assert int(state[1]['step'][...]) == 1
  # Once: r1 = 0.9 r0 + 0.1 x. Twice: 0.9 r1 + 0.1 x = 1.9 r1 - 0.9 r0.
  stats = lambda state: jax.tree.leaves(
    nnx.filter_state(state[0], nnx.BatchStat)
  )
  for r0, r1, r2 in zip(before, stats(expected), stats(state), strict=True):
    np.testing.assert_allclose(r2, 1.9 * r1 - 0.9 * r0, rtol=1e-5, atol=1e-6)


def test_remat_computes_again_and_learns_the_same(config, half):
  _, state, returned, compiled = _step(config, _batch(2, 32), remat=True)
  _, expected, half_returned, plain = half
  for found, wanted in zip(
    jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
  assert returned['loss'] == pytest.approx(half_returned['loss'], rel=1e-6)
  # JAX gives this name to values that are computed a second time.
  recomputes = lambda c: 'rematted_computation' in c.as_text()
  assert recomputes(compiled)
  assert not recomputes(plain)


def test_weights_that_are_not_finite_are_told(config, half):
  _, _, returned, compiled = half
  assert returned['finite']
  static = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  )
  state = jax.tree.map(
    lambda leaf: leaf * np.nan if leaf.shape == (1,) else leaf, static.state
  )  # Only the bias of the last layer.
  _, returned = compiled(static.graphdef, state, _batch(2, 32))
  assert not returned['finite']


def test_parts_must_divide_the_batch(config):
  config = copy.deepcopy(config)
  config.train.accumulation_steps = 3
  with pytest.raises(errors.InputError, match='a divisor of train.batch_size'):
    config_rules.validate(config)
