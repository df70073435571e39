"""Levels are found in every network, and watching changes no bit."""

import jax
import numpy as np
import pytest
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.explanation import attention, levels
from skinseg_jax.models import build


def _network(architecture, *, width=8):
  config = config_lib.ModelConfig(architecture=architecture, width=width)
  alone = ('unet', 'segnet', 'attention_unet', 'resunetplusplus')
  config.encoder = '' if architecture in alone else 'resnet18'
  model = nnx.eval_shape(lambda: build.create(config, seed=0))
  return build.in_evaluation_mode(model), nnx.state(model)


def test_levels_of_the_unet_are_those_of_its_figure():
  found = levels.find(*_network('unet'), (64, 96))
  assert [level for level in found if not level.name.startswith('ups.')] == [
    ('downs.0', 64, 96, 8),
    ('downs.1', 32, 48, 16),
    ('downs.2', 16, 24, 32),
    ('downs.3', 8, 12, 64),
    ('bottleneck', 4, 6, 128),
    ('up_blocks.0', 8, 12, 64),
    ('up_blocks.1', 16, 24, 32),
    ('up_blocks.2', 32, 48, 16),
    ('up_blocks.3', 64, 96, 8),
  ]
  last = levels.last_of_each_size(found)
  assert [level.name for level in last] == [
    'bottleneck', 'up_blocks.0', 'up_blocks.1', 'up_blocks.2', 'up_blocks.3',
  ]  # fmt: skip


@pytest.mark.parametrize('architecture', build.ARCHITECTURES)
def test_every_network_has_levels_of_several_sizes(architecture):
  graphdef, state = _network(architecture)
  found = levels.find(graphdef, state, (64, 64))
  names = [level.name for level in found]
  assert len(set(names)) == len(names)
  # No level is a part of another one, and none is the logits.
  assert not any(a.startswith(f'{b}.') for a in names for b in names)
  assert min(level.channels for level in found) > 1
  assert len(levels.last_of_each_size(found)) >= 3
  gates = attention.gates(graphdef, state)
  assert len(gates) == (4 if architecture == 'attention_unet' else 0)
  # Their maps become larger, as the page says.
  sizes = [
    level.height for name in gates for level in found if level[0] == name
  ]
  assert sizes == sorted(sizes)


def test_watching_changes_no_bit():
  config = config_lib.ModelConfig(architecture='attention_unet', width=2)
  model = build.create(config, seed=0)
  graphdef, state = build.in_evaluation_mode(model), nnx.state(model)
  images = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
  seen = []

  def visit(name, output):
    seen.append(name)
    return output

  plain = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
  watched = jax.jit(lambda state, x: levels.watched(graphdef, state, visit)(x))
  expected = np.asarray(plain(state, images))
  assert np.array_equal(np.asarray(watched(state, images)), expected)
  assert 'level.gate.score' in seen
  # The copy was watched, not the network.
  seen.clear()
  nnx.merge(graphdef, state)(images)
  assert not seen
