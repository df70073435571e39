import pathlib

import jax
import numpy as np
import pytest
import remedies
from absl.testing import flagsaver
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax import evaluate, torch_weights
from skinseg_jax.data import cache, input_pipeline, splits
from skinseg_jax.data.sources import catalog
from skinseg_jax.models import unet
from skinseg_jax.runtime import errors, stop_signals
from skinseg_jax.training import imported_run, train_state, trainer
from skinseg_jax.weights import tensor_files, torch_layouts, torch_names

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


def _model(state, model_state=None):
  """The network of a training state, with its own or other weights."""
  return nnx.merge(state.eval_graphdef, model_state or state.state[0])


def _names(model):
  return torch_layouts.from_flax(model, naming='aladdinpersson')


def _noise(shape=(2, 32, 48, 3)):
  return np.random.default_rng(0).random(shape, np.float32)


def _random_arrays(state, naming, seed=0):
  rng = np.random.default_rng(seed)
  like = torch_layouts.from_flax(_model(state), naming=naming)
  return {
    name: rng.random(values.shape, np.float32)
    if values.dtype == np.float32
    else values
    for name, values in like.items()
  }


def _public_names(naming, *, bias=False):
  """Names of weights in the public definitions, from their attributes.

  'aladdinpersson': Machine-Learning-Collection at 65b8c80,
  ML/Pytorch/image_segmentation/semantic_segmentation_unet/model.py.
  'milesial': Pytorch-UNet at 07debeb, unet/unet_model.py and unet_parts.py,
  where convolutions have biases.
  """
  affine = ['weight', 'bias']
  norm = [*affine, 'running_mean', 'running_var', 'num_batches_tracked']
  conv = affine if bias else ['weight']
  # A Sequential that holds convolution, norm and ReLU twice.
  pair = [(0, conv), (1, norm), (3, conv), (4, norm)]
  if naming == 'aladdinpersson':
    pairs = [f'downs.{i}.conv' for i in range(4)] + ['bottleneck.conv']
    pairs += [f'ups.{i}.conv' for i in (1, 3, 5, 7)]
    single = ['ups.0', 'ups.2', 'ups.4', 'ups.6', 'final_conv']
  else:
    pairs = ['inc.double_conv']
    pairs += [f'down{i}.maxpool_conv.1.double_conv' for i in (1, 2, 3, 4)]
    pairs += [f'up{i}.conv.double_conv' for i in (1, 2, 3, 4)]
    single = ['up1.up', 'up2.up', 'up3.up', 'up4.up', 'outc.conv']
  return {f'{p}.{i}.{n}' for p in pairs for i, names in pair for n in names} | {
    f'{s}.{n}' for s in single for n in affine
  }


def _equal(one, other):
  assert one.keys() == other.keys()
  for name, values in one.items():
    assert values.dtype == other[name].dtype, name
    np.testing.assert_array_equal(values, other[name], name, strict=True)


@pytest.mark.parametrize('naming', ['aladdinpersson', 'milesial'])
def test_names_are_those_of_the_public_definitions(naming, state):
  ours = torch_layouts.from_flax(_model(state), naming=naming)
  assert set(ours) == _public_names(naming)


@pytest.mark.torch
def test_public_layouts_here_have_the_names_of_the_public_definitions():
  models = pytest.importorskip('torch_models')
  for net, names in [
    (models.aladdinpersson(_WIDTH), _public_names('aladdinpersson')),
    (models.milesial(_WIDTH), _public_names('milesial')),
    (models.milesial(_WIDTH, bias=True), _public_names('milesial', bias=True)),
  ]:
    assert set(net.state_dict()) == names


@pytest.mark.torch
@pytest.mark.parametrize('naming', ['aladdinpersson', 'milesial'])
def test_public_layouts_convert_exactly_and_give_the_same_logits(
  naming, state, predict
):
  models = pytest.importorskip('torch_models')
  net = models.randomise(getattr(models, naming)(_WIDTH))
  model_state = torch_layouts.to_flax(models.arrays(net), _model(state))
  back = torch_layouts.from_flax(_model(state, model_state), naming=naming)
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
  model_state = torch_layouts.to_flax(models.arrays(net), _model(state))
  _equal(
    models.arrays(net), torch_layouts.from_flax(_model(state, model_state))
  )


@pytest.mark.torch
def test_a_trained_net_comes_back_but_for_its_counter(state):
  models = pytest.importorskip('torch_models')
  torch = pytest.importorskip('torch')
  import torch_reference

  net = torch_reference.UNet(_WIDTH).train()
  optimizer = torch_reference.make_optimizer(net, 1e-2)
  images = torch.from_numpy(np.moveaxis(_noise(), -1, 1).copy())
  masks = (images[:, :1] > 0.5).float()
  for _ in range(3):
    torch_reference.train_step(net, optimizer, images, masks)
  trained = models.arrays(net)
  model_state = torch_layouts.to_flax(trained, _model(state))
  back = torch_layouts.from_flax(_model(state, model_state))
  counters = {n for n in trained if n.endswith('num_batches_tracked')}
  assert len(counters) == 18
  assert {int(trained[n]) for n in counters} == {3}
  zeros = {n: np.zeros_like(trained[n]) for n in counters}
  _equal({**trained, **zeros}, back)
  # With the counters at 0, the predictions are bit-identical.
  other = torch_reference.UNet(_WIDTH)
  other.load_state_dict({n: torch.tensor(v) for n, v in back.items()})
  with torch.inference_mode():
    logits, again = net.eval()(images), other.eval()(images)
  np.testing.assert_array_equal(logits.numpy(), again.numpy())


@pytest.mark.torch
def test_convolution_biases_and_two_classes_change_no_output(state, predict):
  models = pytest.importorskip('torch_models')
  net = models.randomise(models.milesial(_WIDTH, bias=True, classes=2))
  model_state = torch_layouts.to_flax(models.arrays(net), _model(state))
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
  tensor_files.write(path, weights)
  floats = {n: v for n, v in weights.items() if v.dtype == np.float32}
  read = tensor_files.read(path)
  _equal(floats, {name: read[name] for name in floats})
  # Names as in DataParallel, in a checkpoint that holds other things as well.
  nested = {f'module.{n}': torch.from_numpy(v) for n, v in floats.items()}
  torch.save(
    {'state_dict': {**nested, 'mask_values': [0, 1]}, 'epoch': 3}, path
  )
  _equal(floats, tensor_files.read(path))


@pytest.mark.parametrize('naming', list(torch_names.NAMINGS))
def test_safetensors_round_trip(tmp_path, state, naming):
  weights = _random_arrays(state, naming)
  path = tmp_path / 'weights.safetensors'
  tensor_files.write(path, weights)
  _equal(weights, tensor_files.read(path))
  assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_file_is_no_workdir(tmp_path):
  workdir = tmp_path / 'run'
  workdir.write_text('')
  with pytest.raises(errors.InputError, match=f'{workdir}.*--workdir'):
    imported_run.import_run(
      tmp_path / 'x.safetensors', _config(tmp_path), workdir
    )


def test_remedies_of_folders_that_cannot_be_runs(tmp_path, state):
  config, path = _config(tmp_path), tmp_path / 'weights.safetensors'
  tensor_files.write(path, _random_arrays(state, 'skinseg'))
  workdir = tmp_path / 'file'
  workdir.write_text('')
  for name in ('one', 'two'):  # A file; then a folder that is not empty.
    with pytest.raises(errors.InputError, match='give a new --workdir'):
      imported_run.import_run(path, config, workdir)
    workdir = tmp_path / name
    imported_run.import_run(path, config, workdir)
    exported = tmp_path / f'{name}.safetensors'
    torch_weights.export_run(
      workdir, checkpoint='last', path=exported, naming='twin'
    )
    _equal(tensor_files.read(path), tensor_files.read(exported))


def test_remedies_of_the_command_line(tmp_path, monkeypatch):
  seen = []
  monkeypatch.setattr(imported_run, 'import_run', lambda *x: seen.append(x))
  argv = ['torch_weights', '--weights=w.pt', f'--workdir={tmp_path}']
  with flagsaver.flagsaver(), pytest.raises(errors.InputError) as caught:
    torch_weights.run(argv)
  added = remedies.words(caught.value, r'--config configs/\w+\.py')
  monkeypatch.chdir(pathlib.Path(__file__).parents[2])
  with flagsaver.flagsaver():
    torch_weights.run([*argv, *added])
  assert [x[0] for x in seen] == [pathlib.Path('w.pt')]


def test_all_wrong_names_and_shapes_are_in_one_message(state):
  weights = _random_arrays(state, 'skinseg')
  weights['head.bias'] = np.zeros(3, np.float32)
  weights['extra'] = np.zeros(1, np.float32)
  weights['head.weight'] = np.float32(0)
  weights['downs.0.conv2.weight'] = np.float32(0)
  del weights['downs.0.conv1.weight'], weights['ups.2.bias']
  with pytest.raises(errors.InputError) as error:
    torch_layouts.to_flax(weights, _model(state))
  message = str(error.value)
  for line in [
    'downs.0.conv1.weight: missing',
    'ups.2.bias: missing',
    'extra: unknown',
    'head.bias: shape (3,), must be (1,)',
    f'head.weight: shape (), must be (1, {_WIDTH}, 1, 1)',
    f'downs.0.conv2.weight: shape (), must be {(_WIDTH, _WIDTH, 3, 3)}',
  ]:
    assert f'  {line}\n' in message


def test_a_number_for_the_first_kernel_tells_no_width(state):
  weights = _random_arrays(state, 'skinseg')
  weights['downs.0.conv1.weight'] = np.float32(0)
  with pytest.raises(errors.InputError) as error:
    torch_layouts.to_flax(weights, _model(state))
  assert '  downs.0.conv1.weight: shape (), must be' in str(error.value)
  assert 'look like' not in str(error.value)


@pytest.mark.parametrize('name', ['head.weight', 'head.bias'])
def test_two_classes_have_two_of_both(state, name):
  weights = _random_arrays(state, 'skinseg')
  weights[name] = np.repeat(weights[name], 2, axis=0)
  with pytest.raises(errors.InputError, match=rf'{name}: shape \(2,'):
    torch_layouts.to_flax(weights, _model(state))


@pytest.mark.parametrize('value', [np.nan, -np.inf, 1e300])
def test_what_is_not_finite_in_float32_is_named(state, value):
  weights = _random_arrays(state, 'skinseg')
  weights['ups.2.bias'] = np.full(weights['ups.2.bias'].shape, value)
  with pytest.raises(errors.InputError, match='finite.*\n  ups.2.bias\n'):
    torch_layouts.to_flax(weights, _model(state))


def test_another_width_is_named(state):
  weights = torch_layouts.from_flax(unet.UNet(1, rngs=nnx.Rngs(0)))
  with pytest.raises(errors.InputError, match='look like model.width=1'):
    torch_layouts.to_flax(weights, _model(state))


def test_another_network_is_refused(state):
  with pytest.raises(errors.InputError) as error:
    torch_layouts.to_flax({'layer1.weight': np.zeros(1)}, _model(state))
  for name in ('head.weight', 'final_conv.weight', 'outc.conv.weight'):
    assert name in str(error.value)
  assert 'layer1.weight' in str(error.value)


@pytest.mark.slow
def test_converted_weights_score_export_and_resume(tmp_path, state):
  config = _config(tmp_path)
  weights = _random_arrays(state, 'aladdinpersson')
  path, workdir = tmp_path / 'weights.safetensors', tmp_path / 'run'
  tensor_files.write(path, weights)
  imported_run.import_run(path, config, workdir)

  summary = evaluate.evaluate_run(
    workdir, checkpoint='last', subset='validation'
  )
  assert summary['checkpoint_step'] == 0
  # Of 12 images, 20 % are for validation, split by lesion.
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
  _equal(weights, tensor_files.read(exported))

  data = cache.open_cache(
    catalog.open_source(config.data),
    config.data.image_size,
    pathlib.Path(config.data.data_dir),
  )
  split = splits.read_split(workdir / 'split.csv')
  begun = trainer.Trainer(
    config, workdir, data, split, {}, stop_signals.StopSignals()
  )
  assert begun.step == 0
  _equal(weights, _names(_model(state, begun.model_state)))
  begun.close()

  with pytest.raises(errors.InputError, match='not empty'):
    imported_run.import_run(path, config, workdir)


def test_command_line_reads_the_config_as_training_does(tmp_path, monkeypatch):
  seen = []
  config = _config(tmp_path)
  parse = lambda argv: (seen.append(argv), (config, tmp_path))[1]
  monkeypatch.setattr(torch_weights.main, 'parse', parse)
  monkeypatch.setattr(imported_run, 'import_run', lambda *x: seen.append(x))
  overrides = ['--config=configs/x.py', '--config.model.width=4']
  torch_weights.run(
    ['name', '--weights=w.pt', f'--workdir={tmp_path}', *overrides]
  )
  assert seen == [
    ['name', *overrides],
    (pathlib.Path('w.pt'), config, tmp_path),
  ]
