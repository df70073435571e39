"""Learns from images with known masks which predictions need a review.

python -m skinseg_jax.calibrate_review --workdir DIR [--runs RUN ...]

Predicts the validation images of runs and compares what the predictions look
like with their true Dice. DIR/review.json keeps the result. With it, `predict`
adds the expected Dice of each mask to its table; `export` copies it.

Each run predicts only images that it was not trained on. For a model that was
trained on all images, name the runs of a cross-validation with the same config;
runs with another network, image size, threshold or other views are refused.
Without --runs, the run of DIR itself is used.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from skinseg_jax import config as config_lib
from skinseg_jax.runtime import errors, flags, paths

_BATCH_SIZE = 32


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
  from skinseg_jax.runtime import devices

  devices.use('auto')
  model = trained_model.load(args.workdir, args.checkpoint).identity()
  signs, dice = [], []
  for run in runs:
    one_signs, one_dice = examine(run, args.checkpoint)
    signs += one_signs
    dice += one_dice
    print(f'{run}: {len(one_dice)} validation images', flush=True)
  found = expected_dice.fit(signs, dice, model)
  expected_dice.write(args.workdir, found)
  low = sum(map(found.is_low, signs)) / len(signs)
  print(
    f'wrote {args.workdir / expected_dice.NAME}, learned from'
    f' {found.images} images; {low:.0%} of these need a review for a low'
    ' expected Dice'
  )


def examine(
  run: pathlib.Path, checkpoint: str, image_ids: Sequence[str] | None = None
) -> tuple[list[dict[str, float]], list[float]]:
  """Predicts validation images of a run at the model's size.

  Args:
    run: Run folder with its data.
    checkpoint: 'best', 'last' or a step.
    image_ids: Images of its data set; None for its validation images.

  Returns:
    `signs.describe` of each image, and its true Dice.

  Raises:
    InputError: If the run, the checkpoint or the data cannot be used.
  """
  from skinseg_jax.data import input_pipeline
  from skinseg_jax.inference import predictor, trained_model
  from skinseg_jax.metrics import confusion
  from skinseg_jax.quality import signs as signs_lib
  from skinseg_jax.run import stored_data

  model = trained_model.load(run, checkpoint)
  own = stored_data.open_run_data(run, model.config.data)
  threshold = model.config.evaluation.threshold
  indices = input_pipeline.select(own.data, image_ids or own.split.validation)
  size = predictor.whole_batch(model, _BATCH_SIZE)
  signs, counts = [], []
  for start in range(0, len(indices), size):
    batch = indices[start : start + size]
    images = [own.data.images[i] for i in batch]
    answers = predictor.probabilities(model, images, size)
    for i, image, answer in zip(batch, images, answers, strict=False):
      signs.append(signs_lib.describe(image, answer, threshold))
      counts.append(
        confusion.mask_counts(answer > threshold, own.data.masks[i] > 0)
      )
  return signs, [float(confusion.ratios(one)['dice']) for one in counts]


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
