"""Draws how each network is built, for docs/reference/networks.md.

python scripts/docs/network_pictures.py --output_dir docs/pictures/networks

Channels and sizes in the pictures come from the networks themselves, see
`network_shapes`. Networks without an encoder have their default width.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import network_layouts as layouts
import network_shapes
import picture_parts

from skinseg_jax.runtime import errors

_LITE = 'efficientnet_lite0'


class Picture(NamedTuple):
  """A picture to draw.

  Attributes:
    architecture: Name of the network.
    encoder: Its encoder, or empty.
    layout: Puts the network on a sheet.
    legend: What arrows and boxes mean.
  """

  architecture: str
  encoder: str
  layout: Callable[[network_shapes.Shapes], picture_parts.Sheet]
  legend: dict[str, str]


_ENCODER = {'encoder': 'encoder (here Lite0)', 'decoder': 'decoder'}
_DILATED = {**_ENCODER, 'down': 'stages of the encoder; the last ones dilate'}
_NEAREST = 'each pixel becomes 2×2, then two 3×3 convolutions'
_UNET = {
  'down': '2×2 max pooling, then two 3×3 convolutions',
  'up': '2×2 transposed convolution',
  'skip': 'skip connection',
  'concat': 'concatenated, then two 3×3 convolutions',
}

# By the name of the file.
PICTURES = {
  'unet': Picture('unet', '', layouts.unet, _UNET),
  'unet_encoder': Picture(
    'unet',
    _LITE,
    layouts.encoder_unet,
    {
      **_ENCODER,
      'down': 'stages of the encoder',
      'up': _NEAREST,
      'skip': 'skip connection',
      'concat': 'concatenated',
    },
  ),
  'attention_unet': Picture(
    'attention_unet',
    '',
    layouts.attention_unet,
    {
      'down': 'two 3×3 convolutions, the first with stride 2',
      'up': '3×3 transposed convolution',
      'skip': 'skip connection, weighted at each position',
      'gate': 'what the weights are computed from',
      'concat': 'concatenated, then one 3×3 convolution',
    },
  ),
  'segnet': Picture(
    'segnet',
    '',
    layouts.segnet,
    {
      'down': '2×2 max pooling, then two or three 3×3 convolutions',
      'up': 'unpooling, then two or three 3×3 convolutions',
      'gate': 'positions of the maxima',
    },
  ),
  'resunetplusplus': Picture(
    'resunetplusplus',
    '',
    layouts.resunetplusplus,
    {
      'context': 'dilated convolutions',
      'down': 'residual block with a channel gate',
      'up': 'each pixel becomes 2×2, then a residual block',
      'skip': 'skip connection',
      'gate': 'what the attention is computed from',
      'concat': 'concatenated',
    },
  ),
  'unetplusplus': Picture(
    'unetplusplus',
    _LITE,
    layouts.unetplusplus,
    {
      **_ENCODER,
      'down': 'stages of the encoder',
      'up': _NEAREST,
      'skip': 'skip connections from all boxes to the left',
      'concat': 'concatenated',
    },
  ),
  'fpn': Picture(
    'fpn',
    _LITE,
    layouts.fpn,
    {
      **_ENCODER,
      'context': 'pyramid',
      'down': 'stages of the encoder, convolutions',
      'up': 'pyramid: pixels become 2×2; last: bilinear ×4',
      'skip': '1×1 convolution',
      'add': 'added; each branch is brought to 1/4 first',
    },
  ),
  'manet': Picture(
    'manet',
    _LITE,
    layouts.manet,
    {
      **_ENCODER,
      'down': 'stages of the encoder',
      'up': 'convolutions, each pixel becomes 2×2',
      'skip': 'skip connection',
      'gate': 'means that the channels are weighted by',
      'concat': 'concatenated, then two 3×3 convolutions',
    },
  ),
  'linknet': Picture(
    'linknet',
    _LITE,
    layouts.linknet,
    {
      **_ENCODER,
      'down': 'stages of the encoder',
      'up': '1×1, 4×4 transposed, 1×1 convolution',
      'skip': 'skip connection',
      'add': 'added',
    },
  ),
  'pspnet': Picture(
    'pspnet',
    _LITE,
    layouts.pspnet,
    {
      **_ENCODER,
      'context': 'means over grids',
      'down': 'stages of the encoder, 1×1 convolutions',
      'up': '3×3 convolution, bilinear ×8',
      'skip': 'unchanged',
      'concat': 'concatenated, then a 1×1 convolution',
    },
  ),
  'fcn': Picture(
    'fcn',
    _LITE,
    layouts.fcn,
    {
      **_DILATED,
      'decoder': '3×3 convolution',
      'up': '1×1 convolution, bilinear ×8',
    },
  ),
  'deeplabv3': Picture(
    'deeplabv3',
    _LITE,
    layouts.deeplabv3,
    {
      **_DILATED,
      'decoder': '3×3 convolution',
      'context': 'branches of the pyramid',
      'up': '1×1 convolution, bilinear ×8',
      'concat': 'concatenated, then a 1×1 convolution',
    },
  ),
  'deeplabv3plus': Picture(
    'deeplabv3plus',
    _LITE,
    layouts.deeplabv3plus,
    {
      **_DILATED,
      'context': 'branches of the pyramid',
      'up': 'bilinear ×4; the last after a 1×1 convolution',
      'skip': 'skip connection',
      'concat': 'concatenated, then a 1×1 or 3×3 convolution',
    },
  ),
}


def sheet(name: str) -> picture_parts.Sheet:
  """Traces a network and puts it on a sheet; `name` is one of `PICTURES`."""
  picture = PICTURES[name]
  config = network_shapes.model_config(picture.architecture, picture.encoder)
  return picture.layout(network_shapes.trace(config))


def main(argv: list[str]) -> None:
  """Draws every picture."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    '--output_dir', type=pathlib.Path, required=True, help='for the svg files'
  )
  args = parser.parse_args(argv[1:])
  args.output_dir.mkdir(parents=True, exist_ok=True)
  for name, picture in PICTURES.items():
    path = args.output_dir / f'{name}.svg'
    title = f'Structure of {picture.architecture}'
    path.write_text(sheet(name).svg(picture.legend, title) + '\n')
    print(path)


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
