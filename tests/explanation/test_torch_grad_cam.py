"""Seg-Grad-CAM and attention maps equal those of PyTorch, on equal weights."""

import numpy as np
import pytest

from skinseg_jax.explanation import attention, grad_cam, levels
from skinseg_jax.models import build

pytestmark = [pytest.mark.torch, pytest.mark.twins]
twin_pairs = pytest.importorskip('twin_pairs')
torch = twin_pairs.torch

_SIZE = 64


@pytest.fixture(
  scope='module', params=[('unet', 'resnet18'), ('attention_unet', 8)]
)
def pair(request):
  return twin_pairs.Pair(*request.param)


@pytest.fixture(scope='module')
def image():
  return np.random.default_rng(3).integers(0, 256, (_SIZE, _SIZE, 3), np.uint8)


def _graphdef(pair):
  return build.in_evaluation_mode(twin_pairs.abstract(pair.config))


def _inputs(pair, image):
  values = image[None].astype(np.float32) / np.float32(255)
  values = twin_pairs.twins.normalised(values, pair.config.encoder)
  return torch.from_numpy(np.moveaxis(values, -1, 1).copy())


def _pixels():
  pixels = np.zeros((_SIZE, _SIZE), bool)
  pixels[10:40, 20:50] = True
  return pixels


# Names in the twin, where they are others.
_NAMES = {
  ('unet', 'encoder.layer4.1'): 'encoder.layer4.1',
  ('unet', 'decoder.blocks.0'): 'decoder.blocks.0',
  ('unet', 'decoder.blocks.4'): 'decoder.blocks.4',
  ('attention_unet', 'level.below.down'): 'model.1.submodule.1.submodule.0',
  ('attention_unet', 'level.gate'): 'model.1.attention',
}


def _names(pair):
  network = pair.config.architecture
  return {ours: name for (n, ours), name in _NAMES.items() if n == network}


def _formula(net, module, inputs, pixels):
  """Vinogradova et al., 2020, equation 2, before the ReLU."""
  kept = []
  hook = module.register_forward_hook(lambda m, i, output: kept.append(output))
  score = (net(inputs)[0, 0] * torch.from_numpy(pixels)).sum()
  hook.remove()
  (gradient,) = torch.autograd.grad(score, kept)
  weights = gradient.mean(dim=(2, 3), keepdim=True)
  return (weights * kept[0]).sum(dim=1)[0].detach().numpy()


def _ours(pair, image):
  names = tuple(_names(pair))
  graphdef = _graphdef(pair)
  found = grad_cam.maps(graphdef, pair.state, image, _pixels(), names=names)
  known = levels.find(graphdef, pair.state, (_SIZE, _SIZE))
  assert set(names) <= {level.name for level in known}
  return found


def _close(ours, theirs):
  ours = np.asarray(ours)
  assert ours.shape == theirs.shape
  assert np.ptp(theirs) > 0
  assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_grad_cam_is_the_formula_in_pytorch(pair, image):
  net, found = pair.net.eval(), _ours(pair, image)
  for ours, theirs in _names(pair).items():
    module = net.get_submodule(theirs)
    _close(found[ours], _formula(net, module, _inputs(pair, image), _pixels()))


def test_grad_cam_is_that_of_pytorch_grad_cam(pair, image):
  package = pytest.importorskip('pytorch_grad_cam')
  targets = pytest.importorskip('pytorch_grad_cam.utils.model_targets')
  net, found = pair.net.eval(), _ours(pair, image)
  target = targets.SemanticSegmentationTarget(0, _pixels())
  inputs = _inputs(pair, image)
  for ours, theirs in _names(pair).items():
    module = net.get_submodule(theirs)
    with package.GradCAM(net, [module]) as cam:
      cam(inputs, [target])
      kept = cam.activations_and_grads
      arrays = [kept.activations[0].numpy(), kept.gradients[0].numpy()]
      # Before it is clipped, scaled to [0, 1] and enlarged.
      (expected,) = cam.get_cam_image(inputs, module, [target], *arrays)
    _close(found[ours], expected)


def test_attention_is_what_the_gates_of_monai_multiply_by(pair, image):
  graphdef = _graphdef(pair)
  gates = attention.gates(graphdef, pair.state)
  if pair.config.architecture != 'attention_unet':
    assert gates == ()
    return
  found = attention.maps(graphdef, pair.state, image, names=gates)
  net, kept = pair.net.eval(), []
  # The last part of the gate is a sigmoid.
  psi = net.get_submodule('model.1.attention.psi')
  hook = psi.register_forward_hook(lambda m, i, output: kept.append(output))
  with torch.no_grad():
    net(_inputs(pair, image))
  hook.remove()
  _close(found['level.gate'], kept[0][0, 0].numpy())
