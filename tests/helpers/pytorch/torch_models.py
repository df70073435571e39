"""Shared by the tests against PyTorch: the reference, and public layouts.

Importing this module skips the importing tests if PyTorch or OpenCV is missing.
"""

import numpy as np
import pytest

# Imported before torch: it makes the waiting threads of torch sleep.
pytest.importorskip('torch_reference')
torch = pytest.importorskip('torch')
nn = torch.nn


def randomise(module, seed=0):
  """Sets all weights and statistics to random values, so that mix-ups show."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, values in module.state_dict().items():
      if name.endswith('running_var'):
        values.uniform_(0.5, 2.0, generator=generator)
      elif values.is_floating_point():
        fan_in = values[0].numel() if values.ndim > 1 else 4
        values.normal_(0.0, fan_in**-0.5, generator=generator)
      if 'norm' in name and name.endswith('weight'):
        values.add_(1.0)
  return module.eval()


def arrays(module):
  """The state_dict as numpy arrays."""
  return {name: v.numpy().copy() for name, v in module.state_dict().items()}


def _double_conv(in_features, features, bias):
  conv = lambda i: nn.Conv2d(i, features, 3, padding=1, bias=bias)
  norm = lambda: nn.BatchNorm2d(features)
  return nn.Sequential(
    conv(in_features), norm(), nn.ReLU(), conv(features), norm(), nn.ReLU()
  )


def _named(**modules):
  return nn.ModuleDict(modules)


def aladdinpersson(width):
  """Modules named as UNET of aladdinpersson/Machine-Learning-Collection."""
  widths = [width * 2**level for level in range(5)]
  block = lambda i, o: _named(conv=_double_conv(i, o, bias=False))
  ups = []
  for w in reversed(widths[:4]):
    ups += [nn.ConvTranspose2d(2 * w, w, 2, stride=2), block(2 * w, w)]
  return _named(
    downs=nn.ModuleList(map(block, [3, *widths[:3]], widths[:4])),
    ups=nn.ModuleList(ups),
    bottleneck=block(widths[3], widths[4]),
    final_conv=nn.Conv2d(width, 1, 1),
  )


def milesial(width, *, bias=False, classes=1):
  """Modules named as UNet(bilinear=False) of milesial/Pytorch-UNet.

  In older versions, the convolutions have biases.
  """
  widths = [width * 2**level for level in range(5)]
  block = lambda i, o: _named(double_conv=_double_conv(i, o, bias))
  net = _named(
    inc=block(3, width), outc=_named(conv=nn.Conv2d(width, classes, 1))
  )
  for level in range(1, 5):
    down = block(widths[level - 1], widths[level])
    net[f'down{level}'] = _named(
      maxpool_conv=nn.Sequential(nn.MaxPool2d(2), down)
    )
    w = widths[4 - level]
    net[f'up{level}'] = _named(
      up=nn.ConvTranspose2d(2 * w, w, 2, stride=2), conv=block(2 * w, w)
    )
  return net


def aladdinpersson_parts(net):
  """Blocks down, bottleneck, upsampling, blocks up, last convolution."""
  return (
    [block.conv for block in net.downs],
    net.bottleneck.conv,
    net.ups[::2],
    [block.conv for block in net.ups[1::2]],
    net.final_conv,
  )


def milesial_parts(net):
  """The same parts as `aladdinpersson_parts`."""
  downs = [net[f'down{i}'].maxpool_conv[1].double_conv for i in range(1, 5)]
  ups = [net[f'up{i}'] for i in range(1, 5)]
  return (
    [net.inc.double_conv, *downs[:3]],
    downs[3],
    [up.up for up in ups],
    [up.conv.double_conv for up in ups],
    net.outc.conv,
  )


@torch.no_grad()
def forward(parts, images):
  """Runs the parts of a U-Net: images [B, H, W, 3] to logits [B, H, W, C]."""
  downs, bottleneck, ups, blocks, head = parts
  x = torch.from_numpy(np.moveaxis(images, -1, 1).copy())
  skips = []
  for down in downs:
    x = down(x)
    skips.append(x)
    x = nn.functional.max_pool2d(x, 2)
  x = bottleneck(x)
  for up, block in zip(ups, blocks, strict=True):
    x = block(torch.cat([skips.pop(), up(x)], dim=1))
  return np.moveaxis(head(x).numpy(), 1, -1)
