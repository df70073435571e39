"""Reads and writes a run's config, environment and split files."""

import contextlib
import fcntl
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from skinseg_jax import config as config_lib
from skinseg_jax.data import splits
from skinseg_jax.data.sources import interface
from skinseg_jax.runtime import distributed, errors

# May differ from the checkpoint's config when a run is resumed.
_FREE_FIELDS = frozenset(
  {
    'device',
    'data.raw_dir',
    'data.data_dir',
    'data.images_dir',
    'data.masks_dir',
    'data.metadata_csv',
    'train.epochs',
    'train.log_every_steps',
    'train.checkpoint_every_steps',
    'train.remat',
    'train.xla_options',
    'evaluation.batch_size',
  }
)
_PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'grain',
  'clu',
  'tensorflow-datasets',
  'numpy',
  'pillow',
  'skinseg_jax',
)


def checkpoints_dir(workdir: pathlib.Path) -> pathlib.Path:
  """Returns the folder of a run's checkpoints."""
  return workdir / 'checkpoints'


def evaluation_dir(workdir: pathlib.Path, subset: str) -> pathlib.Path:
  """Returns the folder of a run's scores on one subset."""
  return workdir / 'evaluation' / subset


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Creates the folder and locks it against a second run; a crash unlocks it.

  Raises:
    InputError: If the folder is in use or cannot be written.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    file = (workdir / '.lock').open('w')
  except OSError as error:
    raise _unwritable(workdir, error) from error
  with file:
    try:
      # Process 0 holds the lock for all processes.
      if jax.process_index() == 0:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise errors.InputError(
        f'another process trains in {workdir}; wait until it ends, or choose'
        ' another --workdir.'
      ) from None
    yield


def _unwritable(workdir: pathlib.Path, error: OSError) -> errors.InputError:
  return errors.InputError(
    f'cannot write to the run folder {workdir}: {error.strerror}; choose'
    ' another with --workdir.'
  )


def begin(
  workdir: pathlib.Path,
  config: config_lib.Config,
  source: interface.Source,
  split: splits.Split,
  initial_weights: Mapping[str, Any] | None = None,
) -> None:
  """Writes the files that describe the run, or checks the existing ones.

  Process 0 writes. The other processes then check that theirs is the same run.

  Args:
    workdir: Folder of the run.
    config: Config of the run.
    source: Its images and masks.
    split: Which images train and which validate.
    initial_weights: What a new run starts from besides its seed, see
      `initial_weights`.

  Raises:
    InputError: If the folder holds a run with another config, data or split
      (the message names what differs), or if it cannot be written.
  """
  if not distributed.is_primary():
    _check_joined(workdir, config, source)
    return
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    if (workdir / 'config.json').exists():
      _check_same_run(workdir, config, source, split)
    else:
      splits.write_split(split, workdir / 'split.csv')
      environment = _environment(source, split)
      environment['initial_weights'] = dict(initial_weights or {})
      write_json(workdir / 'environment.json', environment)
    # Written last: a folder with a config is complete. A resumed run writes the
    # config again because it may train longer; the other files stay.
    write_json(workdir / 'config.json', config_lib.to_dict(config))
  except OSError as error:
    raise _unwritable(workdir, error) from error


def initial_weights(workdir: pathlib.Path) -> dict[str, Any]:
  """What a run starts from besides its seed; empty: nothing.

  Raises:
    InputError: If the run folder is damaged.
  """
  environment = read_json(workdir / 'environment.json')
  return environment.get('initial_weights', {})


def _check_joined(workdir, config, source) -> None:
  """Checks that process 0 has the same config and data."""
  path = workdir / 'config.json'
  if not path.exists():
    raise errors.InputError(
      f'{path} is missing, although process 0 wrote it; --workdir must be on a'
      ' file system that all processes share.'
    )
  before, now = map(config_lib.flat, (config_lib.load(path), config))
  differing = [
    f'{name}: {before[name]!r} in process 0, {now[name]!r} here'
    for name in now
    if before[name] != now[name]
  ]
  if differing:
    raise errors.InputError(
      'all processes must have the same config; they differ in\n'
      + errors.listing(differing)
    )
  check_data(workdir, source)


def check_data(workdir: pathlib.Path, source: interface.Source) -> None:
  """Checks that the data is what the run was trained on.

  Raises:
    InputError: If images, masks or ids changed.
  """
  if not _same_data(workdir, source):
    raise errors.InputError(
      f'the data of source {source.name!r} is not what {workdir} was trained'
      ' on: images, masks or ids differ. Restore them, or train again with a'
      ' new --workdir.'
    )


def _same_data(workdir: pathlib.Path, source: interface.Source) -> bool:
  recorded = read_json(workdir / 'environment.json', 'data_fingerprint')
  return recorded['data_fingerprint'] == source.fingerprint


def read_json(
  path: pathlib.Path,
  *keys: str,
  remedy: str = 'restore it, or train again with a new --workdir',
) -> dict[str, Any]:
  """Reads a JSON object.

  Args:
    path: The file.
    *keys: What the object must hold.
    remedy: What to do if the file is damaged.

  Raises:
    InputError: If the file is missing or damaged, or lacks a key.
  """
  try:
    found = json.loads(path.read_text('utf-8'))
    if not isinstance(found, dict):
      raise ValueError('no object')
    if missing := [key for key in keys if key not in found]:
      raise ValueError(f'no {", ".join(missing)}')
  except (OSError, ValueError, RecursionError) as error:
    raise errors.InputError(
      f'{path} is not what a run writes ({error}); {remedy}.'
    ) from error
  return found


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes indented JSON atomically, in process 0 only."""
  if not distributed.is_primary():
    return
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8')
  temporary.replace(path)


def differing_fields(
  before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[str]:
  """Fields in which a run may not differ when it resumes, but does.

  Args:
    before: `config.flat` of the run.
    now: `config.flat` of the config to resume it with.
  """
  free = _FREE_FIELDS
  if now['train.schedule'] != 'constant':
    free -= {'train.epochs'}  # The schedule depends on the number of epochs.
  return [n for n in now if before[n] != now[n] and n not in free]


def _check_same_run(workdir, config, source, split) -> None:
  before = config_lib.flat(config_lib.load(workdir / 'config.json'))
  now = config_lib.flat(config)
  differing = [
    f'{name}: {before[name]!r} there, {now[name]!r} now'
    for name in differing_fields(before, now)
  ]
  if not _same_data(workdir, source):
    differing.append('the images or masks themselves')
  if not _same_split(workdir, split):
    differing.append('which images train and which validate')
  if differing:
    raise errors.InputError(
      f'{workdir} holds a run that differs in\n'
      + errors.listing(differing)
      + '\nGive --workdir a new folder, or undo the change to resume.'
    )


def _same_split(workdir: pathlib.Path, split: splits.Split) -> bool:
  recorded = read_json(workdir / 'environment.json', 'split_sha256')
  return recorded['split_sha256'] == splits.split_hash(split)


def _environment(source, split) -> dict[str, Any]:
  device = jax.devices()[0]
  return {
    'command': sys.argv,
    'python': platform.python_version(),
    'packages': {name: importlib.metadata.version(name) for name in _PACKAGES},
    'device': device.device_kind,
    'platform': device.platform,
    'num_devices': jax.device_count(),
    'num_processes': jax.process_count(),
    'commit': _commit(),
    'data_source': source.name,
    'data_fingerprint': source.fingerprint,
    'split_sha256': splits.split_hash(split),
  }


def _commit() -> str:
  """Returns the commit of the code, '' if it is not known."""
  root = pathlib.Path(__file__).parents[2]
  try:
    done = subprocess.run(
      ['git', '-C', root, 'rev-parse', '--show-toplevel', 'HEAD'],
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return ''
  top, commit = done.stdout.splitlines()
  # If the package is installed inside another repository, ignore its commit.
  return commit if pathlib.Path(top) == root.resolve() else ''
