"""Bad input gives one message that names it, and exit code 2."""

import csv
import io
import pathlib
import sys
import zipfile
import zlib
from unittest import mock

import fake_ham10000
import numpy as np
import pytest
from absl import flags as flags_lib
from absl.testing import flagsaver
from PIL import Image

from skinseg_jax import main
from skinseg_jax.runtime import errors

_CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'


def _end(capsys, *words):
  """Text on stderr of the program, which must end with exit code 2."""
  argv = ['main', *map(str, words)]
  with (
    flagsaver.flagsaver(),
    mock.patch.object(sys, 'argv', argv),  # ml_collections reads sys.argv.
  ):
    flags_lib.FLAGS['config'].unparse()  # Other tests may have given one.
    with pytest.raises(SystemExit) as caught:
      errors.exit_with_message(main.run, argv)
  assert caught.value.code == 2
  message = capsys.readouterr().err
  assert message.count('error: ') == 1
  assert 'Traceback' not in message
  return message[message.index('error: ') :]


@pytest.mark.parametrize(
  ('flags', 'expected'),
  [
    ([], '--config is missing'),
    (['--config', 'nowhere.py'], 'nowhere.py: no such file'),
    (['--config=configs/quickstart.py', 'extra'], 'unknown arguments: extra'),
    (['--nonsense'], "Unknown command line flag 'nonsense'"),
  ],
)
def test_flags(capsys, flags, expected):
  assert expected in _end(capsys, *flags)


@pytest.mark.parametrize(
  ('override', 'expected'),
  [
    ('data.image_sise=(32,32)', 'data.image_sise (nearest: data.image_size)'),
    ('epochs=3', 'epochs (nearest: train.epochs)'),
    ('data.image_size=(100,112)', 'data.image_size: got (100, 112)'),
    ('train.epochs=many', '--config.train.epochs=many'),
    ('data.split=paper', "data.split: got 'paper'"),
  ],
)
def test_config_fields(capsys, override, expected):
  assert expected in _end(
    capsys, '--config', _CONFIGS / 'quickstart.py', f'--config.{override}'
  )


def test_batch_larger_than_the_data_set(capsys, tmp_path):
  assert 'train.batch_size is 64, but there are only' in _end(
    capsys,
    '--config', _CONFIGS / 'quickstart.py',
    '--workdir', tmp_path / 'run',
    f'--config.data.data_dir={tmp_path / "data"}',
    '--config.data.image_size=(16,16)',
    '--config.data.num_synthetic=40',
    '--config.train.batch_size=64',
  )  # fmt: skip


@pytest.fixture
def images():
  return fake_ham10000.make_images(6)


@pytest.fixture
def raw_dir(tmp_path, images):
  directory = tmp_path / 'raw'
  fake_ham10000.write_zips(directory, images)
  return directory


def _rewrite(path, change):
  """Rewrites a zip after `change` is applied to its dict of name to bytes."""
  with zipfile.ZipFile(path) as file:
    members = {name: file.read(name) for name in file.namelist()}
  change(members)
  with zipfile.ZipFile(path, 'w') as file:
    for name, data in members.items():
      file.writestr(name, data)


def _png(array):
  return fake_ham10000.encode(Image.fromarray(array), 'PNG')


def _huge_png():
  """A PNG of 20,000 x 20,000 black pixels in 0.4 MB."""
  out = io.BytesIO()
  Image.new('L', (1, 1)).save(out, 'PNG')
  data = bytearray(out.getvalue())
  data[16:24] = (20_000).to_bytes(4, 'big') * 2
  data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, 'big')
  return bytes(data)


def _set(suffix, data):
  def change(members):
    name = next(n for n in members if n.endswith(suffix))
    members[name] = data

  return change


def _drop(suffix):
  def change(members):
    del members[next(n for n in members if n.endswith(suffix))]

  return change


_IMAGES_1 = 'HAM10000_images_part_1.zip'
_MASKS = 'HAM10000_segmentations_lesion_tschandl.zip'
_GREY = np.tile(np.arange(60, dtype=np.uint8), (45, 1))


def _drop_row(directory):
  path = directory / 'HAM10000_metadata.csv'
  rows = list(csv.reader(path.read_text().splitlines()))
  with path.open('w', newline='') as file:
    csv.writer(file).writerows(r for r in rows if 'ISIC_0024307' not in r)


_FAULTS = {
  'zip missing': (lambda d: (d / _MASKS).unlink(), _MASKS.split('.')[0]),
  'truncated zip': (
    lambda d: (d / _IMAGES_1).write_bytes((d / _IMAGES_1).read_bytes()[:-200]),
    _IMAGES_1,
  ),
  'image without mask': (
    lambda d: _rewrite(d / _MASKS, _drop('ISIC_0024307_segmentation.png')),
    'ISIC_0024307',
  ),
  'mask without image': (
    lambda d: _rewrite(d / _IMAGES_1, _drop('ISIC_0024306.jpg')),
    'ISIC_0024306',
  ),
  'corrupt JPEG': (
    lambda d: _rewrite(
      d / _IMAGES_1, _set('ISIC_0024306.jpg', b'\xff\xd8\xff no picture')
    ),
    'ISIC_0024306.jpg',
  ),
  'mask of another size': (
    lambda d: _rewrite(
      d / _MASKS,
      _set('ISIC_0024306_segmentation.png', _png(_GREY[:40] * 0)),
    ),
    'ISIC_0024306',
  ),
  'grey mask': (
    lambda d: _rewrite(
      d / _MASKS, _set('ISIC_0024306_segmentation.png', _png(_GREY))
    ),
    'mask_threshold',
  ),
  'metadata row missing': (_drop_row, 'ISIC_0024307'),
  'entry that leaves the folder': (
    lambda d: _rewrite(
      d / _IMAGES_1, lambda m: m.update({'../ISIC_0024399.jpg': b'x'})
    ),
    '../ISIC_0024399.jpg',
  ),
  'more than 100 megapixels': (
    lambda d: _rewrite(
      d / _MASKS, _set('ISIC_0024306_segmentation.png', _huge_png())
    ),
    'megapixels',
  ),
}


@pytest.mark.parametrize('fault', _FAULTS)
def test_ham10000_files(capsys, tmp_path, raw_dir, fault):
  damage, expected = _FAULTS[fault]
  damage(raw_dir)
  assert expected in _end(
    capsys,
    '--config', _CONFIGS / 'ham10000_small.py',
    '--workdir', tmp_path / 'run',
    f'--config.data.raw_dir={raw_dir}',
    f'--config.data.data_dir={tmp_path / "data"}',
  )  # fmt: skip
  assert not (tmp_path / 'run').exists()


def test_no_such_directory(capsys, tmp_path):
  assert str(tmp_path / 'nowhere') in _end(
    capsys,
    '--config', _CONFIGS / 'ham10000_small.py',
    f'--config.data.raw_dir={tmp_path / "nowhere"}',
    f'--config.data.data_dir={tmp_path / "data"}',
  )  # fmt: skip
