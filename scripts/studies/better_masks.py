"""Measures what views, an ensemble of folds and cleaning of masks gain.

python scripts/studies/better_masks.py --data_dir data --output FILE.csv
  [--runs_dir DIR] [--image_size 96] [--epochs 2] [--generated DIR RUN]

With --runs_dir, six networks are trained on the paper's training images without
a fifth of the lesions: five folds of these images, each without a fifth of
them, and one network on all of them. They are scored on the lesions left out.
The paper's validation images are not used. Started again, the training goes on
where it stopped.

With --generated, the folds of a cross-validation of generated images (with
`ensemble.json`) and a run on such images are scored on 480 generated images
with another seed, which none of them has seen.

Otherwise, the model that comes with the package is scored on the paper's
validation images.

Masks are compared at the network's size. A change of views or of networks is
compared with one view of one network, each fold alone with one view of all five
folds, and cleaning with the same masks uncleaned.
"""

import argparse
import copy
import csv
import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence

import measured
import numpy as np
import study_runs

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, input_pipeline, splits
from skinseg_jax.data.sources import catalog, interface
from skinseg_jax.inference import postprocessing, predictor, trained_model
from skinseg_jax.metrics import bootstrap, confusion
from skinseg_jax.runtime import errors
from skinseg_jax.weights import ensemble_folder, shared_model

FOLDS = 5
CLEANING = {
  'none': postprocessing.Steps(),
  'fill_holes': postprocessing.Steps(fill_holes=True),
  'largest_component': postprocessing.Steps(largest_component=True),
  'min_area 0.001': postprocessing.Steps(min_area=0.001),
  'fill_holes, largest_component': postprocessing.Steps(
    fill_holes=True, largest_component=True
  ),
}
_BATCH_SIZE = 32

Models = Sequence[trained_model.TrainedModel]
Counts = dict[str, np.ndarray]


def fold_splits(metadata: list[dict[str, str]]) -> dict[str, splits.Split]:
  """Splits of the six networks.

  Returns:
    By name: `one` trains on four fifths of the paper's training images,
    `fold_0` to `fold_4` each on four fifths of those. All are scored on the
    last fifth. No lesion is on both sides of a split.
  """
  whole = measured.inner_split(metadata)
  rows = [row for row in metadata if row['image_id'] in set(whole.train)]
  found = {'one': whole}
  for fold in range(FOLDS):
    data = config_lib.DataConfig(split='lesion', folds=FOLDS, fold=fold)
    train = splits.make_split(data, rows).train
    found[f'fold_{fold}'] = splits.Split(train, whole.validation)
  return found


def count(
  variants: Mapping[str, tuple[Models, str]],
  images: np.ndarray,
  masks: np.ndarray,
) -> dict[tuple[str, str], Counts]:
  """Counts pixels for each variant and each way of cleaning.

  Args:
    variants: By name, models whose mean probability is taken, and their views.
    images: uint8 [N, H, W, 3] of the models' size.
    masks: uint8 [N, H, W], above 0 for lesion.

  Returns:
    By variant and cleaning, `tp`, `fp`, `fn`, `tn`, int64 [N].
  """
  found: dict[tuple[str, str], list[dict[str, int]]] = {
    (name, cleaning): [] for name in variants for cleaning in CLEANING
  }
  each = {
    (id(model), views): _with_views(model, views)
    for models, views in variants.values()
    for model in models
  }
  for start in range(0, len(images), _BATCH_SIZE):
    batch = images[start : start + _BATCH_SIZE]
    answers = {
      key: [
        answer.probability
        for answer in predictor.answers(
          model, [[image] for image in batch], _BATCH_SIZE
        )
      ]
      for key, model in each.items()
    }
    for name, (models, views) in variants.items():
      mean = np.mean([answers[id(model), views] for model in models], axis=0)
      predicted = mean > models[0].config.evaluation.threshold
      for true, mask in zip(
        masks[start:][:_BATCH_SIZE], predicted, strict=False
      ):
        for cleaning, steps in CLEANING.items():
          cleaned = postprocessing.clean(mask, steps)
          found[name, cleaning].append(confusion.mask_counts(cleaned, true > 0))
  return {
    key: {n: np.array([row[n] for row in rows]) for n in confusion.COUNTS}
    for key, rows in found.items()
  }


def _with_views(
  model: trained_model.TrainedModel, views: str
) -> trained_model.TrainedModel:
  config = copy.deepcopy(model.config)
  config.evaluation.test_time_augmentation = views
  return dataclasses.replace(model, config=config)


def table(
  found: Mapping[tuple[str, str], Counts],
  lesions: Sequence[str],
  compared: Mapping[str, str],
) -> Iterator[dict[str, str]]:
  """Rows with scores, and differences to what each variant is compared with.

  Args:
    found: From `count`.
    lesions: Of each image.
    compared: The variant that each is compared with.
  """
  resampling = bootstrap.resample(lesions)
  for (name, cleaning), counts in found.items():
    other = (compared[name] if cleaning == 'none' else name), 'none'
    scores, other_scores = _scores(counts), _scores(found[other])
    values: dict[str, bootstrap.Interval | bootstrap.Difference] = {
      'pooled_dice': bootstrap.pooled(resampling, counts)['dice'],
      **bootstrap.means(resampling, scores),
    }
    gains = {
      'gain_of_pooled_dice': bootstrap.pooled_difference(
        resampling, counts, found[other]
      )['dice'],
      **{
        f'gain_of_{score}': gain
        for score, gain in bootstrap.mean_difference(
          resampling, scores, other_scores
        ).items()
      },
    }
    if other != (name, cleaning):
      values |= gains
    yield {
      'masks': name,
      'cleaning': cleaning,
      'compared_with': ', '.join(other) if other != (name, cleaning) else '',
      'changed_images': str(_changed(counts, found[other])),
      **{
        f'{score}{end}': f'{number:.5f}'
        for score, value in values.items()
        for end, number in (
          ('', value.value), ('_low', value.low), ('_high', value.high)
        )
      },
    }  # fmt: skip


def _scores(counts: Counts) -> dict[str, np.ndarray]:
  ratios = confusion.ratios(counts)
  return {
    'mean_dice': ratios['dice'],
    'threshold_jaccard': confusion.thresholded_jaccard(ratios['iou']),
  }


def _changed(counts: Counts, others: Counts) -> int:
  return int(
    np.sum((counts['tp'] != others['tp']) | (counts['fp'] != others['fp']))
  )


def main(argv: list[str]) -> None:
  """Trains what is missing, scores, and writes the table."""
  args = _parse(argv)
  data_config = config_lib.DataConfig(data_dir=str(args.data_dir))
  if args.generated:
    home, run = args.generated
    one, folds = _load(run), [*map(_load, ensemble_folder.members([home]))]
    data_config = copy.deepcopy(one.config.data)
    data_config.seed = 1 + max(m.config.data.seed for m in (one, *folds))
    data_config.data_dir = str(args.data_dir)
  source = catalog.open_source(data_config)
  if args.generated:
    scored = source.image_ids
  elif args.runs_dir:
    one, *folds = _train(args, source)
    scored = measured.inner_split(source.metadata).validation
  else:
    one, folds = _load(shared_model.chosen(None)), []
    paper = config_lib.DataConfig(split='paper')
    scored = splits.make_split(paper, source.metadata).validation
  variants: dict[str, tuple[Models, str]] = {}
  compared = {}
  together = f'{len(folds)} folds'
  for models, name in ([one], 'one network'), (folds, together):
    if models:
      for views in ('off', 'flips', 'dihedral'):
        variants[f'{name}, views {views}'] = models, views
        compared[f'{name}, views {views}'] = 'one network, views off'
  for number, fold in enumerate(folds):
    variants[f'fold {number}, views off'] = [fold], 'off'
    compared[f'fold {number}, views off'] = f'{together}, views off'
  data = cache.open_cache(source, one.config.data.image_size, args.data_dir)
  chosen = input_pipeline.select(data, scored)
  found = count(variants, data.images[chosen], data.masks[chosen])
  lesions = {row['image_id']: row['lesion_id'] for row in source.metadata}
  rows = list(table(found, [lesions[i] for i in scored], compared))
  columns = list(dict.fromkeys(name for row in rows for name in row))
  with args.output.open('w', newline='') as file:
    writer = csv.DictWriter(file, columns, restval='')
    writer.writeheader()
    writer.writerows(rows)
  for row in rows:
    print(
      f'{row["masks"]}, {row["cleaning"]}: {row["mean_dice"]}',
      row.get('gain_of_mean_dice', ''),
    )


def _train(
  args: argparse.Namespace, source: interface.Source
) -> list[trained_model.TrainedModel]:
  """Trains the networks that are missing; `one`, then the folds."""
  args.runs_dir.mkdir(parents=True, exist_ok=True)
  models = []
  for name, split in fold_splits(source.metadata).items():
    splits.write_split(split, args.runs_dir / f'{name}.csv')
    study_runs.train(
      args.runs_dir / name,
      'ham10000_mobile',
      {
        'data.data_dir': args.data_dir,
        'data.split': args.runs_dir / f'{name}.csv',
        'data.image_size': args.image_size,
        'train.epochs': args.epochs,
        'evaluation.test_time_augmentation': 'off',
      },
    )
    models.append(_load(args.runs_dir / name))
  return models


def _load(folder: pathlib.Path) -> trained_model.TrainedModel:
  return trained_model.load(folder, 'last')


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--output', type=pathlib.Path, required=True, help='table to write')
  add('--runs_dir', type=pathlib.Path, help='for the runs of the six networks')
  add(
    '--generated',
    type=pathlib.Path,
    nargs=2,
    metavar=('DIR', 'RUN'),
    help='of a cross-validation and of one run, of generated images',
  )
  add('--data_dir', type=pathlib.Path, default=pathlib.Path('data'))
  add('--image_size', type=int, default=96, help='in pixels')
  add('--epochs', type=int, default=2)
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
