"""Draws a sheet of real images with one row for every augmentation.

python scripts/docs/augmentation_sheet.py --data_dir DIR --output sheet.png

Each row enables one field at a strength that is easy to see. The first row is
unchanged; the last row enables all fields. The outline of the mask is white.
The sheet shows images of the data set, so the licence of the data set applies.
"""

import argparse
import dataclasses
import pathlib
import sys

import jax
import matplotlib.figure
import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache
from skinseg_jax.data.sources import catalog
from skinseg_jax.runtime import errors
from skinseg_jax.training import augmentation

_OFF = config_lib.AugmentationConfig(
  rotation_degrees=0.0, horizontal_flip=0.0, vertical_flip=0.0
)
_SHOWN = {
  'rotation_degrees': 180.0,
  'horizontal_flip': 0.5,
  'vertical_flip': 0.5,
  'quarter_turn': 0.75,
  'scale': 0.25,
  'translation': 0.1,
  'shear_degrees': 10.0,
  'brightness': 0.1,
  'contrast': 0.2,
  'saturation': 0.2,
  'hue_degrees': 10.0,
  'gamma': 0.2,
  'colour_constancy': 0.1,
  'blur': 1.0,
  'noise': 0.02,
  'hair': 1.0,
  'vignette': 1.0,
  'jpeg': 1.0,
}


def rows() -> dict[str, config_lib.AugmentationConfig]:
  """Config of each row of the sheet, by the name of the row."""
  single = {
    f'{name} {value:g}': dataclasses.replace(_OFF, **{name: value})
    for name, value in _SHOWN.items()
  }
  return {
    'unchanged': _OFF,
    **single,
    'all': dataclasses.replace(_OFF, **_SHOWN),
  }


def draw(images: np.ndarray, masks: np.ndarray) -> matplotlib.figure.Figure:
  """Draws the sheet for images, uint8 [N, H, W, 3], and masks, [N, H, W]."""
  configs = rows()
  figure = matplotlib.figure.Figure((len(images), len(configs)), dpi=120)
  axes = figure.subplots(len(configs), len(images), squeeze=False)
  for row, (name, config) in zip(axes, configs.items(), strict=True):
    drawn = jax.jit(
      lambda i, m, config=config: augmentation.augment(
        i, m, 0, seed=0, config=config
      )
    )(images, masks)
    for axis, image, mask in zip(row, *map(np.asarray, drawn), strict=True):
      axis.imshow(image)
      axis.contour(mask, levels=[0.5], colors='white', linewidths=0.6)
      axis.axis('off')
    row[0].set_title(name, loc='left', fontsize=6, pad=2)
  figure.subplots_adjust(0, 0, 1, 0.985, wspace=0.03, hspace=0.12)
  return figure


def main(argv: list[str]) -> None:
  """Parses the command line and draws."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  path = {'type': pathlib.Path, 'required': True}
  parser.add_argument('--output', help='png to write', **path)
  parser.add_argument('--data_dir', type=pathlib.Path, default='data')
  parser.add_argument('--images', type=int, default=12, help='how many')
  args = parser.parse_args(argv[1:])
  if args.images < 1:
    raise errors.InputError(f'--images {args.images}: must be at least 1.')
  config = config_lib.DataConfig(data_dir=str(args.data_dir))
  data = cache.open_cache(
    catalog.open_source(config), config.image_size, args.data_dir
  )
  # Spread over the whole data set.
  chosen = np.linspace(0, len(data.images) - 1, args.images).astype(int)
  figure = draw(data.images[chosen], data.masks[chosen])
  figure.savefig(args.output)
  print(f'{args.images} images with {len(rows())} settings: {args.output}')


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
