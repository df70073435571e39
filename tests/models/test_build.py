"""Networks by name: what may be combined, and that all of it builds."""

import functools
import json

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.data import input_pipeline
from skinseg_jax.models import build
from skinseg_jax.models.cpu import switch
from skinseg_jax.reporting import provenance
from skinseg_jax.runtime import errors
from skinseg_jax.training import train_state, train_step

# The smallest of each: architecture, encoder, width and size in pixels.
_SMALLEST = [
  ('unet', '', 2, 16),
  ('unet', 'efficientnet_lite0', 64, 32),
  ('fcn', 'resnet18', 64, 32),
  ('segnet', '', 2, 32),
  ('deeplabv3', 'resnet18', 64, 32),
  ('deeplabv3plus', 'resnet18', 64, 32),
  ('attention_unet', '', 2, 16),
  ('unetplusplus', 'resnet18', 64, 32),
  ('resunetplusplus', '', 8, 16),
  ('fpn', 'resnet18', 64, 32),
  ('manet', 'resnet18', 64, 32),
  ('linknet', 'resnet18', 64, 32),
  ('pspnet', 'resnet18', 64, 64),
]
networks = pytest.mark.parametrize(
  ('architecture', 'encoder', 'width', 'size'), _SMALLEST
)


def _config(architecture, encoder='', width=64, size=64):
  config = config_lib.Config()
  config.data.source = 'synthetic'
  config.data.image_size = (size, size)
  config.model.architecture = architecture
  config.model.encoder, config.model.width = encoder, width
  return config


def _abstract(model, **options):
  return nnx.eval_shape(lambda: build.create(model, seed=0, **options))


def _logits(model, *, height=64, width=64, key=None):
  """Shape and type of the logits, from shapes alone."""
  graphdef, state = nnx.split(model)
  return jax.eval_shape(
    lambda state, images: nnx.merge(graphdef, state)(images, key=key),
    state,
    jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32),
  )


def test_rules_builders_and_reports_know_the_same_names():
  assert {name for name, *_ in _SMALLEST} == set(build.ARCHITECTURES)
  assert config_rules._NETWORKS.keys() == build.ARCHITECTURES.keys()
  assert set(config_rules._ENCODERS) == set(build.ENCODERS)
  assert provenance._ARCHITECTURES.keys() == build.ARCHITECTURES.keys()


@networks
def test_logits_have_the_size_of_the_image(architecture, encoder, width, size):
  config = _config(architecture, encoder, width, size)
  config_rules.validate(config)
  for dtype in ('float32', 'bfloat16'):
    config.model.compute_dtype = dtype
    logits = _logits(
      _abstract(config.model), height=size, width=2 * size,
      key=jax.random.key(0),
    )  # fmt: skip
    assert logits.shape == (2, size, 2 * size, 1)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize('encoder', list(build.ENCODERS))
@pytest.mark.parametrize(
  'architecture',
  [name for name, row in config_rules._NETWORKS.items()
   if row.encoder != 'never'],
)  # fmt: skip
def test_every_encoder_fits_every_decoder(architecture, encoder):
  config = _config(architecture, encoder)
  config_rules.validate(config)
  assert _logits(_abstract(config.model)).shape == (2, 64, 64, 1)


@networks
def test_a_symbolic_batch_can_be_exported(architecture, encoder, width, size):
  model = _abstract(_config(architecture, encoder, width, size).model)
  graphdef, state = build.in_evaluation_mode(model), nnx.state(model)
  predict = lambda state, images: nnx.merge(graphdef, state)(images)
  (batch,) = jax.export.symbolic_shape('b')
  images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
  with switch.cpu_forms(False):
    exported = jax.export.export(
      jax.jit(predict), platforms=('cpu', 'cuda', 'tpu')
    )(state, images)
  (logits,) = exported.out_avals
  assert str(logits.shape) == f'(b, {size}, {size}, 1)'


@networks
def test_all_options_of_training_fit(architecture, encoder, width, size):
  config = _config(architecture, encoder, width, size)
  config.model.compute_dtype = 'bfloat16'
  config.train.batch_size = 4
  config.train.accumulation_steps, config.train.remat = 2, True
  config.train.ema, config.train.optimizer = 0.9, 'adamw'
  config_rules.validate(config)
  static = train_state.abstract(
    config, input_pipeline.data_sharding(), num_updates=3
  )
  batch = {
    'image': jax.ShapeDtypeStruct((4, size, size, 3), jnp.uint8),
    'mask': jax.ShapeDtypeStruct((4, size, size), jnp.uint8),
  }
  state, metrics = train_step.train_step.eval_shape(
    static.graphdef, static.state, batch, config=config
  )
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert shapes(state) == shapes(static.state)
  assert metrics['loss'].shape == ()


@pytest.mark.parametrize(
  ('architecture', 'encoder', 'width', 'size'),
  [('pspnet', 'efficientnet_lite0', 64, 64), ('segnet', '', 2, 32)],
)
def test_remat_changes_no_gradient(architecture, encoder, width, size):
  config = _config(architecture, encoder, width, size)
  images = jax.random.uniform(jax.random.key(0), (2, size, size, 3))

  @functools.partial(jax.jit, static_argnums=0)
  def gradients(graphdef, state):
    loss_fn = lambda model: (model(images, key=jax.random.key(1)) ** 2).mean()
    model = nnx.merge(graphdef, state)
    return nnx.grad(loss_fn)(model), nnx.state(model, nnx.BatchStat)

  state = jax.jit(lambda: nnx.state(build.create(config.model, seed=0)))()
  kept, again = (
    gradients(nnx.graphdef(_abstract(config.model, remat=remat)), state)
    for remat in (False, True)
  )
  for before, after in zip(kept, again, strict=True):
    expected, actual = jax.tree.leaves(before), jax.tree.leaves(after)
    # Biases before a normalisation have gradients of rounding errors alone.
    atol = 1e-5 * max(np.abs(leaf).max() for leaf in expected)
    for a, b in zip(expected, actual, strict=True):
      np.testing.assert_allclose(b, a, rtol=1e-3, atol=atol)


@pytest.mark.parametrize(
  ('changes', 'messages'),
  [
    ({'architecture': 'unett'}, ["'fpn'", "nearest: 'unet'"]),
    ({'encoder': 'resnet101'}, ['model.encoder', "nearest: 'resnet50'"]),
    ({'architecture': 'fpn'}, ["with model.architecture='fpn'"]),
    ({'architecture': 'segnet', 'encoder': 'resnet18'}, ['empty with']),
    ({'architecture': 'segnet', 'width': 2000}, ['1 to 1024']),
    ({'encoder': 'resnet18', 'width': 32}, ['model.width', '64, the default']),
    ({'encoder': 'resnet18', 'initializer': 'flax'}, ["'torch', the default"]),
    ({'encoder_weights': 'imagenet'}, ['empty without model.encoder']),
    ({'architecture': 'resunetplusplus', 'width': 20}, ['in steps of 8']),
    ({'architecture': 'segnet', 'initializer': 'flax'}, ['initializer']),
  ],
)
def test_what_does_not_go_together_is_refused(changes, messages):
  config = _config('unet')
  for name, value in changes.items():
    setattr(config.model, name, value)
  with pytest.raises(errors.InputError) as caught:
    config_rules.validate(config)
  for message in messages:
    assert message in str(caught.value)


@pytest.mark.parametrize(('batch_size', 'parts'), [(1, 1), (8, 8), (6, 4)])
def test_pooled_images_are_normalised_over_two_or_more(batch_size, parts):
  config = _config('deeplabv3', 'resnet18')
  config.train.batch_size = batch_size
  config.train.accumulation_steps = parts
  with pytest.raises(errors.InputError, match=r'train\.batch_size'):
    config_rules.validate(config)
  config.train.batch_size = 2 * parts
  config_rules.validate(config)
  config = _config('unet', 'resnet18')
  config.train.batch_size = 1
  config_rules.validate(config)


def test_sizes_that_a_network_cannot_take_are_refused_with_the_nearest():
  config = _config('unet', 'resnet18', size=112)
  with pytest.raises(errors.InputError) as caught:
    config_rules.validate(config)
  message = str(caught.value)
  assert 'data.image_size: got (112, 112)' in message
  assert 'multiples of 32' in message
  assert '(128, 128)' in message or '(96, 96)' in message
  config.model.encoder = ''
  config_rules.validate(config)
  model = _abstract(_config('unet', 'resnet18').model)
  with pytest.raises(ValueError, match='multiples of 32'):
    _logits(model, height=112)


def test_the_encoders_rate_needs_an_encoder():
  config = _config('unet')
  config.train.encoder_rate = 0.1
  with pytest.raises(errors.InputError, match='1 without model.encoder'):
    config_rules.validate(config)


def test_a_config_from_before_there_were_networks_still_loads(tmp_path):
  values = config_lib.to_dict(_config('unet'))
  for name in ('architecture', 'encoder', 'encoder_weights'):
    del values['model'][name]
  for name in ('encoder_rate', 'init_from'):
    del values['train'][name]
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(values))
  assert config_lib.load(path) == _config('unet')


def test_a_report_names_the_network():
  config = _config('deeplabv3plus', 'resnet34')
  config.model.encoder_weights = 'imagenet'
  text = provenance.network(config)
  assert text.startswith('DeepLabV3+ on resnet34')
  assert 'ImageNet' in text
  assert provenance.network(_config('unet')) == 'U-Net of base width 64'
