"""Tests the review columns that `predict` writes, on the paper's images.

python scripts/studies/review_columns.py --predicted DIR --output FILE.csv
  [--data_dir data] [--workdir DIR]

--predicted is the --output of `predict` on images of HAM10000, by the model of
--workdir, which has a calibration. Its masks are compared with the true ones at
each image's own size, on the paper's validation images. Writes one row: how
well the expected Dice orders the masks, which masks `needs_review` finds, and
for which reasons. `noticed_*` are the shares of 200 of these images that are
noticed by the picture alone: unchanged, and spoiled as in `review.py`.
"""

import argparse
import collections
import csv
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import review
from PIL import Image

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, input_pipeline, splits
from skinseg_jax.data.sources import catalog, interface
from skinseg_jax.inference import table, trained_model
from skinseg_jax.metrics import confusion
from skinseg_jax.quality import expected_dice
from skinseg_jax.run import review_file
from skinseg_jax.runtime import errors, paths
from skinseg_jax.weights import shared_model

_SPOILED = 200


def flagged(
  needs_review: Sequence[bool], reasons: Sequence[str], dice: np.ndarray
) -> dict[str, Any]:
  """Which masks a person is asked to look at.

  Args:
    needs_review: Of each mask.
    reasons: Of each mask, divided by '; '.
    dice: True Dice of each mask, float [N].

  Returns:
    Shares of all masks, of those below .85 and of the worst twentieth that need
    a review, and the number of masks for each reason.
  """
  asked = np.array(needs_review)
  bad = dice < review.GOOD
  worst = np.argsort(dice, kind='stable')[: max(1, len(dice) // 20)]
  counts = collections.Counter(
    reason for text in reasons for reason in text.split('; ') if reason
  )
  return {
    'flagged': float(asked.mean()),
    'flagged_below_0.85': float(asked[bad].mean()) if bad.any() else np.nan,
    'flagged_worst_twentieth': float(asked[worst].mean()),
    **dict(sorted(counts.items())),
  }


def main(argv: list[str]) -> None:
  """Compares, prints and writes the row."""
  args = _parse(argv)
  source = catalog.open_source(
    config_lib.DataConfig(data_dir=str(args.data_dir))
  )
  paper = splits.make_split(
    config_lib.DataConfig(split='paper'), source.metadata
  )
  rows = _rows(args.predicted, paper.validation)
  chosen = sorted(rows)
  places = {name: i for i, name in enumerate(source.image_ids)}
  dice = np.array(
    [
      _dice(args.predicted / f'{name}.png', source[places[name]]['mask'])
      for name in chosen
    ]
  )
  expected = np.array([float(rows[name]['expected_dice']) for name in chosen])
  row = {
    'images': len(chosen),
    **review.quality(expected, dice),
    **flagged(
      [rows[name]['needs_review'] == '1' for name in chosen],
      [rows[name]['reasons'] for name in chosen],
      dice,
    ),
    **_noticed(args.workdir, source, paper.validation, args.data_dir),
  }
  review.write(args.output, [row])
  print(row)


def _noticed(
  workdir: pathlib.Path,
  source: interface.Source,
  image_ids: Sequence[str],
  data_dir: pathlib.Path,
) -> dict[str, float]:
  model = trained_model.load(workdir, 'last')
  calibration = review_file.of_model(workdir, model.identity())
  if calibration is None:
    raise errors.InputError(
      f'{workdir} has no {expected_dice.NAME}; give a --workdir that has one.'
    )
  data = cache.open_cache(source, model.config.data.image_size, data_dir)
  chosen = input_pipeline.select(data, image_ids[:_SPOILED])
  images = [data.images[i] for i in chosen]
  found = review.noticed(images, model, calibration)
  return {f'noticed_{name}': share for name, share in found.items()}


def _rows(
  folder: pathlib.Path, wanted: Sequence[str]
) -> dict[str, Mapping[str, str]]:
  """Rows of the wanted images by name.

  Raises:
    InputError: If a wanted image has no row with an expected Dice.
  """
  with (folder / table.NAME).open(encoding='utf-8', newline='') as file:
    found = {row['image_id']: row for row in csv.DictReader(file)}
  lacking = [
    name for name in wanted if not found.get(name, {}).get('expected_dice')
  ]
  if lacking:
    raise errors.InputError(
      f'{folder / table.NAME} lacks an expected Dice; predict these images'
      f' with a model that has a review.json:\n{errors.listing(lacking)}'
    )
  return {name: found[name] for name in wanted}


def _dice(path: pathlib.Path, true: np.ndarray) -> float:
  with Image.open(path) as picture:
    mask = np.asarray(picture) > 0
  counts = confusion.mask_counts(mask, true > 0)
  return float(confusion.ratios(counts)['dice'])


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--predicted', type=paths.user_path, required=True, help='masks')
  add('--output', type=paths.user_path, required=True, help='table to write')
  add('--data_dir', type=pathlib.Path, default=pathlib.Path('data'))
  add('--workdir', type=paths.user_path, default=shared_model.SHIPPED)
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
