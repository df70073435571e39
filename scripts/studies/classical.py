"""Chooses the parameters of the classical methods.

python scripts/studies/classical.py choose --data_dir DIR --output FILE.csv
python scripts/studies/classical.py bees --data_dir DIR

`choose` tries values on training images of the paper's split of HAM10000, one
field after the other, and keeps the value with the best pooled Dice. It starts
with the values in `skinseg_jax/classical/parameters.py`; copy the last values
into that file. `bees` compares the thresholds of the bee colony with those of
an exhaustive search. Validation images are not read; `networks.py` scores them.
"""

import argparse
import csv
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import tqdm
from skimage import filters

from skinseg_jax import config as config_lib
from skinseg_jax.classical import (
  bee_colony,
  catalog,
  parameters,
)
from skinseg_jax.data import cache, input_pipeline, splits
from skinseg_jax.data.sources import catalog as sources
from skinseg_jax.metrics import confusion
from skinseg_jax.runtime import errors

_COMMON = (
  ('corrections.illumination', (0, 1, 2)),
  ('clean_up.growth', (0, 0.008, 0.016, 0.024, 0.032)),
  ('clean_up.opening', (0, 0.008, 0.016, 0.024)),
)
_OTSU = (
  _COMMON[0],
  ('place', (1, 0.8, 0.7, 0.6, 0.5)),
  *_COMMON[1:],
  ('place', (1, 0.8, 0.7, 0.6, 0.5)),
  ('clean_up.centre', (1, 2, 3)),
  ('corrections.hair_depth', (8, 12, 20)),
)
# The fields of each method, in the order in which they are chosen.
GRIDS: dict[str, Sequence[tuple[str, Sequence[Any]]]] = {
  'otsu_grey': _OTSU,
  'otsu_blue': _OTSU,
  'otsu_saturation': _OTSU,
  'edges': (
    ('channel', ('grey', 'blue', 'saturation')),
    _COMMON[0],
    ('high', (0.8, 0.85, 0.9, 0.95)),
    ('low', (0.5, 0.6, 0.7, 0.8)),
    ('blur', (0.008, 0.016, 0.024, 0.032)),
    ('clean_up.closing', (0.03, 0.05, 0.08, 0.12)),
    *_COMMON[1:],
  ),
  'grabcut_kmeans': (
    ('seed.channel', ('blue', 'saturation')),
    # Degree 0 would leave the illumination uncorrected.
    ('seed.corrections.illumination', (1, 2)),
    ('seed.clean_up.growth', (0, 0.016, 0.032)),
    ('rounds', (1, 3, 5)),
    # Without a band, K-means would have nothing to decide.
    ('band', (0.015, 0.03, 0.05)),
    ('clean_up.growth', (0, 0.008, 0.016, 0.024)),
    ('clean_up.opening', (0.016, 0.03, 0.05)),
  ),
  'bee_colony': (
    ('channel', ('grey', 'blue', 'saturation')),
    ('lesion_classes', (1, 2)),
    *_COMMON,
    # Without a radius, there would be no morphological filter.
    ('smoothing', (0.008, 0.016, 0.024)),
  ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
  """N images and their true masks, uint8 [N, H, W, 3] and [N, H, W]."""

  images: np.ndarray
  masks: np.ndarray


def counts(
  settings: parameters.Settings, data: Images
) -> dict[str, np.ndarray]:
  """Pixel counts of each image, [N]."""
  segment = catalog.segmenter(settings)
  rows = [
    confusion.mask_counts(segment(np.ascontiguousarray(image)), mask > 0)
    for image, mask in zip(data.images, data.masks, strict=True)
  ]
  return {n: np.array([row[n] for row in rows]) for n in confusion.COUNTS}


def replaced(settings: Any, field: str, value: Any) -> Any:
  """A copy with another value of a field such as 'clean_up.growth'."""
  first, _, rest = field.partition('.')
  if rest:
    value = replaced(getattr(settings, first), rest, value)
  return dataclasses.replace(settings, **{first: value})


def choose(name: str, data: Images) -> list[dict[str, Any]]:
  """Chooses the fields of a method one after the other; a row per trial."""
  best = parameters.METHODS[name]
  dice = functools.lru_cache(maxsize=None)(
    lambda settings: _scores(counts(settings, data))
  )
  rows = []
  for field, values in GRIDS[name]:
    trials = {value: replaced(best, field, value) for value in values}
    for value, settings in trials.items():
      row = {'method': name, 'field': field, 'value': value, **dice(settings)}
      rows.append({**row, 'images': len(data.images)})
      print(row, flush=True)
    best = max(trials.values(), key=lambda each: dice(each)['pooled_dice'])
  print(best)
  return rows


def _scores(columns: dict[str, np.ndarray]) -> dict[str, float]:
  each = confusion.ratios(columns)
  jaccard = confusion.thresholded_jaccard(each['iou'])
  pooled = confusion.ratios(confusion.pool(columns))
  return {
    'pooled_dice': round(float(pooled['dice']), 5),
    'mean_dice': round(float(each['dice'].mean()), 5),
    'threshold_jaccard': round(float(jaccard.mean()), 5),
  }


def compare_bees(data: Images) -> list[tuple[int, int]]:
  """Counts the images on which the bees find the best value.

  Returns:
    For one and for two thresholds: their number, and the number of images.
  """
  settings = parameters.METHODS['bee_colony']
  assert isinstance(settings, parameters.BeeColony)
  equal, total = [0, 0], len(data.images)
  for image in data.images:
    histogram = bee_colony.filtered(image, settings).histogram
    between = bee_colony.variance_between(histogram)
    for number in (1, 2):
      bees = bee_colony.thresholds(
        histogram, dataclasses.replace(settings, thresholds=number)
      )
      # scikit-image tries all combinations.
      best = filters.threshold_multiotsu(
        classes=number + 1, hist=(histogram, np.arange(256))
      )
      equal[number - 1] += between(bees) >= between(best.tolist()) - 1e-6
  return [(found, total) for found in equal]


def select(data: cache.CachedData, image_ids: Sequence[str]) -> Images:
  """Some images and their masks."""
  rows = input_pipeline.select(data, image_ids)
  return Images(data.images[rows], data.masks[rows])


def open_images(args: argparse.Namespace) -> Images:
  """Opens evenly spaced training images of the paper's split."""
  source = sources.open_source(
    config_lib.DataConfig(data_dir=str(args.data_dir)), download=False
  )
  paper = splits.make_split(
    config_lib.DataConfig(split='paper'), source.metadata
  )
  number = min(args.images, len(paper.train))
  chosen = [paper.train[i * len(paper.train) // number] for i in range(number)]
  data = cache.open_cache(source, (args.image_size,) * 2, args.data_dir)
  return select(data, chosen)


def main(argv: list[str]) -> None:
  """Does what the first argument says, on one thread."""
  args = _parse(argv)
  cv2.setNumThreads(1)
  data = open_images(args)
  if args.what == 'bees':
    for number, (found, total) in enumerate(compare_bees(data), start=1):
      print(f'{number} thresholds: the optimum on {found} of {total} images')
    return
  args.output.parent.mkdir(parents=True, exist_ok=True)
  rows: list[dict[str, Any]] = []
  for name in tqdm.tqdm(args.methods, disable=None):
    rows += choose(name, data)
  with args.output.open('w', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  names = list(parameters.METHODS)
  add('what', choices=('choose', 'bees'))
  add('--data_dir', type=pathlib.Path, default=pathlib.Path('data'))
  add('--output', type=pathlib.Path, default=pathlib.Path('classical.csv'))
  add('--image_size', type=int, default=128, help='in pixels')
  add('--images', type=int, default=300, help='most training images')
  add('--methods', nargs='+', choices=names, default=names)
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
