"""Scores a checkpoint on its own data or on any folder of images and masks.

python -m skinseg_jax.evaluate --workdir DIR [--checkpoint best|last|STEP]
python -m skinseg_jax.evaluate --workdir DIR --images DIR --masks DIR
python -m skinseg_jax.evaluate --images DIR --masks DIR --output DIR
python -m skinseg_jax.evaluate --method NAME --workdir DIR --output DIR

Without --workdir, the model that comes with skinseg_jax is scored. With
--method, a classical method is scored in place of the run's model, on the same
images at the same size. It writes no report.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skinseg_jax import config as config_lib
from skinseg_jax.classical import catalog, parameters
from skinseg_jax.data import remedies, splits
from skinseg_jax.runtime import errors, flags, paths
from skinseg_jax.weights import shared_model

if TYPE_CHECKING:
  from skinseg_jax.evaluation import evaluator


def evaluate_run(
  workdir: pathlib.Path,
  *,
  checkpoint: str,
  subset: str,
  options: 'evaluator.Options | None' = None,
  write_report: bool = False,
) -> dict[str, Any]:
  """Scores a checkpoint on the data its run was trained and validated on.

  Args:
    workdir: Folder of a run.
    checkpoint: 'best' (by validation Dice), 'last', or a step.
    subset: 'train' or 'validation'.
    options: Optional parts of the evaluation; None for the defaults.
    write_report: Whether to write report, figures and review page.

  Returns:
    The contents of `summary.json`.

  Raises:
    InputError: If the folder, the checkpoint, the data or the review is
      invalid.
  """
  from skinseg_jax.inference import trained_model

  model = trained_model.load(workdir, checkpoint)
  outcome = _evaluate_own(workdir, model, subset, options)
  if write_report:
    _report(workdir, outcome)
  return outcome.summary


def _evaluate_own(
  workdir: pathlib.Path,
  model: Any,  # A trained model, or a classical one in its place.
  subset: str,
  options: 'evaluator.Options | None',
  *,
  home: pathlib.Path | None = None,
  other_copies: bool = False,
) -> 'evaluator.Outcome':
  from skinseg_jax.evaluation import evaluator
  from skinseg_jax.run import stored_data

  run_data = stored_data.open_run_data(
    workdir, model.config.data, other_copies=other_copies
  )
  return evaluator.evaluate_subset(
    home or workdir,
    model,
    run_data,
    subset=subset,
    options=options or evaluator.DEFAULT,
  )


def _report(home: pathlib.Path, outcome: 'evaluator.Outcome') -> None:
  from skinseg_jax.reporting import report

  report.write_all(home, outcome.data, outcome.name)


def main(argv: list[str]) -> None:
  """Parses the command line, scores and prints.

  Raises:
    InputError: If flags contradict each other or name something invalid.
  """
  args = _parse(argv)
  if args.method is not None:
    _evaluate_method(args)
    return
  folder = shared_model.chosen(args.workdir)
  config_lib.load(folder / 'config.json')  # Is it a run?
  _check_home(args, folder)
  home = args.output or folder
  # Imported after the flags are checked, because the import takes seconds.
  from skinseg_jax.runtime import devices, resource_errors

  devices.use('auto')
  memory = resource_errors.scoring(home)
  with resource_errors.explained(home, memory=memory):
    _evaluate(args, folder, home)


def _evaluate(
  args: argparse.Namespace, folder: pathlib.Path, home: pathlib.Path
) -> None:
  from skinseg_jax.evaluation import shared_models
  from skinseg_jax.inference import trained_model

  options = _options(args, training_side=not args.skip_training_side)
  # Loaded first, to report a broken run before reading all image files.
  model = trained_model.load(folder, args.checkpoint)
  if home != folder:
    config = shared_models.prepare(folder, home, args.data_dir)
    model = dataclasses.replace(model, config=config)
  if args.images is None:
    outcome = _evaluate_own(
      home,
      model,
      args.split or 'validation',
      options,
      other_copies=home != folder,
    )
  else:
    outcome = _evaluate_external(args, home, model, options)
  if not args.skip_report:
    _report(home, outcome)
  _print(args, outcome.summary)


def _evaluate_method(args: argparse.Namespace) -> None:
  config = _config_of_method(args)
  # Imported after the flags are checked, because the import takes seconds.
  from skinseg_jax.inference import classical_model
  from skinseg_jax.runtime import devices, resource_errors

  devices.use('auto')
  home = args.output
  with resource_errors.explained(home):
    model = classical_model.load(args.method, config)
    classical_model.keep(model, home)
    # The masks of a method do not depend on a threshold.
    options = _options(args, training_side=False)
    if args.images is None:
      split = args.split or 'validation'
      outcome = _evaluate_own(args.workdir, model, split, options, home=home)
    else:
      outcome = _evaluate_external(args, home, model, options)
  _print(args, outcome.summary)


def _options(
  args: argparse.Namespace, *, training_side: bool
) -> 'evaluator.Options':
  from skinseg_jax.evaluation import evaluator

  return evaluator.Options(
    native_size=not args.skip_native_size,
    training_side=training_side,
    review=args.review,
    exclude_rejected=args.exclude_rejected,
  )


def _print(args: argparse.Namespace, summary: dict[str, Any]) -> None:
  from skinseg_jax.evaluation import paper, summaries

  print(summaries.describe(summary))
  left_out = summary.get('review', {}).get('excluded')
  as_paper = summary['data']['split'] == 'paper' and args.split != 'train'
  if as_paper and not left_out:
    print(paper.comparison(summary))


def _evaluate_external(args, home, model, options) -> 'evaluator.Outcome':
  from skinseg_jax.data.sources import folder
  from skinseg_jax.evaluation import evaluator

  threshold = args.mask_threshold
  if threshold is None:
    threshold = model.config.data.mask_threshold
  suffixes = args.mask_suffixes
  if suffixes is None:
    suffixes = model.config.data.mask_suffixes
  name = args.name or args.images.resolve().name
  if name in splits.SUBSETS:
    name = f'external_{name}'
  source = folder.FolderSource(
    images_dir=args.images,
    masks_dir=args.masks,
    metadata_csv=args.metadata,
    mask_threshold=threshold,
    mask_invert=bool(args.mask_invert),
    mask_suffixes=suffixes.split(','),
    remedies=remedies.FLAGS,
  )
  return evaluator.evaluate_source(
    home, model, source, name=name, options=options
  )


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = flags.parser('evaluate', __doc__)
  path: dict[str, Any] = {'type': paths.user_path, 'metavar': 'PATH'}
  add = parser.add_argument
  flags.add_workdir(parser)
  add(
    '--method',
    metavar='NAME',
    help='classical method to score in place of a model: '
    + ', '.join(parameters.METHODS),
  )
  where = 'new folder for the scores; for a method or a model without a run'
  add('--output', help=where, **path)
  where = 'where data sets are prepared; for a model without a run'
  add('--data_dir', help=where, **path)
  flags.add_checkpoint(parser)
  add(
    '--split',
    choices=splits.SUBSETS,
    help="part of the run's own data to score; default: validation",
  )
  _add_external_flags(add, path)
  add('--review', help='csv saved from review.html', **path)
  add(
    '--exclude_rejected',
    action='store_true',
    help='leave out images whose true mask was rejected in the review',
  )
  add(
    '--skip_native_size',
    action='store_true',
    help="do not score at each image's original size",
  )
  add(
    '--skip_training_side',
    action='store_true',
    help='do not read the training images; use only stored results about them',
  )
  add(
    '--skip_report',
    action='store_true',
    help='write only the scores, not report.html and review.html',
  )
  args = parser.parse_args(argv[1:])
  _check(args)
  return args


def _check_home(args: argparse.Namespace, folder: pathlib.Path) -> None:
  """Checks the flags that say where the scores of a model go.

  Raises:
    InputError: If they do not fit the folder of the model.
  """
  has_split = (folder / shared_model.SPLIT).is_file()
  if not shared_model.is_one(folder):
    given = [
      f'--{name}' for name in ('output', 'data_dir') if getattr(args, name)
    ]
    if given:
      raise errors.InputError(
        f'{folder} is the folder of a run, which keeps its scores and knows'
        f' its data; leave {" and ".join(given)} out.'
      )
  elif args.output is None:
    raise errors.InputError(
      f'{folder} holds a model without a run; give --output DIR, a new folder'
      ' for its scores.'
    )
  elif args.images is None and args.data_dir is None:
    raise errors.InputError(
      'what should the model be scored on? Give --images and --masks'
      + (', or --data_dir, where HAM10000 is prepared.' if has_split else '.')
    )
  elif args.images is None and not has_split:
    raise errors.InputError(
      f'{folder} does not say which images it was validated on; give --images'
      ' and --masks in place of --data_dir.'
    )


def _config_of_method(args: argparse.Namespace) -> config_lib.Config:
  """Checks the flags around --method; a config with the size of the images.

  Raises:
    InputError: If the flags do not fit.
  """
  catalog.find(args.method)
  problems = []
  if args.output is None:
    problems.append('--method needs --output DIR, a new folder for its scores')
  if args.workdir is None and args.images is None:
    problems.append(
      'what should the method be scored on? Give --workdir, a run whose images'
      ' to score, or --images and --masks'
    )
  if args.data_dir is not None or args.checkpoint != 'last':
    problems.append('leave --data_dir and --checkpoint out with --method')
  if problems:
    raise errors.InputError('; '.join(problems) + '.')
  if args.workdir is not None:
    return config_lib.load(args.workdir / 'config.json')
  config = config_lib.Config()
  config.data.data_dir = str(args.output / 'data')
  return config


def _add_external_flags(add: Callable, path: dict[str, Any]) -> None:
  """Adds the flags that name other images than the run's own."""
  add('--images', help='score this folder of images instead', **path)
  add('--masks', help='folder of masks; required with --images', **path)
  metadata = 'csv with image_id, lesion_id, dx, ...; only with --images'
  add('--metadata', help=metadata, **path)
  add(
    '--mask_threshold',
    type=int,
    help='grey value, 0 to 254: mask pixels above it are lesion; only with'
    " --images; default: the run's value",
  )
  add(
    '--mask_invert',
    action='store_true',
    default=None,
    help='swap lesion and skin, for masks with a white background; only with'
    ' --images',
  )
  add(
    '--mask_suffixes',
    metavar='ENDINGS',
    help='endings of mask names, such as _mask,_gt; only with --images;'
    " default: the run's value",
  )
  add(
    '--name', help='name of the evaluation with --images; default: folder name'
  )


def _check(args: argparse.Namespace) -> None:
  """Rejects combinations of flags that make no sense."""
  problems = []
  if (args.images is None) != (args.masks is None):
    problems.append('--images and --masks must be given together')
  if args.images is None:
    problems += [
      f'--{name} requires --images'
      for name in (
        'metadata',
        'mask_threshold',
        'mask_invert',
        'mask_suffixes',
        'name',
      )
      if getattr(args, name) is not None
    ]
  elif args.split is not None:
    problems.append('--split is for the images of the run, not for --images')
  if args.name is not None and (
    args.name in ('', '.', '..') or '/' in args.name or '\\' in args.name
  ):
    problems.append(
      f'--name {args.name!r} must be the name of a new folder, without slashes'
    )
  if args.exclude_rejected and args.review is None:
    problems.append('--exclude_rejected requires --review')
  if args.mask_threshold is not None and not 0 <= args.mask_threshold < 255:
    problems.append('--mask_threshold must be 0 (strict) to 254')
  if problems:
    raise errors.InputError('; '.join(problems) + '.')


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
