"""Images and masks decoded and resized once, then read from a memory map.

A cache is a folder `<data_dir>/cache/<source>-<H>x<W>-<key>` with `images.npy`,
`masks.npy` and `index.json`. The key is a hash of everything that shaped the
arrays. A cache is built under another name and renamed when it is complete, so
a folder with this name is always complete.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any, BinaryIO

import numpy as np
import tqdm

from skinseg_jax.data import preprocessing, remedies
from skinseg_jax.data.sources import interface
from skinseg_jax.runtime import errors

_INDEX_NAME = 'index.json'
_IMAGES_NAME = 'images.npy'
_MASKS_NAME = 'masks.npy'


@dataclasses.dataclass(frozen=True, eq=False)
class CachedData:
  """All examples of a source at one size, in the source's order.

  Attributes:
    images: RGB, uint8 [N, H, W, 3], read-only.
    masks: 1 for lesion and 0 for skin, uint8 [N, H, W], read-only.
    image_ids: One per example.
    fingerprint: SHA-256, in hex, of everything that shaped the arrays.
  """

  images: np.ndarray
  masks: np.ndarray
  image_ids: list[str]
  fingerprint: str


def open_cache(
  source: interface.Source,
  image_size: tuple[int, int],
  data_dir: pathlib.Path,
  *,
  elsewhere: str = remedies.NEW_DATA_DIR,
) -> CachedData:
  """Opens the cache of `source` at a size; builds it if it does not exist.

  A damaged cache is built again. Of several processes one builds, the others
  wait for it.

  Args:
    source: Where the examples come from.
    image_size: Height and width, in pixels.
    data_dir: Directory that caches are kept under.
    elsewhere: How the user chooses another one.

  Raises:
    InputError: If examples cannot be read (all are listed), or the cache
      cannot be written.
  """
  shaped_by = {
    'source': source.fingerprint,
    'image_size': list(image_size),
    'preprocessing': preprocessing.VERSION,
  }
  fingerprint = hashlib.sha256(json.dumps(shaped_by).encode()).hexdigest()
  height, width = image_size
  name = f'{source.name}-{height}x{width}-{fingerprint[:16]}'
  directory = data_dir / 'cache' / name
  with contextlib.suppress(_NotWholeError):
    return _open(directory, fingerprint)
  needed = 4 * len(source) * height * width  # Three channels and the mask.
  try:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _lock(directory):
      try:
        return _open(directory, fingerprint)  # Built while we waited.
      except _NotWholeError as fault:
        if directory.exists():
          print(f'{directory} is damaged ({fault}); building it again.',
                file=sys.stderr)  # fmt: skip
          shutil.rmtree(directory)
      _build(source, image_size, shaped_by, directory, needed)
  except OSError as error:
    raise errors.InputError(
      f'{directory} cannot be written ({error}); it needs {needed} bytes. Make'
      f' room, or {elsewhere}.'
    ) from error
  return _open(directory, fingerprint)


class _NotWholeError(Exception):
  """A folder is not a complete cache."""


def _open(directory: pathlib.Path, fingerprint: str) -> CachedData:
  """Opens a cache whose files have the sizes they were written with."""
  try:
    index = json.loads((directory / _INDEX_NAME).read_text('utf-8'))
    for name, size in index['bytes'].items():
      found = (directory / name).stat().st_size
      if found != size:
        raise _NotWholeError(f'{name} has {found} bytes, not {size}')
    return CachedData(
      images=np.load(directory / _IMAGES_NAME, mmap_mode='r'),
      masks=np.load(directory / _MASKS_NAME, mmap_mode='r'),
      image_ids=index['image_ids'],
      fingerprint=fingerprint,
    )
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise _NotWholeError(repr(error)) from error


@contextlib.contextmanager
def _lock(directory: pathlib.Path) -> Iterator[None]:
  """Locks the cache while it is built; a crash releases the lock."""
  with directory.with_name(f'.{directory.name}.lock').open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f'Another process builds {directory}; waiting.', file=sys.stderr)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _build(
  source: interface.Source,
  image_size: tuple[int, int],
  shaped_by: dict,
  directory: pathlib.Path,
  needed: int,
) -> None:
  """Writes the whole cache of `needed` bytes, or nothing."""
  partial = directory.with_name(f'.{directory.name}.partial')
  if partial.exists():  # A build was interrupted; we hold the lock.
    shutil.rmtree(partial)
  _check_disk(directory.parent, needed)
  partial.mkdir()
  try:
    _write_arrays(source, image_size, partial)
    index = {
      **shaped_by,
      'bytes': {file.name: file.stat().st_size for file in partial.iterdir()},
      'image_ids': source.image_ids,
    }
    with (partial / _INDEX_NAME).open('wb') as file:
      file.write(json.dumps(index).encode())
      _sync(file)
    partial.rename(directory)
  except BaseException:  # An interruption by the keyboard, too.
    shutil.rmtree(partial)
    raise


def _check_disk(directory: pathlib.Path, needed: int) -> None:
  free = shutil.disk_usage(directory).free
  if free < needed:
    raise OSError(errno.ENOSPC, f'only {free} bytes are free', str(directory))


def _write_arrays(
  source: interface.Source,
  image_size: tuple[int, int],
  directory: pathlib.Path,
) -> None:
  """Writes examples one after the other, by plain writes.

  A memory map would count as this process's memory.

  Raises:
    InputError: Listing all examples that cannot be read.
  """

  def prepare(index: int) -> tuple[np.ndarray, np.ndarray] | errors.InputError:
    try:
      example = source[index]
    except errors.InputError as error:
      return error
    return (
      preprocessing.resize_image(example['image'], image_size),
      preprocessing.resize_mask(example['mask'], image_size),
    )

  problems = []
  with (
    (directory / _IMAGES_NAME).open('wb') as images,
    (directory / _MASKS_NAME).open('wb') as masks,
    contextlib.closing(_in_parallel(prepare, len(source))) as results,
  ):
    _write_header(images, (len(source), *image_size, 3))
    _write_header(masks, (len(source), *image_size))
    for result in tqdm.tqdm(
      results, 'caching', len(source), unit='image', disable=None
    ):
      if isinstance(result, errors.InputError):
        problems.append(str(result))
      elif not problems:
        images.write(result[0].tobytes())
        masks.write(result[1].tobytes())
    _sync(images)
    _sync(masks)
  if problems:
    raise errors.InputError(
      f'{len(problems)} of {len(source)} examples cannot be read:\n'
      + errors.listing(problems)
    )


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
  np.lib.format.write_array_header_1_0(
    file, {'descr': '|u1', 'fortran_order': False, 'shape': shape}
  )


def _sync(file: BinaryIO) -> None:
  """Writes the file to the disk before anything renames it."""
  file.flush()
  os.fsync(file.fileno())


def _in_parallel(
  function: Callable[[int], object], count: int
) -> Generator[Any]:
  """Results of `function` for 0 to `count` - 1, in order.

  Unlike `Executor.map`, keeps only a few results in memory.
  """
  workers = max(2, os.cpu_count() or 1)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    pending: collections.deque = collections.deque()
    for index in range(count):
      pending.append(pool.submit(function, index))
      if len(pending) == 4 * workers:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
