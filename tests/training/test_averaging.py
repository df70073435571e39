import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from skinseg_jax.training import averaging


def test_decay_by_hand():
  # Updates 1, 9 and 10**6: 2 / 11, 10 / 19, and the requested maximum.
  decays = [averaging.decay_at(jnp.int32(n), 0.99) for n in (1, 9, 10**6)]
  assert np.allclose(decays, [2 / 11, 10 / 19, 0.99])


class _Two(nnx.Module):
  """A weight and a running statistic."""

  def __init__(self, weight, statistic):
    self.weight = nnx.Param(jnp.float32(weight))
    self.statistic = nnx.BatchStat(jnp.float32(statistic))


def test_average_by_hand():
  average, model = _Two(1.0, 10.0), _Two(2.0, 30.0)
  # Update 1 keeps 2 / 11 of the old value: 2 / 11 + 2 * 9 / 11 = 20 / 11.
  averaging.update_average(average, model, jnp.int32(1), 0.9)
  assert average.weight[...] == pytest.approx(20 / 11)
  assert average.statistic[...] == pytest.approx(10 * 2 / 11 + 30 * 9 / 11)
  assert (model.weight[...], model.statistic[...]) == (2, 30)


def test_constant_weights_are_their_own_average():
  average, model = _Two(0.3, 0.7), _Two(0.3, 0.7)
  averaging.update_average(average, model, jnp.int32(5), 0.9)
  assert average.weight[...] == np.float32(0.3)
