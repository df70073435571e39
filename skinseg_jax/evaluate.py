"""Scores a checkpoint on its own data, or on any folder of images and masks.

python -m skinseg_jax.evaluate --workdir DIR [--checkpoint best|last|STEP]
python -m skinseg_jax.evaluate --workdir DIR --images DIR --masks DIR
"""

import argparse
import pathlib
import sys
from typing import Any

from skinseg_jax.data import splits
from skinseg_jax.data.sources import folder
from skinseg_jax.evaluation import evaluator, paper, summaries
from skinseg_jax.inference import trained_model
from skinseg_jax.reporting import report
from skinseg_jax.run import stored_data
from skinseg_jax.runtime import devices, errors, resource_errors


def evaluate_run(
  workdir: pathlib.Path,
  *,
  checkpoint: str,
  subset: str,
  options: evaluator.Options = evaluator.DEFAULT,
  write_report: bool = False,
) -> dict[str, Any]:
  """Scores a checkpoint on its own data, from the run folder alone.

  Args:
    workdir: Folder of a run.
    checkpoint: 'best' (by validation Dice), 'last', or a step.
    subset: 'train' or 'validation'.
    options: What else to do.
    write_report: Whether to write report, figures and review page.

  Returns:
    What it also writes to `summary.json`.

  Raises:
    InputError: If the folder, the checkpoint, the data or the review does not
      fit.
  """
  model = trained_model.load(workdir, checkpoint)
  run_data = stored_data.open_run_data(workdir, model.config.data)
  outcome = evaluator.evaluate_subset(
    workdir, model, run_data, subset=subset, options=options
  )
  if write_report:
    report.write_all(workdir, outcome.data, outcome.name)
  return outcome.summary


def main(argv: list[str]) -> None:
  """Parses the command line, scores and prints.

  Raises:
    InputError: If flags do not go together, or what they name does not fit.
  """
  args = _parse(argv)
  devices.use('auto')
  with resource_errors.explained(args.workdir):
    _evaluate(args)


def _evaluate(args: argparse.Namespace) -> None:
  options = evaluator.Options(
    native_size=not args.skip_native_size,
    training_side=not args.skip_training_side,
    review=args.review,
    exclude_rejected=args.exclude_rejected,
  )
  if args.images is None:
    summary = evaluate_run(
      args.workdir,
      checkpoint=args.checkpoint,
      subset=args.split,
      options=options,
      write_report=not args.skip_report,
    )
  else:
    summary = _evaluate_external(args, options)
  print(summaries.describe(summary))
  left_out = summary.get('review', {}).get('excluded')
  as_paper = summary['data']['split'] == 'paper' and args.split == 'validation'
  if as_paper and not left_out:
    print(paper.comparison(summary))


def _evaluate_external(args, options) -> dict[str, Any]:
  # First: what is wrong with the run is said before all files are read.
  model = trained_model.load(args.workdir, args.checkpoint)
  threshold = args.mask_threshold
  if threshold is None:
    threshold = model.config.data.mask_threshold
  name = args.name or args.images.resolve().name
  if name in splits.SUBSETS:
    name = f'external_{name}'
  source = folder.FolderSource(
    images_dir=args.images,
    masks_dir=args.masks,
    metadata_csv=args.metadata,
    mask_threshold=threshold,
  )
  outcome = evaluator.evaluate_source(
    args.workdir, model, source, name=name, options=options
  )
  if not args.skip_report:
    report.write_all(args.workdir, outcome.data, outcome.name)
  return outcome.summary


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m skinseg_jax.evaluate',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  path: dict[str, Any] = {'type': pathlib.Path, 'metavar': 'PATH'}
  add = parser.add_argument
  add('--workdir', required=True, help='folder of a run', **path)
  add('--checkpoint', default='last', help='best, last or a step')
  add(
    '--split',
    default='validation',
    choices=splits.SUBSETS,
    help='side of its own data to score',
  )
  add('--images', help='folder of other images to score instead', **path)
  add('--masks', help='folder of their masks', **path)
  add('--metadata', help='csv with image_id, lesion_id, dx, ...', **path)
  add(
    '--mask_threshold',
    type=int,
    help="grey value above which a mask pixel is lesion; default: the run's",
  )
  add('--name', help="of the evaluation; default: the image folder's")
  add('--review', help='csv that review.html saved', **path)
  add(
    '--exclude_rejected',
    action='store_true',
    help='leave out images whose true mask the review rejects',
  )
  add(
    '--skip_native_size',
    action='store_true',
    help="do not score at each image's own size",
  )
  add(
    '--skip_training_side',
    action='store_true',
    help='take no pass over the training images; use only what is stored',
  )
  add(
    '--skip_report',
    action='store_true',
    help='write the scores alone, no report.html and review.html',
  )
  args = parser.parse_args(argv[1:])
  _check(args)
  return args


def _check(args: argparse.Namespace) -> None:
  """Refuses flags that do not go together."""
  problems = []
  if (args.images is None) != (args.masks is None):
    problems.append('--images and --masks go together')
  if args.images is None:
    problems += [
      f'--{name} goes with --images'
      for name in ('metadata', 'mask_threshold', 'name')
      if getattr(args, name) is not None
    ]
  if args.exclude_rejected and args.review is None:
    problems.append('--exclude_rejected goes with --review')
  if args.mask_threshold is not None and not 0 <= args.mask_threshold < 255:
    problems.append('--mask_threshold must be 0 (strict) to 254')
  if problems:
    raise errors.InputError('; '.join(problems) + '.')


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
