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
import hashlib
import pathlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.data import cache, input_pipeline, splits
from skinseg_jax.data.sources import catalog, interface
from skinseg_jax.evaluation import scoring
from skinseg_jax.inference import trained_model
from skinseg_jax.metrics import bootstrap, confusion
from skinseg_jax.models import layers
from skinseg_jax.runtime import errors, stop_signals
from skinseg_jax.training import train_state
from skinseg_jax.training import trainer as trainer_lib

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
_BATCH_SIZE = 32  # For evaluation.
# Ends the name of a case with recomputed batch-norm statistics.
_RECOMPUTED = ', statistics recomputed'
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


def inner_split(metadata: list[dict[str, str]]) -> splits.Split:
  """Splits the paper's training images by lesion; a fifth are validation."""
  paper = splits.make_split(config_lib.DataConfig(split='paper'), metadata)
  kept = set(paper.train)
  return splits.make_split(
    config_lib.DataConfig(split='lesion', validation_fraction=0.2),
    [row for row in metadata if row['image_id'] in kept],
  )


def measure(
  configs: Mapping[str, config_lib.Config],
  folder: pathlib.Path,
  source: interface.Source,
) -> None:
  """Trains once for all `configs`, scores each, and saves the counts.

  Args:
    configs: Configs by case; they differ only in `evaluation`.
    folder: Folder for the results, `<case>.npz` with `tp`, `fp`, `fn`, `tn`,
      int [N], the training time in `seconds`, and the case's `fingerprint`.
    source: The images; `data.split` is a csv file with their split.
  """
  config = next(iter(configs.values()))
  split = splits.make_split(config.data, source.metadata)
  data = cache.open_cache(
    source, config.data.image_size, pathlib.Path(config.data.data_dir)
  )
  began = time.perf_counter()
  with tempfile.TemporaryDirectory() as workdir:
    begin = train_state.find_initial_weights(config)
    home, stop = pathlib.Path(workdir), stop_signals.StopSignals()
    trainer = trainer_lib.Trainer(config, home, data, split, begin, stop)
    try:
      while trainer.step < config.train.epochs * trainer.steps_per_epoch:
        trainer.train_epoch()
      seconds = time.perf_counter() - began
      model = trainer.trained_model()
    finally:
      trainer.close()
  states = {'': model.state}
  # Scored first: a case counts as measured once its file without suffix exists.
  if config.train.ema:
    recomputed = recomputed_statistics(model, data, split.train)
    states = {_RECOMPUTED: recomputed, **states}
  for name, each in configs.items():
    for suffix, state in states.items():
      counts = scoring.score(
        model.graphdef,
        state,
        _batches(data, split.validation, model),
        threshold=each.evaluation.threshold,
        views=each.evaluation.test_time_augmentation,
      )
      _save(
        folder / f'{name}{suffix}.npz',
        fingerprint=fingerprint(each, split),
        seconds=seconds,
        **counts,
      )


def _save(path: pathlib.Path, **arrays) -> None:
  part = path.with_suffix('.part')
  with part.open('wb') as file:
    np.savez(file, **arrays)
  part.replace(path)


def fingerprint(config: config_lib.Config, split: splits.Split) -> str:
  """Identifies the config and the images that a result belongs to."""
  values = {
    name: value
    for name, value in config_lib.flat(config).items()
    if name not in ('data.data_dir', 'data.split')
  }
  text = repr((sorted(values.items()), split.train, split.validation))
  return hashlib.sha256(text.encode()).hexdigest()


def is_measured(path: pathlib.Path, wanted: str) -> bool:
  """Whether the result of a case exists.

  Raises:
    InputError: If the fingerprint of the result is not `wanted`.
  """
  if not path.exists():
    return False
  with np.load(path) as arrays:
    found = str(arrays['fingerprint']) if 'fingerprint' in arrays else ''
  if found != wanted:
    raise errors.InputError(
      f'{path} was measured with another config or on other images; remove it'
      ' or give another --runs_dir.'
    )
  return True


def recomputed_statistics(
  model: trained_model.TrainedModel,
  data: cache.CachedData,
  image_ids: Sequence[str],
) -> Any:
  """The model's state with batch-norm statistics recomputed on some images.

  The new statistics are means over at most 64 whole batches of images that are
  evenly spread over `image_ids` and not augmented. All are computed with the
  weights of `model`.
  """
  running = lambda state: nnx.filter_state(state, nnx.BatchStat)
  average = nnx.merge(model.graphdef, model.state)
  graphdef = nnx.graphdef(nnx.view(average, use_running_average=False))

  @jax.jit
  def statistics(state, images):
    # Copied, because the merged model shares its variables with `state`.
    before = jax.tree.map(lambda x: x, running(state))
    copy = nnx.merge(graphdef, state)
    copy(images.astype(np.float32) / 255.0)
    # One batch moves the running statistics by the share 1 - MOMENTUM; this
    # formula recovers the statistics of the batch alone.
    return jax.tree.map(
      lambda new, old: old + (new - old) / (1 - layers.MOMENTUM),
      running(nnx.state(copy)),
      before,
    )

  whole = _BATCH_SIZE * min(64, len(image_ids) // _BATCH_SIZE)
  chosen = [image_ids[i * len(image_ids) // whole] for i in range(whole)]
  found = [
    statistics(model.state, batch['image'])
    for batch in _batches(data, chosen, model)
  ]
  mean = jax.tree.map(lambda *each: sum(each) / len(each), *found)
  return nnx.merge_state(model.state, mean)


def _batches(data, image_ids, model):
  return input_pipeline.evaluation_batches(
    data,
    input_pipeline.select(data, image_ids),
    batch_size=_BATCH_SIZE,
    sharding=model.sharding,
  )


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
  found = {name: _read(folders, name) for name in names}
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


def _read(folders, name) -> tuple[dict, dict]:
  """Counts summed over seeds and scores averaged over seeds, per image."""
  per_seed = []
  for folder in folders:
    with np.load(folder / f'{name}.npz') as arrays:
      per_seed.append({n: arrays[n].astype(np.int64) for n in confusion.COUNTS})
  counts = {n: sum(seed[n] for seed in per_seed) for n in confusion.COUNTS}
  ratios = [confusion.ratios(seed) for seed in per_seed]
  jaccard = [confusion.thresholded_jaccard(seed['iou']) for seed in ratios]
  return counts, {
    'dice': np.mean([seed['dice'] for seed in ratios], axis=0),
    'threshold_jaccard': np.mean(jaccard, axis=0),
  }


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
  split = inner_split(source.metadata)
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
      if not is_measured(path, fingerprint(config, split)):
        trained = dataclasses.replace(
          config, evaluation=config_lib.EvaluationConfig()
        )
        groups[trained][name] = config
    for group in groups.values():
      print(', '.join(group), flush=True)
      measure(group, folder, source)
  lesions = {row['image_id']: row['lesion_id'] for row in source.metadata}
  recomputed = [
    name + _RECOMPUTED
    for name in wanted
    if all((folder / f'{name}{_RECOMPUTED}.npz').exists() for folder in folders)
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
