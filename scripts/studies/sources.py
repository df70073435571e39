"""Scores recipes on pictures of a source that they were not trained on.

python scripts/studies/sources.py --runs_dir runs/sources
  [--image_size 96] [--epochs 2] [--only NAME ...] [--recipes NAME ...]

HAM10000 has pictures of four sources, which differ in camera, light and time.
For each source and each recipe, a network is trained on the other sources and
scored on this one. For comparison, `mixed` leaves out a fifth of the lesions of
all sources. Takes the images of the paper's training set alone. Started again
on the same folder, the script goes on where it stopped.
"""

import argparse
import pathlib
import sys

import numpy as np
import study_runs

from skinseg_jax import config as config_lib
from skinseg_jax.data import splits
from skinseg_jax.data.sources import catalog
from skinseg_jax.evaluation import comparison
from skinseg_jax.runtime import errors

SOURCES = ('vidir_molemax', 'vidir_modern', 'rosendahl', 'vienna_dias')
MIXED = 'mixed'
# The augmentation of each recipe, besides flips and quarter turns; each is
# compared with the first one.
_OFF = {
  'blur': 0.0,
  'vignette': 0.0,
  'jpeg': 0.0,
}
RECIPES: dict[str, dict[str, float]] = {
  'plain': {
    **_OFF,
    'brightness': 0.0,
    'contrast': 0.0,
    'saturation': 0.0,
    'hue_degrees': 0.0,
    'gamma': 0.0,
    'colour_constancy': 0.0,
  },
  'colour': {
    **_OFF,
    'brightness': 0.1,
    'contrast': 0.2,
    'saturation': 0.2,
    'hue_degrees': 5.0,
    'gamma': 0.2,
    'colour_constancy': 0.1,
  },
  # That of the config: what cameras and lights differ in. Nothing is resampled.
  'camera': {},
  'strong': {
    'brightness': 0.15,
    'contrast': 0.3,
    'saturation': 0.4,
    'hue_degrees': 15.0,
    'gamma': 0.4,
    'colour_constancy': 0.2,
    'scale': 0.25,
    'blur': 1.0,
    'noise': 0.03,
    'hair': 0.3,
    'vignette': 0.2,
    'jpeg': 0.3,
  },
}


def make_split(
  metadata: list[dict[str, str]], left_out: str, most: int
) -> splits.Split:
  """Trains on the other sources, scores at most `most` images of this one.

  Pictures of a lesion that the left-out source shows as well are left out of
  the training: nine lesions have pictures of two sources. `mixed` leaves out a
  fifth of the lesions, whatever their source.
  """
  paper = splits.make_split(config_lib.DataConfig(split='paper'), metadata)
  kept = set(paper.train)
  rows = [row for row in metadata if row['image_id'] in kept]
  if left_out == MIXED:
    data = config_lib.DataConfig(split='lesion', validation_fraction=0.2)
    fifth = set(splits.make_split(data, rows).validation)
    own = [row for row in rows if row['image_id'] in fifth]
  else:
    own = [row for row in rows if row['dataset'] == left_out]
  lesions = {row['lesion_id'] for row in own}
  ids = sorted(row['image_id'] for row in own)
  return splits.Split(
    train=sorted(
      row['image_id'] for row in rows if row['lesion_id'] not in lesions
    ),
    validation=sorted(
      np.random.default_rng(0).permutation(ids)[:most].tolist()
    ),
  )


def main(argv: list[str]) -> None:
  """Trains what is missing, then prints the scores of each source."""
  args = _parse(argv)
  source = catalog.open_source(
    config_lib.DataConfig(data_dir=str(args.data_dir))
  )
  text = []
  for left_out in args.only:
    home = args.runs_dir / left_out
    home.mkdir(parents=True, exist_ok=True)
    split = make_split(source.metadata, left_out, args.images)
    splits.write_split(split, home / 'split.csv')
    for recipe in args.recipes:
      changes = {
        f'augmentation.{name}': value for name, value in RECIPES[recipe].items()
      }
      study_runs.train(
        home / recipe,
        'ham10000_mobile',
        {
          'data.data_dir': args.data_dir,
          'data.split': home / 'split.csv',
          'data.image_size': args.image_size,
          'train.epochs': args.epochs,
          'evaluation.test_time_augmentation': 'off',
          **changes,
        },
      )
    text += [f'## {left_out}, {len(split.validation)} images', '']
    if len(args.recipes) > 1:
      folders = [home / recipe for recipe in args.recipes]
      rows = comparison.compare(folders, 'validation')
      text += [comparison.table(list(args.recipes), rows), '']
    (args.runs_dir / 'table.md').write_text('\n'.join(text))
  print('\n'.join(text))


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--runs_dir', type=pathlib.Path, required=True, help='for the runs')
  add('--data_dir', type=pathlib.Path, default=pathlib.Path('data'))
  add('--image_size', type=int, default=96, help='in pixels')
  add('--epochs', type=int, default=2)
  add('--images', type=int, default=800, help='most images to score on')
  everything = (*SOURCES, MIXED)
  add('--only', nargs='+', choices=everything, default=everything)
  add('--recipes', nargs='+', choices=list(RECIPES), default=list(RECIPES))
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
