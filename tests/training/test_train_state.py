import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.data import input_pipeline
from skinseg_jax.models import build
from skinseg_jax.training import train_state


def test_cosine_by_hand():
  config = config_lib.TrainConfig(
    learning_rate=0.8, schedule='cosine', warmup=0.2
  )
  rate = train_state.cosine(config, 20)
  # The rate rises for four updates and falls for sixteen; after half of these
  # it is half the highest rate.
  assert [float(rate(n)) for n in (0, 1, 4, 12, 20)] == pytest.approx(
    [0, 0.2, 0.8, 0.4, 0], abs=1e-6
  )


def test_cosine_without_warmup_starts_at_the_top():
  config = config_lib.TrainConfig(learning_rate=0.8, schedule='cosine')
  rate = train_state.cosine(config, 6)
  # (1 + cos(60 degrees)) / 2 of the rate after two of six updates.
  assert [float(rate(n)) for n in (0, 2, 3)] == pytest.approx([0.8, 0.6, 0.4])


@pytest.mark.torch
def test_adamw_equals_torch():
  torch = pytest.importorskip('torch')
  rng = np.random.default_rng(0)
  start = {
    'kernel': rng.normal(size=(3, 4)).astype(np.float32),
    'bias': rng.normal(size=4).astype(np.float32),
  }
  theirs = {n: torch.nn.Parameter(torch.tensor(v)) for n, v in start.items()}
  reference = torch.optim.AdamW(
    [
      {'params': [theirs['kernel']], 'weight_decay': 0.3},
      {'params': [theirs['bias']], 'weight_decay': 0.0},
    ],
    lr=0.1,
  )
  config = config_lib.TrainConfig(
    optimizer='adamw',
    weight_decay=0.3,
    learning_rate=0.1,
    schedule='cosine',
    warmup=0.2,
  )
  ours = train_state.create_optimizer(config, 10)
  rate = train_state.cosine(config, 10)
  params, state = start, ours.init(start)
  for update in range(10):
    grads = {
      n: rng.normal(size=v.shape).astype(np.float32) for n, v in start.items()
    }
    for group in reference.param_groups:
      group['lr'] = float(rate(update))
    for name, parameter in theirs.items():
      parameter.grad = torch.tensor(grads[name])
    reference.step()
    updates, state = ours.update(grads, state, params)
    params = {n: params[n] + updates[n] for n in params}
  for name, parameter in theirs.items():
    np.testing.assert_allclose(
      params[name], parameter.detach().numpy(), rtol=1e-4, atol=1e-5
    )


def test_decay_takes_off_kernels_alone():
  config = config_lib.Config()
  config.model.width = 1
  config.train.optimizer, config.train.weight_decay = 'adamw', 0.5
  config.train.learning_rate = 0.1
  model = build.create(config.model, 0)
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  optimizer = train_state.create_optimizer(config.train, 10)
  # Adam does not change weights whose gradient is zero.
  zero = jax.tree.map(np.zeros_like, params)
  updates, _ = optimizer.update(zero, optimizer.init(params), params)
  flat = lambda tree: jax.tree_util.tree_leaves_with_path(tree)
  for (path, before), (_, change) in zip(
    flat(params), flat(updates), strict=True
  ):
    share = 0.05 if path[-1].key == 'kernel' else 0
    np.testing.assert_allclose(change, -share * before, rtol=1e-6)


def test_the_same_length_gives_the_same_optimizer():
  config = config_lib.TrainConfig(schedule='cosine')
  create = train_state.create_optimizer
  assert create(config, 5) is create(dataclasses.replace(config), 5)
  assert create(config, 5) is not create(config, 6)


def test_other_weights_are_learned_from_and_predict():
  config = config_lib.Config()
  config.model.width = 1
  config.train.ema = 0.9
  state = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  ).state
  others = jax.tree.map(lambda x: x + 1, state[0])
  started = train_state.start_from(state, others)
  assert jax.tree.structure(started) == jax.tree.structure(state)
  for model in (started[0], started[1][0]):
    assert all(
      map(np.array_equal, jax.tree.leaves(model), jax.tree.leaves(others))
    )
