"""Trains and scores one experiment.

python -m skinseg_jax.main --config configs/quickstart.py [--workdir DIR]

To train on several machines, start it once on each; see
docs/how-to/several-devices.md.
"""

import importlib.util
import pathlib
import re
import sys
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.runtime import errors, paths

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Python file that defines get_config(); see configs/.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', '', 'Run folder. Default: runs/<config name>.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator',
  '',
  'For several processes: HOST:PORT of process 0, or auto to let JAX find it.'
  ' Not needed on SLURM, Open MPI, Kubernetes and TPU pods, which are'
  ' recognised.',
)
# Where configs are that are given by name: in a wheel, and in a clone.
_PACKAGE = pathlib.Path(__file__).parent
_CONFIG_DIRS = (_PACKAGE / 'configs', _PACKAGE.parent / 'configs')
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'Number of processes, with --coordinator HOST:PORT.'
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id',
  None,
  'Number of this process, from 0, with --coordinator HOST:PORT.',
)


def run(argv: list[str]) -> None:
  """Parses the flags, then trains.

  Raises:
    InputError: If a flag or a config field is invalid.
  """
  config, workdir = parse(argv)
  check_packages(config)
  # Hide libraries' log messages, and tracebacks of errors that we explain.
  logging.set_verbosity(logging.FATAL)
  # Imported after the flags are checked, because the import takes seconds.
  from skinseg_jax.runtime import compilation, devices, distributed

  if config.train.deterministic:
    compilation.make_deterministic()
  with distributed.joined(
    _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
  ):
    devices.use(config.device)
    train_and_evaluate(config, workdir)


def train_and_evaluate(
  config: config_lib.Config, workdir: pathlib.Path
) -> dict[str, Any]:
  """Prepares the data if needed, trains, scores and writes the report.

  A second call on the same folder resumes the training.

  Args:
    config: The experiment.
    workdir: Run folder; created if missing.

  Returns:
    Contents of `evaluation/validation/summary.json` for the last epoch.

  Raises:
    InputError: If the config, data or folder is invalid.
    DivergenceError: If the loss or the weights are no longer finite.
    StoppedError: On SIGTERM or SIGINT; the progress is saved.
  """
  from skinseg_jax.evaluation import evaluator, training_images
  from skinseg_jax.reporting import report
  from skinseg_jax.runtime import distributed
  from skinseg_jax.training import experiment

  with experiment.prepared(config, workdir) as prepared:
    run_data = prepared.run_data
    model = experiment.train(prepared)
    outcome = evaluator.evaluate_subset(
      workdir, model, run_data, subset='validation', options=evaluator.DEFAULT
    )
    if distributed.is_primary():
      training_images.profile(workdir, run_data)
      report.write_all(workdir, outcome.data, outcome.name)
      _print_results(config, workdir, outcome.summary)
  return outcome.summary


def check_packages(config: config_lib.Config) -> None:
  """Refuses to begin without the packages that only training needs.

  Raises:
    InputError: Naming all that are missing.
  """
  needed = ['clu']
  if config.data.source == 'ham10000':
    needed += ['tensorflow_datasets', 'array_record', 'importlib_resources']
  missing = [name for name in needed if not importlib.util.find_spec(name)]
  if missing:
    raise errors.InputError(
      f'training needs packages that are not installed: {", ".join(missing)}.'
      ' Type: pip install "skinseg_jax[train]"'
    )


def _with_config_path(argv: list[str]) -> list[str]:
  """The command line with the path of a config that is given by name."""
  argv = list(argv)
  for index, word in enumerate(argv):
    flag, equals, value = word.partition('=')
    if flag not in ('--config', '-config'):
      continue
    if equals:
      argv[index] = f'{flag}={_config_path(value)}'
    elif index + 1 < len(argv):
      argv[index + 1] = _config_path(argv[index + 1])
  return argv


def _config_path(given: str) -> str:
  """A file that exists, or the shipped one of that name.

  'quickstart', 'quickstart.py' and 'configs/quickstart.py' name the shipped
  one from any folder.
  """
  path = pathlib.Path(given)
  by_name = str(path.parent) in ('.', 'configs') and path.suffix in ('', '.py')
  if by_name and not path.is_file():
    for directory in _CONFIG_DIRS:
      if (directory / f'{path.stem}.py').is_file():
        return str(directory / f'{path.stem}.py')
  return given


def _print_results(config, workdir, summary) -> None:
  from skinseg_jax.evaluation import paper, summaries

  print(summaries.describe(summary))
  best = summary['best_checkpoint']
  print(f'best by validation Dice: step {best["step"]}, {best["dice"]:.4f}')
  if config.data.split == 'paper':
    print(paper.comparison(summary))
  print(f'results in {workdir}; open report.html there')


def _expand(match: re.Match[str]) -> str:
  return f'{match[1]}{paths.user_path(match[2])}'


def parse(argv: list[str]) -> tuple[config_lib.Config, pathlib.Path]:
  """Reads config and run folder from the command line.

  Raises:
    InputError: If a flag, the config file or a field is invalid.
  """
  # Of --config=~/x.py a shell leaves the ~ as it is.
  argv = [re.sub(r'^(--?config=)(~.*)', _expand, arg) for arg in argv]
  config_lib.check_overrides(argv)
  try:
    app.define_help_flags()
    rest = flags.FLAGS(_with_config_path(argv))
  except flags.Error as error:
    raise errors.InputError(str(error)) from None
  if len(rest) > 1:
    raise errors.InputError(f'unknown arguments: {" ".join(rest[1:])}')
  if not flags.FLAGS['config'].present:
    raise errors.InputError(
      '--config is missing; for example: --config configs/quickstart.py'
    )
  path = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config']))
  if not path.is_file():
    raise errors.InputError(f'--config {path}: no such file; see configs/.')
  config = _CONFIG.value
  if not isinstance(config, config_lib.Config):
    raise errors.InputError(
      f'{path}: get_config() must return a skinseg_jax.config.Config, got'
      f' {type(config).__name__}.'
    )
  config_lib.complete(config)
  config_rules.validate(config)
  workdir = _WORKDIR.value or f'runs/{path.stem}'
  return config, paths.user_path(workdir)


if __name__ == '__main__':
  errors.exit_with_message(run, sys.argv)
