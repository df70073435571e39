"""Trains and scores one experiment.

python -m skinseg_jax.main --config configs/quickstart.py [--workdir DIR]

On several machines start it once on each; docs/scaling.md has the commands.
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules, devices, distributed, errors

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'File that returns the config; see configs/.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', '', 'Folder of the run. Default: runs/<config name>.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator',
  '',
  'HOST:PORT where process 0 of several can be reached; auto: JAX finds out.'
  ' SLURM, Open MPI, Kubernetes and TPU pods are recognised without.',
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'Number of processes, with --coordinator HOST:PORT.'
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'Which of them this is, from 0.'
)


def run(argv: list[str]) -> None:
  """Parses the flags, then trains.

  Raises:
    InputError: If a flag or a config field does not fit.
  """
  config, workdir = parse(argv)
  # Libraries' notes are not the user's, nor tracebacks of what is explained.
  logging.set_verbosity(logging.FATAL)
  # Imported after the flags are known to be right: it takes seconds.
  from skinseg_jax import compilation, train

  if config.train.deterministic:
    compilation.make_deterministic()
  with distributed.joined(
    _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
  ):
    devices.use(config.device)
    train.train_and_evaluate(config, workdir)


def parse(argv: list[str]) -> tuple[config_lib.Config, pathlib.Path]:
  """Reads config and run folder from the command line.

  Raises:
    InputError: Naming the flag, file or field that does not fit.
  """
  config_lib.check_overrides(argv)
  try:
    app.define_help_flags()
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    raise errors.InputError(str(error)) from None
  if len(rest) > 1:
    raise errors.InputError(f'not understood: {" ".join(rest[1:])}')
  if not flags.FLAGS['config'].present:
    raise errors.InputError(
      'which experiment? Give --config, such as --config configs/quickstart.py'
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
  config_rules.validate(config)
  workdir = _WORKDIR.value or f'runs/{path.stem}'
  return config, pathlib.Path(workdir)


if __name__ == '__main__':
  errors.exit_with_message(run, sys.argv)
