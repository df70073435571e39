import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from skinseg_jax import averaging, train_state, train_step
from skinseg_jax import config as config_lib
from skinseg_jax.data import input_pipeline


def test_decay_by_hand():
  # Updates 1, 9 and 10**6: 2 / 11, 10 / 19 and at most what is asked for.
  decays = [averaging.decay_at(jnp.int32(n), 0.99) for n in (1, 9, 10**6)]
  assert np.allclose(decays, [2 / 11, 10 / 19, 0.99])


class _Two(nnx.Module):
  """A weight and a running statistic."""

  def __init__(self, weight, statistic):
    self.weight = nnx.Param(jnp.float32(weight))
    self.statistic = nnx.BatchStat(jnp.float32(statistic))


def test_average_by_hand():
  average, model = _Two(1.0, 10.0), _Two(2.0, 30.0)
  # Update 1 keeps 2 / 11 of the old: 2 / 11 + 2 * 9 / 11 = 20 / 11.
  averaging.update_average(average, model, jnp.int32(1), 0.9)
  assert average.weight[...] == pytest.approx(20 / 11)
  assert average.statistic[...] == pytest.approx(10 * 2 / 11 + 30 * 9 / 11)
  assert (model.weight[...], model.statistic[...]) == (2, 30)


def test_constant_weights_are_their_own_average():
  average, model = _Two(0.3, 0.7), _Two(0.3, 0.7)
  averaging.update_average(average, model, jnp.int32(5), 0.9)
  assert average.weight[...] == np.float32(0.3)


def test_step_averages_what_it_updates():
  config = config_lib.Config()
  config.model.width = 1
  config.train.ema = 0.5
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.integers(0, 256, (2, 16, 16, 3), np.uint8),
    'mask': rng.integers(0, 2, (2, 16, 16)).astype(np.uint8),
  }
  static = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=3
  )
  to_numpy = lambda tree: [np.array(x) for x in jax.tree.leaves(tree)]
  state, expected = static.state, to_numpy(static.state[0])
  assert all(map(np.array_equal, expected, to_numpy(state[1][0])))
  for update in (1, 2, 3):
    state, _ = train_step.train_step(
      static.graphdef, state, batch, config=config
    )
    decay = min(0.5, (1 + update) / (10 + update))
    learned = to_numpy(state[1][0])
    expected = [
      decay * old + (1 - decay) * new
      for old, new in zip(expected, learned, strict=True)
    ]
    for ours, theirs in zip(to_numpy(state[0]), expected, strict=True):
      np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
  assert not all(map(np.array_equal, expected, learned))
