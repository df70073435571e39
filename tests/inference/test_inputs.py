"""The names of the images are not held in memory, and nothing gets lost."""

import errno
import os
import pathlib
import re
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from skinseg_jax.data.sources import folder_files
from skinseg_jax.inference import inputs, outputs, table
from skinseg_jax.runtime import errors


def scan(*paths, out, overwrite=False, overlay=False):
  places = outputs.Outputs(out, out / 'overlay' if overlay else None, None)
  done = table.Done(places, overwrite=overwrite)
  return inputs.scan(paths, places, done, overwrite=overwrite)


def make(root, *names):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')
  return root


def test_the_walk_finds_what_the_list_has(tmp_path):
  folder = make(
    tmp_path, 'b.png', 'a.jpg', 'a.gif', 'c.gif', 'p/x.JPG', 'p/x.heic',
    'p/q/y.dcm', 'p/z_superpixels.png', '.hidden/h.png', 'notes.txt', 'r/x.bmp',
  )  # fmt: skip
  (folder / 'p/loop').symlink_to(folder)
  listed, notes = folder_files.find_pictures(folder, leave_out=[folder / 'r'])
  more = []
  walked = dict(
    folder_files.walk_pictures(folder, leave_out=[folder / 'r'], notes=more)
  )
  assert walked == listed
  assert set(listed.values()) == {'a', 'b', 'c', 'p/x', 'p/q/y'}
  assert more == notes
  assert len(notes) == 2


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  folder = make(tmp_path / 'in', 'a.png', 'p/b.png', 'p/q/c.png')
  scandir, locked = os.scandir, [folder / 'p/q']

  def refuse(path):  # Tests may run as root, who may read everything.
    if pathlib.Path(path) in locked:
      raise PermissionError(errno.EACCES, 'Permission denied', str(path))
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  message = f'{locked[0]} cannot be read (Permission denied); make it readable'
  for look in (
    lambda: folder_files.find_pictures(folder),
    lambda: list(folder_files.walk_pictures(folder, notes=[])),
    lambda: scan(folder, out=tmp_path / 'out'),
  ):
    with pytest.raises(errors.InputError, match=re.escape(message)):
      look()
  locked[:] = [folder]
  message = f'{folder} cannot be read (Permission denied)'
  with pytest.raises(errors.InputError, match=re.escape(message)):
    scan(folder, out=tmp_path / 'out')


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
  def peak(folders):
    for i in range(folders):
      make(tmp_path / f'{folders}/f{i:03}', *(f'{j:03}.jpg' for j in range(50)))
    tracemalloc.start()
    found = scan(tmp_path / str(folders), out=tmp_path / 'out')
    assert sum(1 for _ in found) == found.count == 50 * folders
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most

  peak(2)  # Whatever is allocated once.
  few, many = peak(2), peak(60)
  # 2,900 files more, of which a path and a name alone take over 200 bytes.
  assert (many - few) / 2900 < 100


@pytest.mark.parametrize('overlay', [False, True])
def test_a_file_found_on_several_ways_is_one_image(tmp_path, overlay):
  folder = make(tmp_path / 'in', 'x.png', 'y.png', 'p/z.png')
  found = scan(
    folder, folder / 'x.png', folder / 'p/../y.png', folder,
    out=tmp_path / 'out', overlay=overlay,
  )  # fmt: skip
  assert found.count == 3
  assert sorted(file.name for file in found) == ['p/z', 'x', 'y']
  assert len(list(found)) == 3  # It can be walked again.


def test_an_input_that_links_to_an_output_is_not_written_over(tmp_path):
  out = make(tmp_path / 'out', 'x.png')
  (tmp_path / 'in').mkdir()
  (tmp_path / 'in/x.png').symlink_to(out / 'x.png')
  with pytest.raises(errors.InputError, match='over input images'):
    scan(tmp_path / 'in', out=out, overwrite=True)


def test_a_table_that_is_there_is_not_written_over(tmp_path):
  folder, out = (
    make(tmp_path / 'in', 'x.png'),
    make(tmp_path / 'out', 'predictions.csv'),
  )
  with pytest.raises(errors.InputError, match='give --overwrite') as caught:
    scan(folder, out=out)
  assert 'predictions.csv' in str(caught.value)
  assert scan(folder, out=out, overwrite=True).count == 1


def test_of_many_files_in_the_way_the_first_are_named(tmp_path):
  names = [f'{i:02}.png' for i in range(30)]
  folder, out = make(tmp_path / 'in', *names), make(tmp_path / 'out', *names)
  with pytest.raises(errors.InputError) as caught:
    scan(folder, out=out)
  lines = str(caught.value).splitlines()
  assert lines[1].strip() == str(out / '00.png')
  assert len(lines) == 22
  assert lines[-1] == '  ... and 10 more'


def test_only_whole_files_count_as_done(tmp_path):
  places = outputs.Outputs(tmp_path, None, tmp_path / 'probability')
  mask = np.zeros((9, 7), bool)
  places.write('p/x', mask, mask.astype(np.float32), None)
  assert places.complete('p/x')
  assert not places.complete('p/y')
  for path in places.targets('p/x'):
    data = path.read_bytes()
    with Image.open(path) as image:
      assert image.size == (7, 9)
    for broken in (b'', data[:-1], data[:20], bytes(len(data))):
      path.write_bytes(broken)
      assert not places.complete('p/x')
    path.write_bytes(data)
  assert places.complete('p/x')
