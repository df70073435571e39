"""HAM10000 as two copies on Kaggle have it, generated and real."""

import csv
import pathlib
import zipfile

import fake_ham10000
import numpy as np
import pytest

from skinseg_jax import config as config_lib
from skinseg_jax.data import preprocessing, splits
from skinseg_jax.data.sources import ham10000_files
from skinseg_jax.runtime import errors

_CLASSES = ('MEL', 'NV', 'BCC', 'AKIEC', 'BKL', 'DF', 'VASC')


def write_classes(path: pathlib.Path, rows) -> None:
  """The table of the second layout, from rows of the official one."""
  with path.open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['image', *_CLASSES])
    for row in sorted(rows, key=lambda row: row['image_id']):
      values = [float(row['dx'] == name.lower()) for name in _CLASSES]
      writer.writerow([row['image_id'], *values])


def write_second(root: pathlib.Path, images) -> pathlib.Path:
  for name in ('images', 'masks'):
    (root / name).mkdir(parents=True)
  for image in images:
    (root / f'images/{image.image_id}.jpg').write_bytes(image.image)
    path = root / f'masks/{image.image_id}_segmentation.png'
    path.write_bytes(image.mask)
  write_classes(root / 'GroundTruth.csv', [image.row for image in images])
  return root


def test_second_layout(tmp_path, images, prepare):
  source = prepare(write_second(tmp_path / 'raw', images))
  assert source.image_ids == [image.image_id for image in images]
  for index, image in enumerate(images):
    np.testing.assert_array_equal(source[index]['mask'], image.lesion)
  assert [row['dx'] for row in source.metadata] == [
    image.row['dx'] for image in images
  ]
  assert {row['lesion_id'] for row in source.metadata} == {''}


def test_split_by_lesion_needs_the_official_table(tmp_path, images, prepare):
  raw = write_second(tmp_path / 'raw', images)
  source = prepare(raw)
  config = config_lib.DataConfig(split='lesion', validation_fraction=0.3)
  with pytest.raises(errors.InputError, match='no lesion_id') as caught:
    splits.make_split(config, source.metadata)
  # Both remedies: another split, or the table and a new folder.
  assert '--config.data.split=random' in str(caught.value)
  config.split = 'random'
  assert len(splits.make_split(config, source.metadata).validation) == 2
  fake_ham10000.write_metadata(raw, images)
  with pytest.raises(errors.InputError, match='was made from other files'):
    prepare(raw)
  (tmp_path / 'data').rename(tmp_path / 'old')
  source = prepare(raw)
  config.split = 'lesion'
  split = splits.make_split(config, source.metadata)
  assert splits.report(split, source.metadata).leaked_images == 0


@pytest.mark.parametrize('parts', [('lower',), ('upper', 'lower')])
def test_first_layout_repeats_its_images(tmp_path, images, prepare, parts):
  raw = fake_ham10000.write_folders(
    tmp_path / 'raw', images, mask_folder='segmentations'
  )
  for path in sorted(raw.glob('HAM10000_images_part_*')):
    lower = raw / path.name.lower()
    lower.mkdir()
    for file in path.iterdir():
      (lower / file.name).write_bytes(file.read_bytes())
      if parts == ('lower',):
        file.unlink()
    if parts == ('lower',):
      path.rmdir()
  assert prepare(raw).image_ids == [image.image_id for image in images]


def test_what_a_folder_lacks_is_named(tmp_path):
  (tmp_path / 'images').mkdir()
  with pytest.raises(errors.InputError) as caught:
    ham10000_files.find(tmp_path)
  message = str(caught.value)
  assert 'HAM10000_metadata.csv' in message
  assert 'GroundTruth.csv' in message
  assert 'leave --config' not in message
  assert 'leave data.raw_dir out' in message


@pytest.mark.ham10000
@pytest.mark.slow
def test_the_paper_on_the_second_layout(ham10000_dir, tmp_path):
  """Ids, classes and lesion pixels; images stay empty files."""
  for name in ('images', 'masks'):
    (tmp_path / name).mkdir()
  mask_zip = ham10000_dir / 'HAM10000_segmentations_lesion_tschandl.zip'
  with zipfile.ZipFile(mask_zip) as masks:
    names = [
      name
      for name in masks.namelist()
      if name.endswith('.png') and not name.startswith('__MACOSX')
    ]
    for name in names:
      file = pathlib.PurePosixPath(name).name
      (tmp_path / 'masks' / file).write_bytes(masks.read(name))
      image = file.replace('_segmentation.png', '.jpg')
      (tmp_path / 'images' / image).touch()
  with (ham10000_dir / 'HAM10000_metadata.csv').open() as file:
    write_classes(tmp_path / 'GroundTruth.csv', csv.DictReader(file))
  raw = ham10000_files.list_files(ham10000_files.find(tmp_path))
  assert not raw.unreadable + raw.problems
  metadata = [raw.rows[name] for name in sorted(raw.images)]
  assert sum(row['dx'] == 'nv' for row in metadata) == 6705
  with pytest.raises(errors.InputError, match='no lesion_id'):
    splits.make_split(config_lib.DataConfig(split='lesion'), metadata)
  split = splits.make_split(config_lib.DataConfig(split='paper'), metadata)
  assert (len(split.train), len(split.validation)) == (8016, 1999)
  pixels = 0
  for image_id in split.validation:
    mask = preprocessing.decode_mask(raw.masks[image_id].read(), image_id)
    pixels += int(preprocessing.resize_mask(mask, (224, 224)).sum())
  assert pixels == 24_727_451
