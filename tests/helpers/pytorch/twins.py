"""The public PyTorch twin of each network, for the tests.

Importing this skips the importing module where a package is missing.
"""

import functools
import importlib
import types
from collections.abc import Sequence

import numpy as np
import pytest

# Before torch, whose waiting threads it sends to sleep.
pytest.importorskip('torch_models')
torch = pytest.importorskip('torch')


def _define_operators():
  """Lets torchvision be imported beside a PyTorch that it was not built for.

  Its compiled operators are not loaded then. None of the twins calls them, but
  the import registers a rule for these two and needs their signatures.
  """
  library = torch.library.Library('torchvision', 'FRAGMENT')
  for name in ('nms', 'qnms'):
    if not hasattr(torch.ops.torchvision, name):
      library.define(
        f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
      )
  return library  # The operators live as long as it does.


_LIBRARY = _define_operators()
torchvision = pytest.importorskip('torchvision')
timm = pytest.importorskip('timm')
smp = pytest.importorskip('segmentation_models_pytorch')
monai = pytest.importorskip('monai.networks.nets')
torch_networks = pytest.importorskip('torch_networks')
functional = torch.nn.functional


def encoder_name(ours: str) -> str:
  """The name of our encoder in segmentation-models-pytorch."""
  return ours if ours.startswith('resnet') else f'tu-tf_{ours}'


class _OnDilatedEncoder(torch.nn.Module):
  """A head of torchvision on features of stride 8, resized to the image."""

  def __init__(self, encoder, head):
    super().__init__()
    self.backbone, self.classifier = encoder, head

  def forward(self, images):
    x = self.classifier(self.backbone(images)[-1])
    size = images.shape[-2:]
    return functional.interpolate(x, size, mode='bilinear', align_corners=False)


class _Torchvision(torch.nn.Module):
  """A network of torchvision that returns logits alone."""

  def __init__(self, network):
    super().__init__()
    self.backbone, self.classifier = network.backbone, network.classifier
    self._network = [network]  # Not a second name of its weights.

  def forward(self, images):
    return self._network[0](images)['out']

  def train(self, mode=True):
    self._network[0].train(mode)
    return super().train(mode)


def _at_stride_8(architecture, encoder):
  models = torchvision.models.segmentation
  if encoder == 'resnet50':
    build = {'fcn': models.fcn_resnet50, 'deeplabv3': models.deeplabv3_resnet50}
    return _Torchvision(
      build[architecture](weights=None, weights_backbone=None, num_classes=1)
    )
  backbone = smp.encoders.get_encoder(
    encoder_name(encoder), weights=None, output_stride=8
  )
  features = backbone.out_channels[-1]
  head = {'fcn': models.fcn.FCNHead, 'deeplabv3': models.deeplabv3.DeepLabHead}
  return _OnDilatedEncoder(backbone, head[architecture](features, 1))


_SMP = types.MappingProxyType(
  {
    'unet': smp.Unet,
    'unetplusplus': smp.UnetPlusPlus,
    'fpn': smp.FPN,
    'manet': smp.MAnet,
    'linknet': smp.Linknet,
    'pspnet': smp.PSPNet,
    'deeplabv3plus': smp.DeepLabV3Plus,
  }
)


def build(architecture: str, encoder: str = '', width: int = 64):
  """The twin with random weights, one class and logits for output."""
  if architecture in ('fcn', 'deeplabv3'):
    return _at_stride_8(architecture, encoder)
  if architecture in _SMP:
    return _SMP[architecture](
      encoder_name(encoder), encoder_weights=None, classes=1
    )
  widths = [width * 2**level for level in range(5)]
  return {
    'attention_unet': functools.partial(
      monai.AttentionUnet, 2, 3, 1, widths, (2, 2, 2, 2)
    ),
    'segnet': functools.partial(torch_networks.SegNet, width),
    'resunetplusplus': functools.partial(torch_networks.ResUNetPlusPlus, width),
  }[architecture]()


def atrous_pyramid(channels: int, rates: Sequence[int], separable: bool):
  """The pyramid of smp's DeepLabV3+ if separable, else of torchvision's V3."""
  if separable:
    decoder = importlib.import_module(
      'segmentation_models_pytorch.decoders.deeplabv3.decoder'
    )
    return without_dropout(
      decoder.ASPP(channels, 8, rates, separable=True, dropout=0.5)
    )
  pyramid = torchvision.models.segmentation.deeplabv3.ASPP
  return without_dropout(pyramid(channels, rates, 8))


def without_dropout(net):
  """Makes every dropout do nothing, also in training mode."""
  for module in net.modules():
    if isinstance(module, torch.nn.modules.dropout._DropoutNd):
      module.p = 0.0
  return net


def normalised(images: np.ndarray, encoder: str) -> np.ndarray:
  """What a twin is given for images in [0, 1]: its encoder's normalisation."""
  if encoder.startswith('resnet'):
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
  elif encoder:
    mean = deviation = [0.5, 0.5, 0.5]
  else:
    return images
  return ((images - mean) / deviation).astype(images.dtype)
