"""The files that say what a run is: config, environment, split."""

import contextlib
import fcntl
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator
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
  """Where a run keeps its checkpoints."""
  return workdir / 'checkpoints'


def evaluation_dir(workdir: pathlib.Path, subset: str) -> pathlib.Path:
  """Where a run keeps the scores on one subset."""
  return workdir / 'evaluation' / subset


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Makes the folder, and keeps a second run out of it; a crash frees it.

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
      # Of several processes the first speaks for all.
      if jax.process_index() == 0:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise errors.InputError(
        f'another process trains in {workdir}; wait for its end, or choose'
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
) -> None:
  """Writes what the run is, or checks that it is the one begun there before.

  Process 0 writes; the others, after it, check that theirs is the same run.

  Raises:
    InputError: If the folder holds a run of another config, data or split,
      naming what differs; or if it cannot be written.
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
      write_json(workdir / 'environment.json', _environment(source, split))
    # Last: a folder with a config is a whole one. It is written anew where a
    # run is gone on with, for it may train longer; how it began stays.
    write_json(workdir / 'config.json', config_lib.to_dict(config))
  except OSError as error:
    raise _unwritable(workdir, error) from error


def _check_joined(workdir, config, source) -> None:
  """Refuses to train beside a process 0 that does something else."""
  path = workdir / 'config.json'
  if not path.exists():
    raise errors.InputError(
      f'{path} is not there, though process 0 wrote it; --workdir must be on a'
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
      'all processes must have one config; they differ in\n'
      + errors.listing(differing)
    )
  check_data(workdir, source)


def check_data(workdir: pathlib.Path, source: interface.Source) -> None:
  """Refuses data that is not what the run was trained on.

  Raises:
    InputError: If images, masks or ids changed.
  """
  if not _same_data(workdir, source):
    raise errors.InputError(
      f'the data of source {source.name!r} is not what {workdir} was trained'
      ' on: images, masks or ids differ. Restore them, or train anew.'
    )


def _same_data(workdir: pathlib.Path, source: interface.Source) -> bool:
  recorded = read_json(workdir / 'environment.json', 'data_fingerprint')
  return recorded['data_fingerprint'] == source.fingerprint


def read_json(path: pathlib.Path, *keys: str) -> dict[str, Any]:
  """Reads an object that holds `keys`.

  Raises:
    InputError: If the file is missing, damaged or lacks one.
  """
  try:
    found = json.loads(path.read_text('utf-8'))
    if not isinstance(found, dict):
      raise ValueError('no object')
    if missing := [key for key in keys if key not in found]:
      raise ValueError(f'no {", ".join(missing)}')
  except (OSError, ValueError, RecursionError) as error:
    raise errors.InputError(
      f'{path} is not what a run writes ({error}); restore it, or train anew.'
    ) from error
  return found


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes indented JSON, whole or not at all; process 0 alone does."""
  if not distributed.is_primary():
    return
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8')
  temporary.replace(path)


def _check_same_run(workdir, config, source, split) -> None:
  before = config_lib.flat(config_lib.load(workdir / 'config.json'))
  now = config_lib.flat(config)
  free = _FREE_FIELDS
  if config.train.schedule != 'constant':
    free -= {'train.epochs'}  # A schedule is drawn over the whole training.
  differing = [
    f'{name}: {before[name]!r} there, {now[name]!r} now'
    for name in now
    if before[name] != now[name] and name not in free
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
  """The commit of the code, '' where it is not known."""
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
  # Installed in an environment inside another repository, it is not that one's.
  return commit if pathlib.Path(top) == root.resolve() else ''
