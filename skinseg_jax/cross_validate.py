"""Cross-validation: every image is scored by a model that never saw its lesion.

python -m skinseg_jax.cross_validate --config FILE [--folds 10] [--workdir DIR]

Each fold is an ordinary run in DIR/fold_0, DIR/fold_1, ... No lesion is in two
folds, and each diagnosis has its share in each. The folds run one after the
other, or as separate jobs with --only. When all are finished, the scores of all
images are joined in DIR/evaluation/validation and DIR/report.html. The same
command resumes after an interruption. Fields of the config are replaced as in
main: --config.FIELD=VALUE.
"""

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING

from absl import logging

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules, main
from skinseg_jax.runtime import errors, flags, paths

if TYPE_CHECKING:
  from skinseg_jax.folds import plan as plan_lib

# As in Berseth, 2017 (arXiv:1703.00523).
_FOLDS = 10


def run(argv: list[str]) -> None:
  """Parses the command line; trains the folds and joins their scores.

  Raises:
    InputError: If a flag, the config, the data or the folder is invalid.
    StoppedError: On SIGTERM or SIGINT; the same command resumes.
  """
  args, rest = _parse(argv)
  if args.folds < 2:
    raise errors.InputError(f'--folds is {args.folds}; give 2 or more.')
  if args.only is not None and not 0 <= args.only < args.folds:
    raise errors.InputError(
      f'--only is {args.only}; the folds are 0 to {args.folds - 1}.'
    )
  config, default = main.parse([argv[0], *rest])
  root = args.workdir or default.with_name(f'{default.name}_folds')
  main.check_packages(config)
  logging.set_verbosity(logging.FATAL)
  # Imported after the flags are checked, because the import takes seconds.
  from skinseg_jax.folds import plan as plan_lib
  from skinseg_jax.runtime import compilation, devices

  config = plan_lib.first_config(config, args.folds)
  config_rules.validate(config)
  if config.train.deterministic:
    compilation.make_deterministic()
  devices.use(config.device)
  cross_validate(config, root, only=args.only, ensemble=args.ensemble)


def cross_validate(
  config: config_lib.Config,
  root: pathlib.Path,
  *,
  only: int | None = None,
  ensemble: bool = False,
) -> None:
  """Trains the folds that are not finished; joins them when all are.

  Args:
    config: From `plan.first_config`.
    root: Folder of the cross-validation.
    only: The fold to train; None for all.
    ensemble: Whether to make the folder an ensemble for `predict`.

  Raises:
    InputError: If the data or the folder is invalid.
  """
  from skinseg_jax.folds import plan as plan_lib

  plan = plan_lib.prepare(config, root)
  numbers = range(len(plan.folds))
  for fold in numbers if only is None else [only]:
    print(f'fold {fold} of {len(numbers)}', flush=True)
    if not plan.finished(fold):
      main.train_and_evaluate(plan.fold_config(fold), plan.workdir(fold))
  with plan_lib.locked(plan):
    missing = [str(fold) for fold in numbers if not plan.finished(fold)]
    if missing:
      print(f'not finished yet: fold {", ".join(missing)}')
      return
    _join(plan, ensemble)


def _join(plan: 'plan_lib.Plan', ensemble: bool) -> None:
  from skinseg_jax.data import cache
  from skinseg_jax.folds import plan as plan_lib
  from skinseg_jax.folds import pooled
  from skinseg_jax.reporting import report
  from skinseg_jax.run import run_folder
  from skinseg_jax.weights import ensemble_folder

  summary = pooled.write(plan)
  data = plan.config.data
  images = cache.open_cache(
    plan.source, data.image_size, pathlib.Path(data.data_dir)
  )
  report.write_all(plan.root, images, plan_lib.NAME)
  if ensemble:
    names = [plan.workdir(fold).name for fold in range(len(plan.folds))]
    run_folder.write_json(plan.root / ensemble_folder.FILE, {'members': names})
  print(pooled.describe(plan.root, summary))


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = flags.parser('cross_validate', __doc__)
  add = parser.add_argument
  add(
    '--folds',
    type=int,
    default=_FOLDS,
    metavar='K',
    help=f'number of folds, 2 or more; default: {_FOLDS}',
  )
  add(
    '--workdir',
    type=paths.user_path,
    metavar='DIR',
    help='folder for all folds; default: runs/<config name>_folds',
  )
  add(
    '--only',
    type=int,
    metavar='FOLD',
    help='train only this fold, from 0, as a job of its own; the job that'
    ' finishes last joins the scores',
  )
  add(
    '--ensemble',
    action='store_true',
    help='make DIR an ensemble: predict --workdir DIR then takes the mean of'
    ' the probabilities of all folds',
  )
  return parser.parse_known_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(run, sys.argv)
