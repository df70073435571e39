import pathlib

import jax
import numpy as np
import pytest
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax import (
  errors,
  evaluate,
  stop_signals,
  torch_files,
  torch_weights,
  train_state,
  trainer,
)
from skinseg_jax.data import cache, input_pipeline, sources, splits
from skinseg_jax.models import unet

_WIDTH = 2


def _config(tmp_path):
  config = config_lib.Config()
  config.data.source = 'synthetic'
  config.data.num_synthetic = 12
  config.data.image_size = (32, 32)
  config.data.data_dir = str(tmp_path / 'data')
  config.model.width = _WIDTH
  config.train.batch_size = 4
  config.train.epochs = 1
  config.evaluation.batch_size = 4
  return config


@pytest.fixture(scope='module')
def state():
  config = config_lib.Config()
  config.model.width = _WIDTH
  return train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  )


@pytest.fixture(scope='module')
def predict(state):
  """Logits in evaluation mode, [B, H, W, 1]."""

  @jax.jit
  def run(model_state, images):
    return nnx.merge(state.eval_graphdef, model_state)(images)

  return run


def _names(model_state):
  return torch_weights.from_flax(model_state, naming='aladdinpersson')


def _noise(shape=(2, 32, 48, 3)):
  return np.random.default_rng(0).random(shape, np.float32)


def _random_arrays(state, naming, seed=0):
  rng = np.random.default_rng(seed)
  like = torch_weights.from_flax(state.state[0], naming=naming)
  return {
    name: rng.random(values.shape, np.float32)
    if values.dtype == np.float32
    else values
    for name, values in like.items()
  }


def _equal(one, other):
  assert one.keys() == other.keys()
  for name, values in one.items():
    assert values.dtype == other[name].dtype, name
    np.testing.assert_array_equal(values, other[name], name, strict=True)


@pytest.mark.torch
@pytest.mark.parametrize('naming', ['aladdinpersson', 'milesial'])
def test_public_layouts_convert_exactly_and_give_the_same_logits(
  naming, state, predict
):
  models = pytest.importorskip('torch_models')
  net = models.randomise(getattr(models, naming)(_WIDTH))
  model_state = torch_weights.to_flax(models.arrays(net), state.state[0])
  back = torch_weights.from_flax(model_state, naming=naming)
  _equal(models.arrays(net), back)
  parts = getattr(models, f'{naming}_parts')(net)
  np.testing.assert_allclose(
    predict(model_state, _noise()),
    models.forward(parts, _noise()),
    atol=1e-4,
  )


@pytest.mark.torch
def test_our_layout_is_the_references(state):
  models = pytest.importorskip('torch_models')
  import torch_reference

  net = models.randomise(torch_reference.UNet(_WIDTH))
  model_state = torch_weights.to_flax(models.arrays(net), state.state[0])
  _equal(models.arrays(net), torch_weights.from_flax(model_state))


@pytest.mark.torch
def test_convolution_biases_and_two_classes_change_no_output(state, predict):
  models = pytest.importorskip('torch_models')
  net = models.randomise(models.milesial(_WIDTH, bias=True, classes=2))
  model_state = torch_weights.to_flax(models.arrays(net), state.state[0])
  # The softmax of two logits is the sigmoid of their difference.
  logits = models.forward(models.milesial_parts(net), _noise())
  np.testing.assert_allclose(
    predict(model_state, _noise()),
    logits[..., 1:] - logits[..., :1],
    atol=1e-4,
  )


@pytest.mark.torch
def test_torch_file_round_trip_and_its_wrappings(tmp_path, state):
  torch = pytest.importorskip('torch')
  weights = _random_arrays(state, 'milesial')
  path = tmp_path / 'weights.pt'
  torch_files.write(path, weights)
  floats = {n: v for n, v in weights.items() if v.dtype == np.float32}
  read = torch_files.read(path)
  _equal(floats, {name: read[name] for name in floats})
  # As DataParallel names them, in a checkpoint with other things.
  nested = {f'module.{n}': torch.from_numpy(v) for n, v in floats.items()}
  torch.save(
    {'state_dict': {**nested, 'mask_values': [0, 1]}, 'epoch': 3}, path
  )
  _equal(floats, torch_files.read(path))


@pytest.mark.parametrize('naming', list(torch_weights.NAMINGS))
def test_safetensors_round_trip(tmp_path, state, naming):
  weights = _random_arrays(state, naming)
  path = tmp_path / 'weights.safetensors'
  torch_files.write(path, weights)
  _equal(weights, torch_files.read(path))
  assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_all_wrong_names_and_shapes_are_in_one_message(state):
  weights = _random_arrays(state, 'skinseg')
  weights['head.bias'] = np.zeros(3, np.float32)
  weights['extra'] = np.zeros(1, np.float32)
  del weights['downs.0.conv1.weight'], weights['ups.2.bias']
  with pytest.raises(errors.InputError) as error:
    torch_weights.to_flax(weights, state.state[0])
  message = str(error.value)
  for line in [
    'downs.0.conv1.weight: missing',
    'ups.2.bias: missing',
    'extra: unknown',
    'head.bias: shape (3,), must be (1,)',
  ]:
    assert f'  {line}\n' in message


def test_another_width_is_named(state):
  narrow = nnx.state(nnx.eval_shape(lambda: unet.UNet(1, rngs=nnx.Rngs(0))))
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), narrow)
  weights = torch_weights.from_flax(zeros)
  with pytest.raises(errors.InputError, match='look like model.width=1'):
    torch_weights.to_flax(weights, state.state[0])


def test_another_network_is_refused(state):
  with pytest.raises(errors.InputError) as error:
    torch_weights.to_flax({'layer1.weight': np.zeros(1)}, state.state[0])
  for name in ('head.weight', 'final_conv.weight', 'outc.conv.weight'):
    assert name in str(error.value)
  assert 'layer1.weight' in str(error.value)


@pytest.mark.slow
def test_converted_weights_score_export_and_resume(tmp_path, state):
  config = _config(tmp_path)
  weights = _random_arrays(state, 'aladdinpersson')
  path, workdir = tmp_path / 'weights.safetensors', tmp_path / 'run'
  torch_files.write(path, weights)
  torch_weights.import_run(path, config, workdir)

  summary = evaluate.evaluate_run(
    workdir, checkpoint='last', subset='validation'
  )
  assert summary['checkpoint_step'] == 0
  # Of 12 images, 20 % validate, in whole lesions.
  assert summary['num_images'] >= 1

  exported = tmp_path / 'exported.safetensors'
  torch_weights.run(
    [
      'torch_weights',
      f'--export={exported}',
      f'--workdir={workdir}',
      '--naming=aladdinpersson',
    ]
  )
  _equal(weights, torch_files.read(exported))

  data = cache.open_cache(
    sources.open_source(config.data),
    config.data.image_size,
    pathlib.Path(config.data.data_dir),
  )
  split = splits.read_split(workdir / 'split.csv')
  begun = trainer.Trainer(
    config, workdir, data, split, stop_signals.StopSignals()
  )
  assert begun.step == 0
  _equal(weights, _names(begun.model_state))
  begun.close()

  with pytest.raises(errors.InputError, match='not empty'):
    torch_weights.import_run(path, config, workdir)


def test_command_line_reads_the_config_as_training_does(tmp_path, monkeypatch):
  seen = []
  config = _config(tmp_path)
  parse = lambda argv: (seen.append(argv), (config, tmp_path))[1]
  monkeypatch.setattr(torch_weights.main, 'parse', parse)
  monkeypatch.setattr(torch_weights, 'import_run', lambda *x: seen.append(x))
  overrides = ['--config=configs/x.py', '--config.model.width=4']
  torch_weights.run(
    ['name', '--weights=w.pt', f'--workdir={tmp_path}', *overrides]
  )
  assert seen == [
    ['name', *overrides],
    (pathlib.Path('w.pt'), config, tmp_path),
  ]
