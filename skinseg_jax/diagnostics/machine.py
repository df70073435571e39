"""Checks versions, devices, data and speeds of this machine."""

import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import NamedTuple

import jax
import numpy as np

from skinseg_jax.data import cache, input_pipeline, remedies
from skinseg_jax.data.sources import ham10000_files
from skinseg_jax.runtime import devices, errors

_PACKAGES = ('jax', 'jaxlib', 'flax', 'orbax-checkpoint', 'grain', 'numpy')
_PLUGINS = (
  'jax-cuda13-plugin', 'jax-cuda12-plugin', 'jax-rocm7-plugin', 'libtpu'
)  # fmt: skip
# By use: the packages it needs and the command that installs them.
_OPTIONAL = {
  'training': (('clu',), 'pip install "skinseg_jax[train]"'),
  'HAM10000': (
    ('tensorflow_datasets', 'array_record', 'importlib_resources'),
    'pip install "skinseg_jax[train]"',
  ),
  'TensorBoard': (
    ('tensorflow', 'tensorboard'),
    'pip install "skinseg_jax[train]" (Python 3.13 or older)',
  ),
  'writing .pt files': (
    ('torch',),
    'pip install "skinseg_jax[torch]"',
  ),
  'automatic joining of the processes of a Kubernetes job': (
    ('kubernetes',),
    'pip install "jax[k8s]"',
  ),
}
# Duration of each speed measurement, in seconds.
_SECONDS = 2.0
_BLOCK = 16 * 2**20
_IMAGE_SIZE, _BATCH_SIZE = 224, 32


class Finding(NamedTuple):
  """One line of the report.

  Attributes:
    level: 'ok', 'note' (something optional is missing) or 'BAD'.
    what: What was found.
    remedy: Command or advice that fixes it; '' if there is nothing to fix.
  """

  level: str
  what: str
  remedy: str = ''


def examine(
  data_dir: pathlib.Path | None, raw_dir: pathlib.Path | None
) -> Iterator[Finding]:
  """Runs all checks one after the other.

  Args:
    data_dir: Directory of prepared data sets, which must contain HAM10000.
      None: look in 'data', where it may be missing.
    raw_dir: Directory of raw HAM10000 files to check; None for no check.
  """
  yield _versions()
  yield from _devices()
  yield from _optional_parts()
  if raw_dir:
    yield _raw_files(raw_dir)
  where = data_dir or pathlib.Path('data')
  yield from _data_set(where, wanted=data_dir is not None)
  yield _disk(where)
  yield _pipeline()


def _versions() -> Finding:
  versions = ', '.join(
    f'{name} {importlib.metadata.version(name)}' for name in _PACKAGES
  )
  return Finding('ok', f'Python {platform.python_version()}, {versions}')


def _devices() -> Iterator[Finding]:
  plugins = ', '.join(
    f'{name} {version}' for name in _PLUGINS if (version := _version(name))
  )
  try:
    found = jax.devices()
  except RuntimeError as error:
    yield Finding('BAD', f'JAX finds no device: {error}', 'unset JAX_PLATFORMS')
    return
  memory = (found[0].memory_stats() or {}).get('bytes_limit')
  yield Finding(
    'ok',
    f'JAX runs on {len(found)} x {found[0].device_kind} ({found[0].platform})'
    + (f' with {memory / 2**30:.1f} GiB each' if memory else '')
    + (f'; plugin: {plugins}' if plugins else ''),
  )
  yield Finding('ok', f'{os.cpu_count()} CPU cores, {_host_memory()}')
  if driver := _nvidia_driver():
    yield Finding('ok', f'NVIDIA driver: {driver}')
  if devices.unused_gpu(found[0].platform):
    yield Finding(
      'BAD',
      'this machine seems to have an NVIDIA GPU, but JAX does not see it'
      + ('' if plugins else '; no plugin for it is installed'),
      devices.remedy('gpu'),
    )


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return ''


def _host_memory() -> str:
  pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return f'{pages / 2**30:.1f} GiB of memory'


def _nvidia_driver() -> str:
  """Driver, name and memory of every GPU, as nvidia-smi prints them."""
  try:
    done = subprocess.run(
      [
        'nvidia-smi',
        '--query-gpu=driver_version,name,memory.total',
        '--format=csv,noheader',
      ],
      capture_output=True,
      text=True,
      check=True,
      timeout=30,
    )
  except (OSError, subprocess.SubprocessError):
    return ''
  return '; '.join(done.stdout.strip().splitlines())


def _optional_parts() -> Iterator[Finding]:
  for use, (packages, remedy) in _OPTIONAL.items():
    missing = [name for name in packages if not find_spec(name)]
    if missing:
      yield Finding('note', f'without {", ".join(missing)}: no {use}', remedy)
    else:
      yield Finding('ok', f'{", ".join(packages)}: {use}')


def _raw_files(raw_dir: pathlib.Path) -> Finding:
  try:
    raw = ham10000_files.list_files(
      ham10000_files.find(raw_dir, remedies.FLAGS)
    )
  except errors.InputError as error:
    return Finding('BAD', str(error))
  if problems := raw.unreadable + raw.problems:
    return Finding(
      'BAD',
      f'raw files in {raw_dir} are not valid:\n{errors.listing(problems)}',
      f'download them again from {ham10000_files.WHERE_TO_GET}',
    )
  return Finding(
    'ok', f'{len(raw.images):,} images with masks and metadata in {raw_dir}'
  )


def _data_set(data_dir: pathlib.Path, *, wanted: bool) -> Iterator[Finding]:
  prepare = f'python scripts/prepare_ham10000.py --data_dir {data_dir}'
  if not find_spec('tensorflow_datasets'):
    return  # Named above.
  # TFDS takes a second to import.
  from skinseg_jax.data.sources import ham10000

  version = str(ham10000.Ham10000.VERSION)
  # Checked first, because `prepare` would download it.
  if not (data_dir / 'ham10000' / version).exists():
    level = 'BAD' if wanted else 'note'
    yield Finding(level, f'no HAM10000 in {data_dir}', prepare)
    return
  try:
    # With a threshold, masks that are not strictly binary are no error here.
    source = ham10000.Ham10000Source.prepare(data_dir, None, mask_threshold=127)
  except errors.InputError as error:
    yield Finding('BAD', str(error), prepare)
    return
  yield Finding(
    'ok', f'HAM10000 in {data_dir}: {len(source):,} images, complete'
  )
  speed = _per_second(lambda number: source[number % len(source)])
  yield Finding('ok', f'reads and decodes {speed:,.0f} images/s on one core')


def _disk(data_dir: pathlib.Path) -> Finding:
  """Speed of the disk of `data_dir` or of its nearest existing parent."""
  directory = data_dir.absolute()
  while not directory.exists():
    directory = directory.parent
  block = np.random.default_rng(0).bytes(_BLOCK)
  free = shutil.disk_usage(directory).free / 1e9
  try:
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:

      def write(_):
        file.write(block)
        os.fsync(file.fileno())

      written = _per_second(write) * _BLOCK / 1e6
      # Drop the file from the page cache, to measure the disk and not memory.
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
      size = file.tell()
      file.seek(0)
      began = time.perf_counter()
      while file.read(_BLOCK):
        pass
      read = size / (time.perf_counter() - began) / 1e6
  except OSError as error:
    return Finding(
      'BAD',
      f'cannot write to {directory} ({error})',
      'choose another --data_dir',
    )
  return Finding(
    'ok',
    f'disk writes {written:,.0f} MB/s, reads {read:,.0f} MB/s;'
    f' {free:,.1f} GB free in {directory}',
  )


def _pipeline() -> Finding:
  """Speed of the input pipeline from memory to the device."""
  shape = (8 * _BATCH_SIZE, _IMAGE_SIZE, _IMAGE_SIZE)
  data = cache.CachedData(
    images=np.zeros((*shape, 3), np.uint8),
    masks=np.zeros(shape, np.uint8),
    image_ids=[],
    fingerprint='',
  )
  sharding = input_pipeline.data_sharding()
  batch_size = _BATCH_SIZE * sharding.mesh.size
  batches = iter(
    input_pipeline.training_batches(
      data,
      np.arange(shape[0]).repeat(sharding.mesh.size),
      batch_size=batch_size,
      seed=0,
      sharding=sharding,
    )
  )
  speed = batch_size * _per_second(
    lambda _: jax.block_until_ready(next(batches))
  )
  batches.close()
  return Finding(
    'ok',
    f'the input pipeline reads {speed:,.0f} images/s of {_IMAGE_SIZE} x'
    f' {_IMAGE_SIZE} pixels',
  )


def _per_second(call: Callable[[int], object]) -> float:
  """Measures calls per second; `call` gets 0, 1, 2, ..."""
  began, number = time.perf_counter(), 0
  while time.perf_counter() - began < _SECONDS:
    call(number)
    number += 1
  return number / (time.perf_counter() - began)
