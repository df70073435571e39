"""Learns from images with known masks which predictions need a review.

python -m skinseg_jax.calibrate_review --workdir DIR [--runs RUN ...]

Predicts the validation images of runs and compares what the predictions look
like with their true Dice. DIR/review.json keeps the result. With it, `predict`
adds the expected Dice of each mask to its table; `export` copies it.

DIR/review.json also keeps the features that the network of DIR computes of
these images, if there are 320 or more. `predict` reports pictures with unusual
features.

Each run predicts only images that it was not trained on. For a model that was
trained on all images, name the runs of a cross-validation with the same config;
runs with another network, image size, threshold or other views are refused.
Without --runs, the run of DIR itself is used.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax.runtime import errors, flags, paths

if TYPE_CHECKING:
  from skinseg_jax.inference import predictor, trained_model


def main(argv: list[str]) -> None:
  """Parses the command line, predicts, learns and writes.

  Raises:
    InputError: If a folder, a checkpoint or the data cannot be used.
  """
  args = _parse(argv)
  runs = args.runs or [args.workdir]
  _check_alike(args.workdir, runs)
  # Imported after the flags are checked, because the import takes seconds.
  from skinseg_jax.inference import trained_model
  from skinseg_jax.quality import expected_dice
  from skinseg_jax.quality import features as features_lib
  from skinseg_jax.runtime import devices

  devices.use('auto')
  model = trained_model.load(args.workdir, args.checkpoint)
  examined = []
  for run in runs:
    examined.append(examine(run, args.checkpoint))
    count = len(examined[-1].dice)
    print(f'{run}: {count} validation images', flush=True)
  signs = [row for one in examined for row in one.signs]
  dice = [value for one in examined for value in one.dice]
  alone = runs == [args.workdir]
  features = examined[0].features if alone else features_of(model, runs)
  found = expected_dice.fit(signs, dice, features, model.identity())
  expected_dice.write(args.workdir, found)
  if found.features is None:
    print(
      f'pictures with unusual features are not noticed: {len(dice)} images are'
      f' fewer than {features_lib.LEAST}'
    )
  low = sum(map(found.is_low, signs)) / len(signs)
  print(
    f'wrote {args.workdir / expected_dice.NAME}, learned from'
    f' {found.images} images; {low:.0%} of these need a review for a low'
    ' expected Dice'
  )


class Examined(NamedTuple):
  """Predictions of N images, in numbers.

  Attributes:
    signs: `signs.describe` of each.
    dice: Their true Dice.
    features: Those that the network computes of each, float32 [N, C].
  """

  signs: list[dict[str, float]]
  dice: list[float]
  features: np.ndarray


def examine(
  run: pathlib.Path, checkpoint: str, image_ids: Sequence[str] | None = None
) -> Examined:
  """Predicts validation images of a run at the model's size.

  Args:
    run: Run folder with its data.
    checkpoint: 'best', 'last' or a step.
    image_ids: Images of its data set; None for its validation images.

  Raises:
    InputError: If the run, the checkpoint or the data cannot be used.
  """
  from skinseg_jax.inference import trained_model
  from skinseg_jax.metrics import confusion
  from skinseg_jax.quality import signs as signs_lib

  model = trained_model.load(run, checkpoint)
  threshold = model.config.evaluation.threshold
  signs, counts, features = [], [], []
  for image, mask, answer in _predicted(model, run, image_ids):
    probability = answer.probability
    signs.append(signs_lib.describe(image, probability, threshold))
    counts.append(confusion.mask_counts(probability > threshold, mask))
    features.append(answer.features)
  dice = [float(confusion.ratios(one)['dice']) for one in counts]
  return Examined(signs, dice, np.array(features))


def features_of(
  model: 'trained_model.TrainedModel', runs: Sequence[pathlib.Path]
) -> np.ndarray:
  """Features that a network computes of the runs' validation images, [N, C].

  Args:
    model: The network; it may have been trained on these images.
    runs: Run folders with their data.

  Raises:
    InputError: If a run or its data cannot be used.
  """
  return np.array(
    [
      answer.features
      for run in runs
      for _, _, answer in _predicted(model, run, None)
    ]
  )


def _predicted(
  model: 'trained_model.TrainedModel',
  run: pathlib.Path,
  image_ids: Sequence[str] | None,
) -> Iterator[tuple[np.ndarray, np.ndarray, 'predictor.Answer']]:
  """Yields each image of a run, its true mask and its prediction."""
  from skinseg_jax.data import input_pipeline
  from skinseg_jax.inference import predictor
  from skinseg_jax.run import stored_data

  config = config_lib.load(run / 'config.json')
  own = stored_data.open_run_data(run, config.data)
  indices = input_pipeline.select(own.data, image_ids or own.split.validation)
  images = (own.data.images[i] for i in indices)
  for i, answer in zip(indices, predictor.each(model, images), strict=True):
    yield own.data.images[i], own.data.masks[i] > 0, answer


def _check_alike(workdir: pathlib.Path, runs: Sequence[pathlib.Path]) -> None:
  """Refuses runs that do not predict as the model of `workdir` does."""
  expected = _predicts_by(config_lib.load(workdir / 'config.json'))
  problems = [
    f'{run}: {name} is {value}, not {expected[name]}'
    for run in runs
    for name, value in _predicts_by(
      config_lib.load(run / 'config.json')
    ).items()
    if value != expected[name]
  ]
  if problems:
    raise errors.InputError(
      f'--runs need the network and the views of {workdir}; leave out runs with'
      ' another config:\n' + errors.listing(problems)
    )


def _predicts_by(config: config_lib.Config) -> dict[str, Any]:
  """Fields that masks depend on, apart from the weights, by name."""
  network = dataclasses.asdict(config.model)
  for name in ('encoder_weights', 'initializer'):  # What they began with.
    del network[name]
  return {
    **{f'model.{name}': value for name, value in network.items()},
    'data.image_size': tuple(config.data.image_size),
    'evaluation.test_time_augmentation': (
      config.evaluation.test_time_augmentation
    ),
    'evaluation.threshold': config.evaluation.threshold,
  }


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = flags.parser('calibrate_review', __doc__)
  path: dict[str, Any] = {'type': paths.user_path}
  add = parser.add_argument
  add(
    '--workdir',
    metavar='DIR',
    required=True,
    help='folder of a run or of a shared model',
    **path,
  )
  add(
    '--runs',
    nargs='+',
    metavar='RUN',
    help='run folders whose validation images to learn from; default: that of'
    ' --workdir',
    **path,
  )
  flags.add_checkpoint(parser)
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
