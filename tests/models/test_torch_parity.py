"""The same weights and images give the same numbers as in PyTorch."""

import collections
import copy
import functools
import pathlib
import runpy
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.data import input_pipeline, preprocessing
from skinseg_jax.metrics import cross_entropy
from skinseg_jax.runtime import compilation, errors
from skinseg_jax.training import imported_run, train_state, train_step
from skinseg_jax.weights import tensor_files, torch_layouts

pytestmark = pytest.mark.torch
models = pytest.importorskip('torch_models')
torch = pytest.importorskip('torch')
reference = pytest.importorskip('torch_reference')

_CPU = torch.device('cpu')
_SCRIPTS = pathlib.Path(__file__).parents[2] / 'scripts'
_STEPS = 20
_DTYPES = ('float32', 'float64')
Setting = collections.namedtuple('Setting', 'net, static, config, batches')
Training = collections.namedtuple(
  'Training', 'dtype, ours, theirs, first, last'
)


def _setting(width, size, batches):
  """One set of initial weights for both, and ours to train from."""
  config = config_lib.Config()
  config.model.width = width
  config.data.image_size = (size, size)
  config.augmentation.rotation_degrees = 0.0
  config.augmentation.horizontal_flip = 0.0
  config.augmentation.vertical_flip = 0.0
  torch.manual_seed(0)
  net = reference.make_model(width, _CPU)
  static = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  )
  return Setting(net, static, config, batches)


def _synthetic_batches(size):
  """Discs on noise, 8 a batch."""
  rng = np.random.default_rng(0)
  grid = np.indices((size, size))
  for _ in range(_STEPS):
    centres = rng.uniform(0, size, (8, 2, 1, 1))
    radii = rng.uniform(size / 8, size / 2, (8, 1, 1))
    masks = np.hypot(*np.moveaxis(grid - centres, 1, 0)) < radii
    noise = rng.normal(0, 40, (8, size, size, 3))
    images = 180 - 80 * masks[..., None] + noise
    yield images.clip(0, 255).astype(np.uint8), masks.astype(np.uint8)


def _real_batches(raw_dir, size):
  """The images at every 60th place, 8 a batch."""
  from skinseg_jax.data.sources import ham10000_files

  raw = ham10000_files.list_files(ham10000_files.find(raw_dir))
  image_ids = sorted(raw.images)[::60][: 8 * _STEPS]
  images, masks = (
    np.stack(
      [
        resize(decode(files[name].read(), name), (size, size))
        for name in image_ids
      ]
    )
    for files, decode, resize in [
      (raw.images, preprocessing.decode_image, preprocessing.resize_image),
      (raw.masks, preprocessing.decode_mask, preprocessing.resize_mask),
    ]
  )
  return zip(np.split(images, _STEPS), np.split(masks, _STEPS), strict=True)


@pytest.fixture(
  scope='module',
  params=[
    'synthetic',
    pytest.param('real', marks=[pytest.mark.ham10000, pytest.mark.slow]),
  ],
)
def setting(request):
  if request.param == 'synthetic':
    return _setting(8, 64, list(_synthetic_batches(64)))
  raw_dir = request.getfixturevalue('ham10000_dir')
  # At 80 px the smallest level has an odd size.
  return _setting(16, 80, list(_real_batches(raw_dir, 80)))


def _ours(setting, dtype='float32'):
  """Our (graphdef, state) of step 0 with the net's weights, in `dtype`."""
  config = copy.deepcopy(setting.config)
  config.model.compute_dtype = dtype
  static = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  )
  model = nnx.merge(static.eval_graphdef, static.state[0])
  model_state = torch_layouts.to_flax(models.arrays(setting.net), model)
  leaves = jax.tree.leaves((model_state, static.state[1]))
  # Copied, for a training step reuses the buffers that it is given.
  leaves = [
    leaf.astype(dtype if leaf.dtype == np.float32 else leaf.dtype, copy=True)
    for leaf in leaves
  ]
  structure = jax.tree.structure(static.state)
  return static.graphdef, jax.tree.unflatten(structure, leaves)


def _by_name(setting, state):
  static = setting.static
  model = nnx.merge(static.eval_graphdef, static.state[0])
  return torch_layouts.by_name(state, torch_layouts.tensor_names(model))


def _for_torch(batch, dtype='float32'):
  images, masks = reference.to_device(list(map(torch.from_numpy, batch)), _CPU)
  if dtype == 'float64':  # Divided in the wide type, as ours are.
    images = torch.from_numpy(batch[0]).permute(0, 3, 1, 2).double() / 255
  return [tensor.to(getattr(torch, dtype)) for tensor in (images, masks)]


def _net(setting, dtype='float32'):
  """A copy of the net in training mode, in `dtype`."""
  return copy.deepcopy(setting.net).to(getattr(torch, dtype)).train()


def _relative(ours, theirs):
  """Distance between two arrays over the norm of theirs."""
  return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def test_logits_agree_in_evaluation_mode(setting):
  # Statistics other than 0 and 1, so that they count.
  net = models.randomise(copy.deepcopy(setting.net))
  static = setting.static
  model = nnx.merge(static.eval_graphdef, static.state[0])
  model_state = torch_layouts.to_flax(models.arrays(net), model)
  images, _ = setting.batches[0]
  model = nnx.merge(setting.static.eval_graphdef, model_state)
  ours = jax.jit(lambda images: model(images / 255))(images)
  with torch.no_grad():
    theirs = net.eval()(_for_torch(setting.batches[0])[0])
  assert len(images) == 8
  np.testing.assert_allclose(
    ours[..., 0], theirs[:, 0].numpy(), rtol=0, atol=1e-4
  )


def _gradients(setting, dtype):
  """Logits [B, H, W] and gradients by name: ours, then theirs."""
  images, masks = setting.batches[0]

  @functools.partial(jax.jit, static_argnums=0)
  def run(graphdef, state, images, masks):
    def loss_fn(model):
      logits = model(images / 255)
      return cross_entropy.bce_with_logits(logits, masks).mean(), logits

    model, _ = nnx.merge(graphdef, state)
    (_, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
    return logits[..., 0], grads

  with jax.enable_x64(dtype == 'float64'):
    logits, grads = run(*_ours(setting, dtype), images.astype(dtype), masks)
    ours = np.asarray(logits), _by_name(setting, grads)
  net = _net(setting, dtype)
  # Divided here, in the wide type where it is one.
  torch_images = torch.from_numpy(images.astype(dtype) / 255)
  torch_masks = _for_torch(setting.batches[0], dtype)[1]
  logits = net(torch_images.permute(0, 3, 1, 2))
  torch.nn.functional.binary_cross_entropy_with_logits(
    logits, torch_masks
  ).backward()
  grads = {name: p.grad.numpy() for name, p in net.named_parameters()}
  return ours, (logits.detach()[:, 0].numpy(), grads)


@pytest.fixture(scope='module')
def gradients(setting):
  return {dtype: _gradients(setting, dtype) for dtype in _DTYPES}


def _worst(ours, theirs):
  """The largest relative distance over the arrays that `theirs` has."""
  return max(_relative(ours[name], theirs[name]) for name in theirs)


def test_logits_agree_in_training_mode(gradients):
  (ours, _), (theirs, _) = gradients['float32']
  assert ours.dtype == np.float32
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_gradients_of_every_parameter_agree(setting, gradients):
  (_, ours), (_, theirs) = gradients['float64']
  parameters = nnx.filter_state(setting.static.state[0], nnx.Param)
  assert len(theirs) == len(jax.tree.leaves(parameters))
  assert _worst(ours, theirs) < 1e-6


def test_gradients_in_float32_are_as_near_to_the_truth_as_torchs(gradients):
  # Rounding puts a few units on the other side of a ReLU's or a maximum's
  # bend, in PyTorch too, where a gradient jumps: single parameters of deep
  # levels are off by 1e-2, on either side.
  truth = gradients['float64'][1][1]
  (_, ours), (_, theirs) = gradients['float32']
  assert _worst(ours, truth) < 3 * _worst(theirs, truth)
  whole = lambda grads: np.concatenate([grads[n].ravel() for n in truth])
  assert _relative(whole(ours), whole(theirs)) < 1e-3


@pytest.fixture(scope='module', params=_DTYPES)
def trained(setting, request):
  """Losses of each step, and weights after the first and the last."""
  dtype = request.param
  if dtype == 'float32' and setting.config.model.width == 16:
    pytest.skip('rounding grows; the synthetic images show float32')
  net, ours, theirs, weights = _net(setting, dtype), [], [], []
  optimizer = reference.make_optimizer(net, setting.config.train.learning_rate)
  with jax.enable_x64(dtype == 'float64'):
    graphdef, state = _ours(setting, dtype)
    sharding = input_pipeline.data_sharding()
    for images, masks in setting.batches:
      batch = jax.device_put({'image': images, 'mask': masks}, sharding)
      state, step_metrics = train_step.train_step(
        graphdef, state, batch, config=setting.config
      )
      ours.append(float(step_metrics['loss']))
      loss, counts = reference.train_step(
        net, optimizer, *_for_torch((images, masks), dtype)
      )
      theirs.append(loss.item())
      assert counts.sum() == masks.size
      weights.append((_by_name(setting, state[0]), models.arrays(net)))
  return Training(dtype, ours, theirs, weights[0], weights[-1])


def test_losses_agree_at_every_step(trained):
  assert len(trained.ours) == _STEPS
  assert trained.theirs[-1] < trained.theirs[0]
  np.testing.assert_allclose(trained.ours, trained.theirs, rtol=0, atol=1e-3)


def test_final_weights_agree(setting, trained):
  ours, theirs = trained.last
  names = dict(setting.net.named_parameters())
  if trained.dtype == 'float64':
    assert _worst(ours, {name: theirs[name] for name in names}) < 1e-3
    return
  # Adam divides each gradient by its own size, so that what is noise in it
  # moves a weight as far as what is not: in float32, where gradients of deep
  # levels are mostly rounding, weights part by .25 of their way. So does
  # PyTorch from itself, begun a rounding away; a learning rate that is a fifth
  # too high makes it .6.
  whole = lambda arrays: np.concatenate([arrays[n].ravel() for n in names])
  start = whole(models.arrays(setting.net))
  assert _relative(whole(ours) - start, whole(theirs) - start) < 0.4


def test_running_variance_differs_by_the_factor_of_unbiased_estimates(
  setting, trained
):
  # From 1 with momentum .9, a step leads to .9 + .1 v. Over n values, theirs
  # is v = sum of squares / (n - 1), ours / n; the means agree.
  ours, theirs = trained.first
  size = setting.config.data.image_size[0]
  levels = {'downs': [0, 1, 2, 3], 'bottleneck': [4], 'up_blocks': [3, 2, 1, 0]}
  checked = 0
  for name, values in ours.items():
    if name.endswith('running_mean'):
      np.testing.assert_allclose(values, theirs[name], atol=1e-5)
    if not name.endswith('running_var'):
      continue
    part, index, *_ = name.split('.')
    level = levels[part][int(index) if index.isdecimal() else 0]
    n = 8 * (size // 2**level) ** 2
    np.testing.assert_allclose(
      (theirs[name] - 0.9) * (n - 1) / n, values - 0.9, rtol=1e-3, atol=1e-6
    )
    checked += 1
  assert checked == 18


def _side_by_side(monkeypatch, *arguments):
  monkeypatch.setattr(sys, 'argv', ['side_by_side.py', *arguments])
  runpy.run_path(
    str(_SCRIPTS / 'checks' / 'side_by_side.py'), run_name='__main__'
  )


def test_side_by_side_without_the_extra_names_it(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(SystemExit) as end:
    _side_by_side(monkeypatch, '--workdir=run')
  assert end.value.code == errors.InputError.exit_code
  assert 'torch missing: pip install "skinseg_jax[torch]"' in (
    capsys.readouterr().err
  )


@pytest.mark.slow
def test_side_by_side_from_a_checkpoint(tmp_path, monkeypatch, capsys):
  config = config_lib.Config()
  config.data.source = 'synthetic'
  config.data.num_synthetic = 12
  config.data.image_size = (32, 32)
  config.data.data_dir = str(tmp_path / 'data')
  config.model.width = 2
  config.train.batch_size = 4
  weights, workdir = tmp_path / 'x.safetensors', tmp_path / 'run'
  tensor_files.write(weights, models.arrays(reference.UNet(2)))
  imported_run.import_run(weights, config, workdir)
  compiled, compile_step = [], compilation.compile_step

  def recorded(step, *args, xla_options, **static):
    compiled.append((step, xla_options))
    return compile_step(step, *args, xla_options=xla_options, **static)

  monkeypatch.setattr(compilation, 'compile_step', recorded)
  _side_by_side(
    monkeypatch,
    f'--workdir={workdir}',
    *('--checkpoint=last', '--steps=2', '--every=1', '--one_in=1'),
  )
  # As the run itself would be trained on.
  assert compiled == [(train_step.train_step, 'auto')]
  rows = [
    [float(cell) for cell in line.strip('| ').split('|')]
    for line in capsys.readouterr().out.splitlines()
    if line[:3] in ('| 1', '| 2')
  ]
  assert [step for step, *_ in rows] == [1, 2]
  for _, *cells in rows:
    np.testing.assert_allclose(cells[::2], cells[1::2], rtol=0, atol=2e-3)
