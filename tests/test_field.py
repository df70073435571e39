"""Folders as people send them, through the commands; and remedies followed."""

import pathlib
import re
import shlex
import sys
from unittest import mock

import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image

from skinseg_jax import config as config_lib
from skinseg_jax import evaluate, main
from skinseg_jax.data import cache, splits
from skinseg_jax.data.sources import catalog
from skinseg_jax.evaluation import result_files
from skinseg_jax.runtime import errors

SIZE = (64, 64)
# The model's size is half of that: each pixel of a mask stands for four.
SHARE = 4


def lesion(index: int) -> np.ndarray:
  """A rectangle with even corners: nearest neighbours keep its share."""
  mask = np.zeros(SIZE, bool)
  mask[10 : 20 + 4 * index, 12:40] = True
  return mask


def save(array, path: pathlib.Path) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  image = array if isinstance(array, Image.Image) else Image.fromarray(array)
  image.save(path)


def picture(index: int) -> np.ndarray:
  grey = np.where(lesion(index), 60, 200 + index).astype(np.uint8)
  return np.repeat(grey[..., None], 3, axis=2)


def white(mask) -> np.ndarray:
  return mask.astype(np.uint8) * np.uint8(255)


def soft(mask) -> np.ndarray:
  """Grey at the edges, as resizing with interpolation leaves it."""
  grey = white(mask)
  grey[8, 12:40], grey[40, 50] = 90, 7
  return grey


def palette(colour):
  def make(mask):
    image = Image.fromarray(mask.astype(np.uint8), 'P')
    image.putpalette([0, 0, 0, *colour])
    return image

  return make


def coloured(colour):
  return lambda mask: (mask[..., None] * np.uint8(colour)).astype(np.uint8)


# Name of the mask of image i, and its content.
KINDS = {
  'capital ending': ('i{}_Segmentation.png', white),
  'all capitals': ('i{}_MASK.PNG', white),
  'gif': ('i{}_mask.gif', white),
  'gif without ending': ('i{}.gif', white),
  'red palette': ('i{}.png', palette((255, 0, 0))),
  'green palette': ('i{}_gt.png', palette((0, 128, 0))),
  'red on black': ('i{}.png', coloured((255, 0, 0))),
  'blue on black': ('i{}.bmp', coloured((0, 0, 255))),
  'float': ('i{}.tif', lambda mask: mask.astype(np.float32)),
  'nested': ('p{}/i.png', white),
  'one stem': ('p{}/photo_label.png', white),
}


def write(root: pathlib.Path, kind: str) -> None:
  name, make = KINDS[kind]
  image = {'nested': 'p{}/i.jpg', 'one stem': 'p{}/photo.jpg'}
  for index in range(3):
    path = image.get(kind, 'i{}.jpg').format(index)
    save(picture(index), root / 'images' / path)
    save(make(lesion(index)), root / 'masks' / name.format(index))


def scored(tiny_run, root, *flags) -> list[int]:
  """Lesion pixels of each image, at the model's size."""
  workdir = tiny_run[0]
  argv = [
    'evaluate', '--workdir', workdir, '--images', root / 'images', '--masks',
    root / 'masks', '--name', root.name, '--skip_report',
    '--skip_native_size', '--skip_training_side', *flags,
  ]  # fmt: skip
  evaluate.main([str(arg) for arg in argv])
  rows = result_files.read(workdir, root.name).rows
  return [int(row['tp']) + int(row['fn']) for row in rows]


EXPECTED = [int(lesion(index).sum()) // SHARE for index in range(3)]


@pytest.mark.parametrize('kind', KINDS)
def test_masks_of_the_field_are_scored(tiny_run, tmp_path, kind):
  write(tmp_path, kind)
  assert scored(tiny_run, tmp_path) == EXPECTED


def test_float_masks_with_a_threshold(tiny_run, tmp_path):
  write(tmp_path, 'float')
  assert scored(tiny_run, tmp_path, '--mask_threshold', 127) == EXPECTED


@pytest.mark.parametrize('kind', ['nested', 'gif', 'red palette'])
def test_training_reads_them(tmp_path, kind):
  write(tmp_path, kind)
  config = config_lib.Config()
  config.data.source, config.data.split = 'folder', 'random'
  config.data.images_dir = str(tmp_path / 'images')
  config.data.masks_dir = str(tmp_path / 'masks')
  source = catalog.open_source(config.data)
  split = splits.make_split(config.data, source.metadata)
  assert (len(split.train), len(split.validation)) == (2, 1)
  splits.write_split(split, tmp_path / 'split.csv')
  assert splits.read_split(tmp_path / 'split.csv') == split
  data = cache.open_cache(source, (32, 32), tmp_path / 'data')
  assert [int(mask.sum()) for mask in data.masks] == EXPECTED


@pytest.mark.parametrize(
  'table',
  [
    b'\xef\xbb\xbfimage_id;dx;age\r\ni0;nv;30\r\ni1;mel;40\r\ni2;nv;50\r\n',
    b'image_name,diagnosis\ni0,nv\ni1,mel\ni2,nv\ni7,nv\ni8,bkl\n',
    b'filename\tdx\ni0.jpg\tnv\ni1.JPG\tmel\ni2.jpeg\tnv\n',
  ],
)
def test_tables_of_the_field(tiny_run, tmp_path, table):
  write(tmp_path, 'capital ending')
  (tmp_path / 'meta.csv').write_bytes(table)
  scored(tiny_run, tmp_path, '--metadata', tmp_path / 'meta.csv')
  rows = result_files.read(tiny_run[0], tmp_path.name).rows
  assert [row['dx'] for row in rows] == ['nv', 'mel', 'nv']


def test_superpixels_are_left_out(tiny_run, tmp_path, capsys):
  write(tmp_path, 'capital ending')
  for index in range(3):
    save(picture(0), tmp_path / f'images/i{index}_superpixels.png')
  assert scored(tiny_run, tmp_path) == EXPECTED
  assert capsys.readouterr().out.count('3 *_superpixels files') == 1


# --- Remedies: applied as the message says them ------------------------------


def remedy(error: Exception, pattern: str) -> list[str]:
  """The words of the message that match, as a shell splits them."""
  return shlex.split(re.search(pattern, str(error))[0])


def test_remedy_of_soft_masks_for_the_command(tiny_run, tmp_path):
  write(tmp_path, 'capital ending')
  for index, path in enumerate(sorted((tmp_path / 'masks').iterdir())):
    save(soft(lesion(index)), path)
  with pytest.raises(errors.InputError) as caught:
    scored(tiny_run, tmp_path)
  assert 'config' not in str(caught.value)
  flags = remedy(caught.value, r'--mask_threshold \d+')
  assert scored(tiny_run, tmp_path, *flags) == EXPECTED


def test_remedy_of_endings_for_the_command(tiny_run, tmp_path):
  write(tmp_path, 'capital ending')
  for path in sorted((tmp_path / 'masks').iterdir()):
    path.rename(path.with_name(path.name.replace('_Segmentation', '_a')))
  with pytest.raises(errors.InputError) as caught:
    scored(tiny_run, tmp_path)
  flags = remedy(caught.value, r'--mask_suffixes [\w,]+')
  assert scored(tiny_run, tmp_path, *flags) == EXPECTED


def test_inverted_masks_for_the_command(tiny_run, tmp_path):
  write(tmp_path, 'capital ending')
  for index, path in enumerate(sorted((tmp_path / 'masks').iterdir())):
    save(white(~lesion(index)), path)
  assert scored(tiny_run, tmp_path, '--mask_invert') == EXPECTED


def parse(monkeypatch, tmp_path, *flags) -> tuple:
  """What the training command reads from its command line."""
  (tmp_path / 'mine.py').write_text(
    'from skinseg_jax import config\n\n\ndef get_config():\n'
    '  return config.Config()\n'
  )
  monkeypatch.setenv('HOME', str(tmp_path))
  argv = ['main', f'--config={tmp_path}/mine.py', *map(str, flags)]
  with flagsaver.flagsaver(), mock.patch.object(sys, 'argv', argv):
    return main.parse(argv)


def test_home_is_expanded_in_every_path(monkeypatch, tmp_path):
  names = ('raw_dir', 'data_dir', 'images_dir', 'masks_dir', 'metadata_csv')
  config, workdir = parse(
    monkeypatch,
    tmp_path,
    '--workdir=~/run',
    '--config.data.split=~/split.csv',
    *(f'--config.data.{name}=~/{name}' for name in names),
  )
  assert workdir == tmp_path / 'run'
  assert config.data.split == f'{tmp_path}/split.csv'
  for name in names:
    assert getattr(config.data, name) == f'{tmp_path}/{name}'


def test_home_is_expanded_in_flags_of_commands(monkeypatch, tiny_run, tmp_path):
  write(tmp_path, 'gif')
  monkeypatch.setenv('HOME', str(tmp_path))
  evaluate.main(
    ['evaluate', f'--workdir={tiny_run[0]}', '--images=~/images',
     '--masks=~/masks', '--name=home', '--skip_report', '--skip_native_size',
     '--skip_training_side']
  )  # fmt: skip
  assert len(result_files.read(tiny_run[0], 'home').rows) == 3


@pytest.mark.parametrize('size', ['128', '128,128', '(128, 128)'])
def test_one_number_is_a_square(monkeypatch, tmp_path, size):
  config, _ = parse(monkeypatch, tmp_path, f'--config.data.image_size={size}')
  assert config.data.image_size == (128, 128)


def test_a_size_that_does_not_fit_proposes_one_that_does(monkeypatch, tmp_path):
  with pytest.raises(errors.InputError) as caught:
    parse(monkeypatch, tmp_path, '--config.data.image_size=100')
  (size,) = re.findall(r'such as (\(.*?\))', str(caught.value))
  config, _ = parse(monkeypatch, tmp_path, f'--config.data.image_size={size}')
  assert config.data.image_size == (96, 96)


def test_remedy_of_soft_masks_for_training(monkeypatch, tmp_path):
  write(tmp_path, 'capital ending')
  for index, path in enumerate(sorted((tmp_path / 'masks').iterdir())):
    save(soft(lesion(index)), path)
  flags = [
    '--config.data.source=folder',
    f'--config.data.images_dir={tmp_path}/images',
    f'--config.data.masks_dir={tmp_path}/masks',
    '--config.data.image_size=32',
  ]

  def masks(*more):
    config, _ = parse(monkeypatch, tmp_path, *flags, *more)
    source = catalog.open_source(config.data)
    data = cache.open_cache(source, config.data.image_size, tmp_path / 'data')
    return [int(mask.sum()) for mask in data.masks]

  with pytest.raises(errors.InputError) as caught:
    masks()
  pattern = r'--config\.data\.mask_threshold=\d+'
  assert masks(*remedy(caught.value, pattern)) == EXPECTED
