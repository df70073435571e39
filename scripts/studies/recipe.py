"""Measures the parts of the recipe: each one alone, and the whole without it.

python scripts/studies/recipe.py --runs_dir runs/recipe
  [--width 8] [--image_size 64] [--epochs 3] [--seeds 1] [--only NAME ...]

Trains on four fifths of the paper's training images and scores on the last
fifth, split by lesion. The paper's validation images are not used. Started
again on the same folder, it measures only the missing cases.
"""

import argparse
import collections
import copy
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import measured
from absl import logging

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.data import splits
from skinseg_jax.data.sources import catalog
from skinseg_jax.metrics import bootstrap, confusion
from skinseg_jax.runtime import errors

# The fields that each part changes in the paper's recipe.
PARTS = {
  'cosine': {'train.schedule': 'cosine', 'train.warmup': 0.05},
  'batch of 16': {'train.batch_size': 16},
  'batch of 8': {'train.batch_size': 8},
  'rate 0.0015': {'train.learning_rate': 1.5e-3},
  'rate 0.003': {'train.learning_rate': 3e-3},
  'rate 0.006': {'train.learning_rate': 6e-3},
  'AdamW': {'train.optimizer': 'adamw', 'train.weight_decay': 0.05},
  'average': {'train.ema': 0.99},
  'BCE + Dice': {'train.loss': 'bce_dice'},
  'focal Tversky': {'train.loss': 'focal_tversky'},
  'soft border': {'train.border_smoothing': 1.0},
  'turns': {
    'augmentation.vertical_flip': 0.5,
    'augmentation.quarter_turn': 0.75,
  },
  'exact pixels': {'augmentation.rotation_degrees': 0.0},
  'zoom': {
    'augmentation.scale': 0.15,
    'augmentation.translation': 0.05,
    'augmentation.shear_degrees': 5.0,
  },
  'colour': {
    'augmentation.brightness': 0.05,
    'augmentation.contrast': 0.15,
    'augmentation.saturation': 0.15,
    'augmentation.hue_degrees': 5.0,
    'augmentation.gamma': 0.15,
    'augmentation.colour_constancy': 0.05,
  },
  'blur and noise': {'augmentation.blur': 1.0, 'augmentation.noise': 0.03},
  'hair': {'augmentation.hair': 0.3},
  'eight views': {'evaluation.test_time_augmentation': 'dihedral'},
}
# Parts of the whole recipe.
RECIPE = (
  'cosine',
  'batch of 16',
  'rate 0.003',
  'AdamW',
  'average',
  'BCE + Dice',
  'turns',
  'exact pixels',
  'eight views',
)
_SCORES = ('pooled Dice', 'Dice per image', 'thresholded Jaccard')


def cases() -> dict[str, tuple[str, ...]]:
  """Parts of each case by its name; the first case is the paper's recipe."""
  whole = {'whole recipe': RECIPE}
  for name in PARTS:
    if name in RECIPE:
      rest = tuple(part for part in RECIPE if part != name)
      whole[f'whole without {name}'] = rest
    else:
      whole[f'whole with {name}'] = (*RECIPE, name)
  alone = {f'paper with {name}': (name,) for name in PARTS}
  return {'paper': (), **alone, **whole}


def with_parts(
  base: config_lib.Config, parts: Sequence[str]
) -> config_lib.Config:
  """Copies a config and applies some parts; later parts override earlier."""
  config = copy.deepcopy(base)
  for part in parts:
    for field, value in PARTS[part].items():
      section, name = field.split('.')
      setattr(getattr(config, section), name, value)
  config_rules.validate(config)
  return config


def table(
  folders: Sequence[pathlib.Path],
  names: Sequence[str],
  lesions: Sequence[str],
) -> str:
  """Scores of all cases, as Markdown.

  Args:
    folders: Results of each seed. Counts are summed over seeds; scores of
      images are averaged.
    names: Cases that have results in all folders. Variants of the whole recipe
      are compared with the whole recipe; all other cases are compared with the
      paper's recipe.
    lesions: Lesion of each scored image, in the order of the results.
  """
  found = {
    name: measured.read([folder / f'{name}.npz' for folder in folders])
    for name in names
  }
  resampling = bootstrap.resample(lesions)
  lines = [
    '| | ' + ' | '.join(f'{score} | difference' for score in _SCORES) + ' |',
    '|---' * (1 + 2 * len(_SCORES)) + '|',
  ]
  for name, (counts, means) in found.items():
    pooled = float(confusion.ratios(confusion.pool(counts))['dice'])
    values = [pooled, *(float(m.mean()) for m in means.values())]
    part = name.startswith('whole') and name != 'whole recipe'
    first = 'whole recipe' if part else 'paper'
    between = [None] * len(values)
    if name != first and first in found:
      base_counts, base_means = found[first]
      between = [
        bootstrap.pooled_difference(resampling, counts, base_counts)['dice'],
        *bootstrap.mean_difference(resampling, means, base_means).values(),
      ]
    cells = [
      f'{value:.4f} | {_show(difference)}'
      for value, difference in zip(values, between, strict=True)
    ]
    lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def _show(difference: bootstrap.Difference | None) -> str:
  if difference is None:
    return ''
  text = f'{difference.value:+.4f}'
  if difference.low is not None:
    text += f' ({difference.low:+.4f} to {difference.high:+.4f})'
    text += '*' * (difference.low > 0 or difference.high < 0)
  return text


def main(argv: list[str]) -> None:
  """Measures what is missing, then prints the table."""
  args = _parse(argv)
  logging.set_verbosity(logging.ERROR)
  base = config_lib.Config()
  base.data.data_dir = str(args.data_dir)
  base.data.image_size = (args.image_size, args.image_size)
  base.data.split = str(args.runs_dir / 'split.csv')
  base.model.width, base.model.compute_dtype = args.width, args.compute_dtype
  base.train.epochs = args.epochs
  source = catalog.open_source(base.data)
  split = measured.inner_split(source.metadata)
  args.runs_dir.mkdir(parents=True, exist_ok=True)
  splits.write_split(split, args.runs_dir / 'split.csv')
  chosen = args.only or list(cases())
  wanted = {name: cases()[name] for name in cases() if name in chosen}
  folders = [args.runs_dir / f'seed{seed}' for seed in range(args.seeds)]
  for seed, folder in enumerate(folders):
    folder.mkdir(exist_ok=True)
    base.train.seed = seed
    groups = collections.defaultdict(dict)
    for name, parts in wanted.items():
      config = with_parts(base, parts)
      path = folder / f'{name}.npz'
      if not measured.is_measured(path, measured.fingerprint(config, split)):
        trained = dataclasses.replace(
          config, evaluation=config_lib.EvaluationConfig()
        )
        groups[trained][name] = config
    for group in groups.values():
      print(', '.join(group), flush=True)
      measured.measure(group, folder, source, recompute=True)
  lesions = {row['image_id']: row['lesion_id'] for row in source.metadata}
  recomputed = [
    name + measured.RECOMPUTED
    for name in wanted
    if all(
      (folder / f'{name}{measured.RECOMPUTED}.npz').exists()
      for folder in folders
    )
  ]
  text = table(
    folders, [*wanted, *recomputed], [lesions[i] for i in split.validation]
  )
  (args.runs_dir / 'table.md').write_text(text + '\n', encoding='utf-8')
  print(text)


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--runs_dir', type=pathlib.Path, required=True, help='for the results')
  add('--data_dir', type=pathlib.Path, default=pathlib.Path('data'))
  add('--width', type=int, default=8, help='width of the U-Net')
  add('--compute_dtype', default='float32', help='float32 or bfloat16')
  add('--image_size', type=int, default=64, help='in pixels')
  add('--epochs', type=int, default=3)
  add('--seeds', type=int, default=1, help='number of seeds, from 0')
  add('--only', nargs='+', choices=list(cases()), help='cases to measure')
  args = parser.parse_args(argv[1:])
  if args.seeds < 1:
    raise errors.InputError(f'--seeds {args.seeds}: must be at least 1.')
  return args


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
