"""Trains every network on the same images and shows what each has learned.

python scripts/studies/networks_learn.py --runs_dir runs/networks
  [--image_size 128] [--batch_size 8] [--updates 500] [--only NAME ...]

Takes the images of the paper's training set alone: a part of them to train on,
400 images of other lesions to score on. Networks with an encoder start from
EfficientNet-Lite0 with ImageNet weights, the others from random weights at a
small width. Each network is a run folder of its own. Started again on the same
folder, the script goes on where it stopped.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import study_runs

from skinseg_jax import config as config_lib
from skinseg_jax.data import splits
from skinseg_jax.data.sources import catalog
from skinseg_jax.runtime import errors

_LITE = {
  'model.encoder': 'efficientnet_lite0',
  'model.encoder_weights': 'imagenet',
}
_ON_ENCODER = (
  'unet', 'unetplusplus', 'fpn', 'manet', 'linknet', 'pspnet', 'fcn',
  'deeplabv3', 'deeplabv3plus',
)  # fmt: skip


def _from_scratch(architecture: str, width: int) -> dict[str, str]:
  return {
    'model.architecture': architecture,
    'model.encoder': '',
    'model.encoder_weights': '',
    'model.width': str(width),
    'train.learning_rate': '0.003',
  }


# The config fields of each network by its name in the table.
NETWORKS = {
  'unet, width 16': _from_scratch('unet', 16),
  'attention_unet, width 16': _from_scratch('attention_unet', 16),
  'segnet, width 16': _from_scratch('segnet', 16),
  'resunetplusplus, width 8': _from_scratch('resunetplusplus', 8),
  **{
    f'{name}, lite0': {'model.architecture': name, **_LITE}
    for name in _ON_ENCODER
  },
}
_HELD_OUT = 400  # Images to score on.
_COLUMNS = (
  'network', 'parameters', 'loss, first 50 updates', 'loss, last 50 updates',
  'pooled Dice', 'Dice per image', 'images/s', 'seconds',
)  # fmt: skip


def make_split(
  metadata: list[dict[str, str]], num_training: int
) -> splits.Split:
  """Draws images of the paper's training set; the two sides share no lesion."""
  paper = splits.make_split(config_lib.DataConfig(split='paper'), metadata)
  kept = set(paper.train)
  inner = splits.make_split(
    config_lib.DataConfig(split='lesion', validation_fraction=0.2),
    [row for row in metadata if row['image_id'] in kept],
  )
  if num_training > len(inner.train):
    raise errors.InputError(
      f'--updates times --batch_size is {num_training}, more than the'
      f' {len(inner.train)} images there are; give a smaller one.'
    )
  rng = np.random.default_rng(0)
  draw = lambda ids, count: sorted(rng.permutation(ids)[:count].tolist())
  return splits.Split(
    train=draw(inner.train, num_training),
    validation=draw(inner.validation, _HELD_OUT),
  )


def row(name: str, workdir: pathlib.Path) -> dict[str, str]:
  """What a finished run says, by the name of the column."""
  lines = [
    json.loads(line)
    for line in (workdir / 'metrics.jsonl').read_text().splitlines()
  ]
  losses = [line['train/loss'] for line in lines if 'train/loss' in line]
  (epoch,) = (line for line in lines if 'epoch/number' in line)
  summary = json.loads(
    (workdir / 'evaluation' / 'validation' / 'summary.json').read_text()
  )
  values = (
    name,
    f'{_parameters(workdir):,}',
    f'{losses[0]:.3f}',
    f'{losses[-1]:.3f}',
    f'{summary["pooled"]["dice"]:.4f}',
    f'{summary["per_image"]["dice"]["mean"]:.4f}',
    f'{epoch["epoch/images_per_second"]:.1f}',
    f'{epoch["epoch/seconds"]:.0f}',
  )
  return dict(zip(_COLUMNS, values, strict=True))


def _parameters(workdir: pathlib.Path) -> int:
  """Sum of the list of parameters, without the running statistics."""
  lines = (workdir / 'parameters.txt').read_text().splitlines()
  rows = [[cell.strip() for cell in line.split('|')] for line in lines]
  return sum(
    int(cells[4].replace(',', ''))
    for cells in rows
    if len(cells) == 6
    and '/' in cells[1]
    and not cells[1].endswith(('/mean', '/var'))
  )


def table(rows: list[dict[str, str]]) -> str:
  """The rows as Markdown."""
  lines = [
    '| ' + ' | '.join(_COLUMNS) + ' |',
    '|---' * len(_COLUMNS) + '|',
    *('| ' + ' | '.join(each.values()) + ' |' for each in rows),
  ]
  return '\n'.join(lines)


def main(argv: list[str]) -> None:
  """Trains what is missing, then writes the table."""
  args = _parse(argv)
  source = catalog.open_source(
    config_lib.DataConfig(data_dir=str(args.data_dir))
  )
  args.runs_dir.mkdir(parents=True, exist_ok=True)
  csv = args.runs_dir / 'split.csv'
  splits.write_split(
    make_split(source.metadata, args.updates * args.batch_size), csv
  )
  common = {
    'data.data_dir': args.data_dir,
    'data.split': csv,
    'data.image_size': args.image_size,
    'train.batch_size': args.batch_size,
    'train.epochs': 1,
    'evaluation.test_time_augmentation': 'off',
  }
  rows = []
  for name in args.only or NETWORKS:
    workdir = args.runs_dir / name.replace(', ', '_').replace(' ', '')
    study_runs.train(workdir, 'ham10000_mobile', {**common, **NETWORKS[name]})
    rows.append(row(name, workdir))
    (args.runs_dir / 'table.md').write_text(table(rows) + '\n')
  print(table(rows))


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--runs_dir', type=pathlib.Path, required=True, help='for the runs')
  add('--data_dir', type=pathlib.Path, default=pathlib.Path('data'))
  add('--image_size', type=int, default=128, help='in pixels')
  add('--batch_size', type=int, default=8, help='images per update')
  add('--updates', type=int, default=500, help='updates of each network')
  add('--only', nargs='+', choices=list(NETWORKS), help='networks to train')
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
