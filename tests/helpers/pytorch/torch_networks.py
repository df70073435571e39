"""SegNet and ResUNet++ in PyTorch, restated for the tests.

No package publishes them. Structure and numbers of parameters are those of two
public repositories: SegNet of yassouali/pytorch-segmentation (29,480,641
parameters with one class) and ResUNet++ of DebeshJha/ResUNetPlusPlus
(4,062,993). The names of the modules are our own.
"""

import itertools

import torch
from torch import nn
from torch.nn import functional


def _conv_norm(in_features, features):
  return nn.ModuleDict(
    {
      'conv': nn.Conv2d(in_features, features, 3, padding=1),
      'norm': nn.BatchNorm2d(features),
    }
  )


class SegNet(nn.Module):
  """VGG-16 with batch norm, and its mirror image with unpooling."""

  def __init__(self, width=64):
    super().__init__()
    w = width
    down = [(3, w, w), (w, 2 * w, 2 * w), (2 * w, *[4 * w] * 3)]
    down += [(4 * w, *[8 * w] * 3), (8 * w, *[8 * w] * 3)]
    up = [(8 * w, *[8 * w] * 3), (*[8 * w] * 3, 4 * w), (*[4 * w] * 3, 2 * w)]
    up += [(2 * w, 2 * w, w), (w, w, w)]
    self.downs = nn.ModuleList(self._stage(widths) for widths in down)
    self.ups = nn.ModuleList(self._stage(widths) for widths in up)
    self.head = nn.Conv2d(w, 1, 3, padding=1)

  @staticmethod
  def _stage(widths):
    pairs = itertools.pairwise(widths)
    convs = nn.ModuleList(_conv_norm(i, o) for i, o in pairs)
    return nn.ModuleDict({'layers': convs})

  @staticmethod
  def _run(stage, x):
    for layer in stage['layers']:
      x = functional.relu(layer['norm'](layer['conv'](x)))
    return x

  def forward(self, x):
    places = []
    for stage in self.downs:
      x = self._run(stage, x)
      size = x.shape[-2:]
      x, indices = functional.max_pool2d(x, 2, 2, return_indices=True)
      places.append((indices, size))
    for stage in self.ups:
      indices, size = places.pop()
      x = functional.max_unpool2d(x, indices, 2, 2, output_size=size)
      x = self._run(stage, x)
    return self.head(x)


class _SqueezeExcite(nn.Module):
  def __init__(self, features):
    super().__init__()
    self.reduce = nn.Conv2d(features, features // 8, 1, bias=False)
    self.expand = nn.Conv2d(features // 8, features, 1, bias=False)

  def forward(self, x):
    gate = functional.relu(self.reduce(x.mean((2, 3), keepdim=True)))
    return x * torch.sigmoid(self.expand(gate))


class _NormReluConv(nn.Module):
  def __init__(self, in_features, features, stride=1):
    super().__init__()
    self.norm = nn.BatchNorm2d(in_features)
    self.conv = nn.Conv2d(in_features, features, 3, stride, 1)

  def forward(self, x):
    return self.conv(functional.relu(self.norm(x)))


class _Shortcut(nn.Module):
  def __init__(self, in_features, features, stride):
    super().__init__()
    self.conv = nn.Conv2d(in_features, features, 1, stride)
    self.norm = nn.BatchNorm2d(features)

  def forward(self, x):
    return self.norm(self.conv(x))


class _Stem(nn.Module):
  def __init__(self, features):
    super().__init__()
    self.conv = nn.Conv2d(3, features, 3, padding=1)
    self.after = _NormReluConv(features, features)
    self.shortcut = _Shortcut(3, features, 1)
    self.gate = _SqueezeExcite(features)

  def forward(self, x):
    return self.gate(self.after(self.conv(x)) + self.shortcut(x))


class _Residual(nn.Module):
  def __init__(self, in_features, features, stride):
    super().__init__()
    self.first = _NormReluConv(in_features, features, stride)
    self.second = _NormReluConv(features, features)
    self.shortcut = _Shortcut(in_features, features, stride)
    self.gate = _SqueezeExcite(features)

  def forward(self, x):
    return self.gate(self.second(self.first(x)) + self.shortcut(x))


class _Pyramid(nn.Module):
  """Dilated convolutions, added up."""

  def __init__(self, in_features, features):
    super().__init__()
    self.rates = (1, 6, 12, 18)
    conv = lambda rate: nn.Conv2d(
      in_features, features, 3, padding=rate, dilation=rate
    )
    self.convs = nn.ModuleList(map(conv, self.rates))
    self.norms = nn.ModuleList(nn.BatchNorm2d(features) for _ in self.rates)
    self.project = nn.Conv2d(features, features, 1)

  def forward(self, x):
    pairs = zip(self.convs, self.norms, strict=True)
    return self.project(sum(norm(conv(x)) for conv, norm in pairs))


class _Decoder(nn.Module):
  def __init__(self, skip_features, in_features, features):
    super().__init__()
    self.from_skip = _NormReluConv(skip_features, in_features)
    self.from_below = _NormReluConv(in_features, in_features)
    self.attend = _NormReluConv(in_features, in_features)
    self.block = _Residual(in_features + skip_features, features, 1)

  def forward(self, skip, x):
    pooled = functional.max_pool2d(self.from_skip(skip), 2, 2)
    x = x * self.attend(pooled + self.from_below(x))
    x = functional.interpolate(x, scale_factor=2, mode='nearest')
    return self.block(torch.cat([x, skip], dim=1))


class ResUNetPlusPlus(nn.Module):
  """Residual blocks with gates, dilated bridge, attention in the decoder."""

  def __init__(self, width=16):
    super().__init__()
    w = width
    self.stem = _Stem(w)
    self.downs = nn.ModuleList(
      _Residual(w * 2**level, w * 2 ** (level + 1), 2) for level in range(3)
    )
    self.bridge = _Pyramid(8 * w, 16 * w)
    self.ups = nn.ModuleList(
      _Decoder(skip * w, below * w, below * w // 2)
      for skip, below in ((4, 16), (2, 8), (1, 4))
    )
    self.pyramid = _Pyramid(2 * w, w)
    self.head = nn.Conv2d(w, 1, 1)

  def forward(self, x):
    features = [self.stem(x)]
    for down in self.downs:
      features.append(down(features[-1]))
    x = self.bridge(features.pop())
    for up in self.ups:
      x = up(features.pop(), x)
    return self.head(self.pyramid(x))
