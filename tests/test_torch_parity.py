"""The same weights and images give the same numbers as in PyTorch."""

import collections
import copy

import jax
import numpy as np
import pytest
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax import losses, torch_weights, train, train_state
from skinseg_jax.data import input_pipeline, preprocessing

pytestmark = pytest.mark.torch
models = pytest.importorskip('torch_models')
torch = pytest.importorskip('torch')
reference = pytest.importorskip('torch_reference')

_CPU = torch.device('cpu')
_STEPS = 20
Setting = collections.namedtuple('Setting', 'net, static, config, batches')


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
  static = train_state.create(config, input_pipeline.data_sharding())
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
  from skinseg_jax.data import raw_files

  raw = raw_files.list_files(raw_files.find(raw_dir))
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
  return _setting(16, 112, list(_real_batches(raw_dir, 112)))


def _ours(setting):
  """Our state of step 0 with the net's weights."""
  model_state = torch_weights.to_flax(
    models.arrays(setting.net), setting.static.state[0]
  )
  leaves = jax.tree.leaves((model_state, setting.static.state[1]))
  # Copied, for a training step reuses the buffers that it is given.
  leaves = [leaf.copy() for leaf in leaves]
  return jax.tree.unflatten(jax.tree.structure(setting.static.state), leaves)


def _for_torch(batch):
  return reference.to_device(map(torch.from_numpy, batch), _CPU)


def _relative(ours, theirs):
  """Distance between two arrays over the norm of theirs."""
  return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def test_logits_agree_in_evaluation_mode(setting):
  # Statistics other than 0 and 1, so that they count.
  net = models.randomise(copy.deepcopy(setting.net))
  model_state = torch_weights.to_flax(
    models.arrays(net), setting.static.state[0]
  )
  images, _ = setting.batches[0]
  model = nnx.merge(setting.static.eval_graphdef, model_state)
  ours = jax.jit(lambda images: model(images / 255))(images)
  with torch.no_grad():
    theirs = net.eval()(_for_torch(setting.batches[0])[0])
  assert len(images) == 8
  np.testing.assert_allclose(
    ours[..., 0], theirs[:, 0].numpy(), rtol=0, atol=1e-4
  )


def test_logits_and_gradients_agree_in_training_mode(setting):
  net = copy.deepcopy(setting.net).train()
  images, masks = setting.batches[0]
  torch_images, torch_masks = _for_torch(setting.batches[0])

  @jax.jit
  def ours(state, images, masks):
    def loss_fn(model):
      logits = model(images / 255)
      return losses.bce_with_logits(logits, masks).mean(), logits

    model, _ = nnx.merge(setting.static.graphdef, state)
    (_, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
    return logits, grads

  logits, grads = ours(_ours(setting), images, masks)
  theirs = net(torch_images)
  np.testing.assert_allclose(
    logits[..., 0], theirs.detach()[:, 0].numpy(), rtol=0, atol=1e-4
  )
  torch.nn.functional.binary_cross_entropy_with_logits(
    theirs, torch_masks
  ).backward()
  grads = torch_weights.from_flax(grads)
  distances = {
    name: _relative(grads[name], parameter.grad.numpy())
    for name, parameter in net.named_parameters()
  }
  assert len(distances) == len(
    jax.tree.leaves(nnx.filter_state(setting.static.state[0], nnx.Param))
  )
  assert {n: d for n, d in distances.items() if not d < 1e-3} == {}


@pytest.fixture(scope='module')
def trained(setting):
  """Losses of each step, and weights after the first and the last."""
  net = copy.deepcopy(setting.net).train()
  optimizer = reference.make_optimizer(net, setting.config.train.learning_rate)
  state, ours, theirs, weights = _ours(setting), [], [], []
  sharding = input_pipeline.data_sharding()
  for images, masks in setting.batches:
    state, step_metrics = train.train_step(
      setting.static.graphdef,
      state,
      jax.device_put({'image': images, 'mask': masks}, sharding),
      config=setting.config,
    )
    ours.append(float(step_metrics['loss']))
    loss, counts = reference.train_step(
      net, optimizer, *_for_torch((images, masks))
    )
    theirs.append(loss.item())
    assert counts.sum() == masks.size
    weights.append((torch_weights.from_flax(state[0]), models.arrays(net)))
  return ours, theirs, weights[0], weights[-1]


def test_losses_agree_at_every_step(trained):
  ours, theirs, *_ = trained
  assert len(ours) == _STEPS
  assert theirs[-1] < theirs[0]
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_final_weights_agree(setting, trained):
  *_, (ours, theirs) = trained
  distances = {
    name: _relative(ours[name], theirs[name])
    for name, _ in setting.net.named_parameters()
  }
  assert {n: d for n, d in distances.items() if not d < 1e-3} == {}


def test_running_variance_differs_by_the_factor_of_unbiased_estimates(
  setting, trained
):
  # From 1 with momentum .9, a step leads to .9 + .1 v. Over n values, theirs
  # is v = sum of squares / (n - 1), ours / n; the means agree.
  _, _, (ours, theirs), _ = trained
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
