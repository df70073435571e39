"""Tests the expected Dice and the reasons for a review on unseen images.

python scripts/studies/review.py --runs RUN RUN [RUN ...] --output DIR
  [--paper RUN]

For each run, the expected Dice is learned from the validation images of the
other runs and tested on those of this run. No run may have trained on its own
validation images; with the runs of `sources.py`, each tests on a source that
neither its network nor the calibration has seen. Writes `table.csv`,
`risk_coverage.csv` and `pictures.csv`: the share of spoiled pictures that is
noticed by the picture alone.

For the run of --paper, it is learned from the run's validation images and
tested on those of the paper, none of which the run may hold.
"""

import argparse
import csv
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage, stats
from skimage import data

from skinseg_jax import calibrate_review
from skinseg_jax import config as config_lib
from skinseg_jax.data import splits
from skinseg_jax.inference import model_interface, predictor, trained_model
from skinseg_jax.quality import expected_dice, review, signs
from skinseg_jax.run import stored_data
from skinseg_jax.runtime import errors, paths

GOOD = 0.85
_FLAGGED = 0.2
_COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
# Pictures of a run that are spoiled.
_SPOILED = 200


def blurred(image: np.ndarray) -> np.ndarray:
  """Blurs by 2 % of the height; uint8 [H, W, 3]."""
  sigma = 0.02 * len(image)
  return ndimage.gaussian_filter(
    image.astype(np.float32), (sigma, sigma, 0)
  ).astype(np.uint8)


def dark(image: np.ndarray) -> np.ndarray:
  """Takes three quarters of the light away."""
  return (image * 0.25).astype(np.uint8)


def page(image: np.ndarray) -> np.ndarray:
  """A photograph of a page in the size of the image: dark lines on paper."""
  height, width = image.shape[:2]
  sheet = Image.new('RGB', (600, 450), (236, 232, 222))
  draw = ImageDraw.Draw(sheet)
  for row in range(30, 430, 14):
    draw.text((25, row), 'Lorem ipsum dolor sit amet ' * 4, fill=(30, 30, 35))
  light = np.linspace(1, 0.8, width)[None, :, None]
  small = sheet.resize((width, height), Image.Resampling.BILINEAR)
  return (np.asarray(small) * light).astype(np.uint8)


def tilted(image: np.ndarray) -> np.ndarray:
  """The page, turned by 30 degrees without corners."""
  height, width = image.shape[:2]
  large = page(np.zeros((2 * height, 2 * width, 3), np.uint8))
  turned = Image.fromarray(large).rotate(30, Image.Resampling.BILINEAR)
  top, left = height // 2, width // 2
  return np.asarray(turned)[top : top + height, left : left + width]


def tiled(image: np.ndarray) -> np.ndarray:
  """Sixteen small copies side by side: no picture of one lesion."""
  height, width = image.shape[:2]
  small = Image.fromarray(image).resize((width // 4, height // 4))
  copies = np.tile(np.asarray(small), (5, 5, 1))
  return copies[:height, :width]


def photograph(image: np.ndarray) -> np.ndarray:
  """A part of a photograph of other things, in the colours of the image."""
  height, width = image.shape[:2]
  rng = np.random.default_rng(int(image.sum()))
  names = ('astronaut', 'chelsea', 'coffee', 'rocket')
  whole = getattr(data, names[rng.integers(len(names))])()
  side = int(rng.integers(150, 300))
  top, left = (int(rng.integers(0, n - side + 1)) for n in whole.shape[:2])
  part = Image.fromarray(whole[top : top + side, left : left + side])
  values = np.asarray(part.resize((width, height)), np.float64)
  axes = (0, 1)
  values = (values - values.mean(axes)) / (values.std(axes) + 1)
  values = values * image.std(axes) + image.mean(axes)
  return values.clip(0, 255).astype(np.uint8)


def noise(image: np.ndarray) -> np.ndarray:
  """Random pixels in the size of the image."""
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, image.shape, dtype=np.uint8)


SPOILERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  'unchanged': lambda image: image,
  'blurred': blurred,
  'dark': dark,
  'page': page,
  'tilted_page': tilted,
  'tiled': tiled,
  'photograph': photograph,
  'noise': noise,
  'black': np.zeros_like,
}


def quality(expected: np.ndarray, dice: np.ndarray) -> dict[str, float]:
  """How well an expected Dice orders and predicts the true one.

  Args:
    expected: Float [N].
    dice: True Dice, float [N].

  Returns:
    Spearman's rank correlation; the shares of the images below .85 and of the
    worst twentieth that are in the fifth with the lowest expected Dice; means
    of both, and their mean absolute difference.
  """
  order = np.argsort(expected, kind='stable')
  flagged = np.isin(
    np.arange(len(dice)), order[: int(np.ceil(_FLAGGED * len(dice)))]
  )
  bad = dice < GOOD
  worst = np.argsort(dice, kind='stable')[: max(1, len(dice) // 20)]
  return {
    'rank_correlation': float(stats.spearmanr(expected, dice).statistic),
    'below_0.85': float(bad.mean()),
    'caught_below_0.85': float(flagged[bad].mean()) if bad.any() else np.nan,
    'caught_worst_twentieth': float(flagged[worst].mean()),
    'mean_expected': float(expected.mean()),
    'mean_dice': float(dice.mean()),
    'mean_absolute_difference': float(np.abs(expected - dice).mean()),
  }


def risk_coverage(expected: np.ndarray, dice: np.ndarray) -> list[float]:
  """Mean 1 - Dice of the images with the highest expected Dice, by share."""
  order = np.argsort(-expected, kind='stable')
  return [
    float(1 - dice[order[: max(1, round(share * len(dice)))]].mean())
    for share in _COVERAGES
  ]


class Case(NamedTuple):
  """One test of a calibration; a row of the tables.

  Attributes:
    name: Name of the row.
    model: The network that is tested.
    learned: What the calibration is learned from.
    features: Features that the network computes of these images, [N, C].
    tested: What the calibration is tested on.
    images: Pictures to spoil, uint8 [H, W, 3].
  """

  name: str
  model: model_interface.Model
  learned: Sequence[calibrate_review.Examined]
  features: np.ndarray
  tested: calibrate_review.Examined
  images: Sequence[np.ndarray]


def noticed(
  images: Sequence[np.ndarray],
  model: model_interface.Model,
  calibration: expected_dice.Calibration,
) -> dict[str, float]:
  """Share of spoiled pictures that the picture alone gives away."""
  shares = {}
  for name, spoil in SPOILERS.items():
    spoiled = [spoil(image) for image in images]
    found = []
    answers = predictor.each(model, spoiled)
    for image, answer in zip(spoiled, answers, strict=True):
      empty = np.zeros(image.shape[:2], np.float32)
      described = signs.describe(image, empty, 0.5)
      why = review.of_picture(described, answer.features, calibration)
      found.append(bool(why))
    shares[name] = float(np.mean(found))
  return shares


def main(argv: list[str]) -> None:
  """Learns and tests, run by run, and writes the tables."""
  args = _parse(argv)
  if len(args.runs) < 2:
    raise errors.InputError('give two or more --runs.')
  names = [f'{run.parent.name}/{run.name}' for run in args.runs]
  examined = [calibrate_review.examine(run, 'last') for run in args.runs]
  cases = []
  for i, (run, one) in enumerate(zip(args.runs, examined, strict=True)):
    model = trained_model.load(run, 'last')
    others = [*args.runs[:i], *args.runs[i + 1 :]]
    features = calibrate_review.features_of(model, others)
    learned = [*examined[:i], *examined[i + 1 :]]
    case = Case(names[i], model, learned, features, one, _images(run))
    cases.append(case)
  if args.paper:
    own = calibrate_review.examine(args.paper, 'last')
    ids = _paper_ids(args.paper)
    test = calibrate_review.examine(args.paper, 'last', ids)
    name = f'{args.paper.parent.name}/{args.paper.name} on the paper'
    model = trained_model.load(args.paper, 'last')
    images = _images(args.paper)
    cases.append(Case(name, model, [own], own.features, test, images))
  write_tables(cases, args.output)


def write_tables(cases: Iterable[Case], output: pathlib.Path) -> None:
  """Learns, tests and writes the tables.

  Args:
    cases: One for each row.
    output: Folder of the tables.
  """
  rows, curves, pictures = [], [], []
  for case in cases:
    known = [dice for one in case.learned for dice in one.dice]
    learned = [row for one in case.learned for row in one.signs]
    calibration = expected_dice.fit(learned, known, case.features, {})
    dice = np.array(case.tested.dice)
    described = case.tested.signs
    expected = np.array([calibration.expected(row) for row in described])
    about: dict[str, Any] = {'run': case.name, 'images': len(dice)}
    rows.append(about | quality(expected, dice))
    plain = np.array([row['soft_dice'] for row in described])
    for order, by in (
      ('expected Dice', expected),
      ('soft Dice alone', plain),
      ('true Dice', dice),
    ):
      for share, risk in zip(_COVERAGES, risk_coverage(by, dice), strict=True):
        curves.append(about | {'order': order, 'coverage': share, 'risk': risk})
    pictures.append(about | noticed(case.images, case.model, calibration))
  output.mkdir(parents=True, exist_ok=True)
  write(output / 'table.csv', rows)
  write(output / 'risk_coverage.csv', curves)
  write(output / 'pictures.csv', pictures)
  for row in (*rows, *pictures):
    print(row)


def _paper_ids(run: pathlib.Path) -> list[str]:
  """The paper's validation images.

  Raises:
    InputError: If the run has seen one of them.
  """
  config = config_lib.load(run / 'config.json')
  own = stored_data.open_run_data(run, config.data)
  paper = splits.make_split(
    config_lib.DataConfig(split='paper'), own.source.metadata
  )
  ids = sorted(paper.validation)
  if set(ids) & {*own.split.train, *own.split.validation}:
    raise errors.InputError(
      f'{run} holds validation images of the paper; give as --paper a run on'
      " the paper's training images, such as one of sources.py."
    )
  return ids


def _images(run: pathlib.Path) -> list[np.ndarray]:
  config = config_lib.load(run / 'config.json')
  own = stored_data.open_run_data(run, config.data)
  places = {name: i for i, name in enumerate(own.data.image_ids)}
  chosen = own.split.validation[:_SPOILED]
  return [own.data.images[places[name]] for name in chosen]


def write(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Writes rows with the same keys as csv."""
  with path.open('w', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    for row in rows:
      writer.writerow(
        {
          name: f'{value:.4f}' if isinstance(value, float) else value
          for name, value in row.items()
        }
      )


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add(
    '--runs',
    type=paths.user_path,
    nargs='+',
    required=True,
    metavar='RUN',
    help='run folders, each with its data',
  )
  add('--paper', type=paths.user_path, metavar='RUN', help='run folder')
  add('--output', type=paths.user_path, required=True, help='folder of tables')
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
