"""A cache holds what its source gives, and only a whole one is opened."""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import remedies

from skinseg_jax.data import cache, preprocessing
from skinseg_jax.runtime import errors

SIZE = (32, 48)


@dataclasses.dataclass
class FakeSource:
  """Examples of differing sizes; `before` is called with each index read."""

  count: int = 30
  fingerprint: str = 'a'
  before: Callable[[int], None] = lambda index: None
  name: str = 'fake'

  @property
  def image_ids(self):
    return [f'id_{index:03d}' for index in range(self.count)]

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    self.before(index)
    rng = np.random.default_rng(index)
    size = (40 + index, 32)
    return {
      'image_id': self.image_ids[index],
      'image': rng.integers(0, 256, (*size, 3), dtype=np.uint8),
      'mask': rng.integers(0, 2, size, dtype=np.uint8),
    }


def contents(data_dir: pathlib.Path) -> list[str]:
  """What lies among the caches, but for locks."""
  return sorted(
    path.name
    for path in (data_dir / 'cache').glob('*')
    if path.suffix != '.lock'
  )


def assert_holds(data: cache.CachedData, source: FakeSource):
  assert data.image_ids == source.image_ids
  assert data.images.shape == (len(source), *SIZE, 3)
  assert data.masks.shape == (len(source), *SIZE)
  assert data.images.dtype == data.masks.dtype == np.uint8
  for index in range(len(source)):
    example = source[index]
    np.testing.assert_array_equal(
      data.images[index], preprocessing.resize_image(example['image'], SIZE)
    )
    np.testing.assert_array_equal(
      data.masks[index], preprocessing.resize_mask(example['mask'], SIZE)
    )


def refuse_to_read(index: int):
  raise AssertionError(f'example {index} was read again')


def test_holds_what_the_source_gives_and_is_built_once(tmp_path):
  source = FakeSource()
  data = cache.open_cache(source, SIZE, tmp_path)
  assert_holds(data, source)
  assert contents(tmp_path) == [f'fake-32x48-{data.fingerprint[:16]}']
  again = cache.open_cache(FakeSource(before=refuse_to_read), SIZE, tmp_path)
  assert_holds(again, source)
  assert again.fingerprint == data.fingerprint


def test_arrays_are_read_only(tmp_path):
  data = cache.open_cache(FakeSource(count=1), SIZE, tmp_path)
  for array in (data.images, data.masks):
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match='read-only'):
      array[0] = 0


def test_examples_need_not_be_contiguous(tmp_path):
  class Turned(FakeSource):
    def __getitem__(self, index):
      example = super().__getitem__(index)
      image = preprocessing.resize_image(example['image'], SIZE)
      mask = preprocessing.resize_mask(example['mask'], SIZE)
      return {
        **example,
        'image': np.asfortranarray(image),
        'mask': np.asfortranarray(mask),
      }

  source = Turned(count=3)
  assert_holds(cache.open_cache(source, SIZE, tmp_path), source)


def test_key_changes_with_data_size_and_version(tmp_path, monkeypatch):
  source = FakeSource(count=2)
  found = {cache.open_cache(source, SIZE, tmp_path).fingerprint}
  other = FakeSource(count=2, fingerprint='b')
  found.add(cache.open_cache(other, SIZE, tmp_path).fingerprint)
  found.add(cache.open_cache(source, (48, 32), tmp_path).fingerprint)
  monkeypatch.setattr(preprocessing, 'VERSION', preprocessing.VERSION + 1)
  found.add(cache.open_cache(source, SIZE, tmp_path).fingerprint)
  assert len(found) == 4
  assert len(contents(tmp_path)) == 4


KILLED_BUILD = """
import os, pathlib, sys
sys.path[:0] = {paths!r}
import test_cache
from skinseg_jax.data import cache
source = test_cache.FakeSource(before=lambda i: i == 25 and os._exit(9))
cache.open_cache(source, test_cache.SIZE, pathlib.Path({data_dir!r}))
"""


def test_killed_build_is_never_taken_for_whole(tmp_path):
  here = pathlib.Path(__file__).parent
  code = KILLED_BUILD.format(
    paths=[str(here), str(here.parent / 'helpers')], data_dir=str(tmp_path)
  )
  done = subprocess.run([sys.executable, '-c', code], check=False)
  assert done.returncode == 9
  (left,) = contents(tmp_path)
  assert left.startswith('.fake')
  source = FakeSource()
  assert_holds(cache.open_cache(source, SIZE, tmp_path), source)
  (whole,) = contents(tmp_path)  # What was left is gone.
  assert whole.startswith('fake')


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_failed_build_leaves_nothing(tmp_path, error):
  def fail(index):
    if index == 25:
      raise error('stop')

  with pytest.raises(error, match='stop'):
    cache.open_cache(FakeSource(before=fail), SIZE, tmp_path)
  assert contents(tmp_path) == []


def test_all_unreadable_examples_are_listed_at_once(tmp_path):
  def fail(index):
    if index in (1, 14, 29):
      raise errors.InputError(f'id_{index:03d}: broken')

  with pytest.raises(errors.InputError) as caught:
    cache.open_cache(FakeSource(before=fail), SIZE, tmp_path)
  assert str(caught.value) == (
    '3 of 30 examples cannot be read:\n'
    '  id_001: broken\n  id_014: broken\n  id_029: broken'
  )
  assert contents(tmp_path) == []


def truncate(name):
  return lambda directory: os.truncate(
    directory / name, (directory / name).stat().st_size - 1
  )


@pytest.mark.parametrize(
  'damage',
  [
    truncate('images.npy'),
    truncate('masks.npy'),
    truncate('index.json'),
    lambda directory: (directory / 'index.json').unlink(),
    lambda directory: (directory / 'images.npy').unlink(),
    lambda directory: (directory / 'index.json').write_text('[]'),
    lambda directory: (directory / 'masks.npy').write_bytes(b'x' * 9999),
  ],
)
def test_damaged_cache_is_built_again(tmp_path, capsys, damage):
  source = FakeSource(count=3)
  cache.open_cache(source, SIZE, tmp_path)
  (name,) = contents(tmp_path)
  damage(tmp_path / 'cache' / name)
  assert_holds(cache.open_cache(source, SIZE, tmp_path), source)
  assert f'{name} is damaged' in capsys.readouterr().err
  assert contents(tmp_path) == [name]


def test_of_two_builders_one_waits(tmp_path, capsys):
  building, go_on = threading.Event(), threading.Event()

  def hold(index):
    building.set()
    assert go_on.wait(60)

  first = threading.Thread(
    target=cache.open_cache, args=(FakeSource(before=hold), SIZE, tmp_path)
  )
  opened = []
  second = threading.Thread(
    target=lambda: opened.append(
      cache.open_cache(FakeSource(before=refuse_to_read), SIZE, tmp_path)
    )
  )
  first.start()
  assert building.wait(60)
  second.start()
  said = ''
  while 'waiting' not in said:
    said += capsys.readouterr().err
    assert second.is_alive()
    time.sleep(0.01)
  (partial,) = contents(tmp_path)  # The second has not touched it.
  assert partial.startswith('.fake')
  go_on.set()
  first.join()
  second.join()
  assert_holds(opened[0], FakeSource())


def test_too_little_room_is_told_before_the_work(tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(
    shutil, 'disk_usage', lambda path: usage._replace(free=1000)
  )
  # 30 images of 32 x 48 pixels of 4 bytes.
  with pytest.raises(errors.InputError) as caught:
    cache.open_cache(FakeSource(before=refuse_to_read), SIZE, tmp_path)
  assert 'needs 184320 bytes' in str(caught.value)
  assert 'only 1000 bytes are free' in str(caught.value)
  assert str(tmp_path) in str(caught.value)
  assert contents(tmp_path) == []


def test_room_of_an_interrupted_build_counts_as_free(tmp_path, monkeypatch):
  data = cache.open_cache(FakeSource(), SIZE, tmp_path)
  directory = tmp_path / 'cache' / f'fake-32x48-{data.fingerprint[:16]}'
  partial = directory.rename(directory.with_name(f'.{directory.name}.partial'))
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(
    shutil,
    'disk_usage',
    lambda path: usage._replace(free=1000 if partial.exists() else 200_000),
  )
  assert_holds(cache.open_cache(FakeSource(), SIZE, tmp_path), FakeSource())


def test_disk_that_fills_up_meanwhile(tmp_path, monkeypatch):
  def fsync(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'fsync', fsync)
  with pytest.raises(errors.InputError, match='No space left.*184320 bytes'):
    cache.open_cache(FakeSource(), SIZE, tmp_path)
  assert contents(tmp_path) == []


def test_directory_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.InputError, match='cannot be written.*data_dir'):
    cache.open_cache(FakeSource(), SIZE, tmp_path / 'file' / 'data')


def test_remedies_of_too_little_room(tmp_path, monkeypatch):
  usage, small = shutil.disk_usage(tmp_path), tmp_path / 'small'
  free = lambda path: 1000 if small in pathlib.Path(path).parents else 10**9
  with monkeypatch.context() as patch:
    patch.setattr(
      shutil, 'disk_usage', lambda path: usage._replace(free=free(path))
    )
    with pytest.raises(errors.InputError, match='Make room, or') as caught:
      cache.open_cache(FakeSource(), SIZE, small)
    (flag,) = remedies.words(caught.value, r'--config\.data\.data_dir=DIR')
    config, _ = remedies.parse(
      tmp_path,
      '--config.data.source=synthetic',
      flag.replace('DIR', str(tmp_path / 'large')),
    )
    large = pathlib.Path(config.data.data_dir)
    assert_holds(cache.open_cache(FakeSource(), SIZE, large), FakeSource())
  assert_holds(cache.open_cache(FakeSource(), SIZE, small), FakeSource())


def test_index_says_what_shaped_the_arrays(tmp_path):
  data = cache.open_cache(FakeSource(count=2), SIZE, tmp_path)
  (name,) = contents(tmp_path)
  index = json.loads((tmp_path / 'cache' / name / 'index.json').read_text())
  sizes = index.pop('bytes')
  assert index == {
    'source': 'a',
    'image_size': [32, 48],
    'preprocessing': preprocessing.VERSION,
    'image_ids': data.image_ids,
  }
  # A header of 128 bytes, then the pixels.
  assert sizes == {
    'images.npy': 128 + 2 * 32 * 48 * 3,
    'masks.npy': 128 + 2 * 32 * 48,
  }
