"""Every fault of the raw files ends in one message that names the file."""

import io
import pathlib
import re
import shutil
import struct
import zipfile

import fake_ham10000
import numpy as np
import pytest
from PIL import Image

from skinseg_jax.data.sources import ham10000_checks, ham10000_files
from skinseg_jax.runtime import errors

MASKS = fake_ham10000.MASK_FOLDER
# Seven images in two zips: the even ones are in part 1, the odd ones in part 2.
FIRST, SECOND, THIRD = 'ISIC_0024306', 'ISIC_0024307', 'ISIC_0024308'


def verify(raw_dir: pathlib.Path, mask_threshold: int = 0):
  raw = ham10000_files.list_files(ham10000_files.find(raw_dir))
  return raw, ham10000_checks.verify(raw, mask_threshold=mask_threshold)


def message_of(raw_dir: pathlib.Path) -> str:
  with pytest.raises(errors.InputError) as caught:
    verify(raw_dir)
  return str(caught.value)


def add_entry(path: pathlib.Path, name: str, data: bytes) -> None:
  with zipfile.ZipFile(path, 'a') as file:
    file.writestr(name, data)


def rewrite(path: pathlib.Path, change) -> None:
  """Writes a zip again; `change(name, data)` gives new data or None."""
  with zipfile.ZipFile(path) as file:
    entries = [(name, file.read(name)) for name in file.namelist()]
  with zipfile.ZipFile(path, 'w') as file:
    for name, data in entries:
      if (data := change(name, data)) is not None:
        file.writestr(name, data)


def replace_image(raw_dir, image_id, data, part=1):
  rewrite(
    raw_dir / f'HAM10000_images_part_{part}.zip',
    lambda name, old: data if image_id in name else old,
  )


def replace_mask(raw_dir, image_id, data):
  rewrite(
    raw_dir / f'{MASKS}.zip',
    lambda name, old: data if name.endswith(f'/{image_id}_segmentation.png')
    else old,
  )  # fmt: skip


def set_jpeg_size(data: bytes, height: int, width: int) -> bytes:
  """Claims another size: FFC0, length (2), precision (1), height, width."""
  at = data.index(b'\xff\xc0') + 5
  return data[:at] + struct.pack('>HH', height, width) + data[at + 4 :]


def test_lists_what_is_there(raw_dir, images):
  raw, verified = verify(raw_dir)
  assert sorted(raw.images) == [image.image_id for image in images]
  for image in images:
    assert raw.images[image.image_id].read() == image.image
    assert raw.masks[image.image_id].read() == image.mask
    assert raw.rows[image.image_id] == image.row
  assert verified.grey_masks == []


def test_all_layouts_are_the_same(tmp_path, raw_dir, images):
  write_folders = fake_ham10000.write_folders
  unpacked = write_folders(tmp_path / 'unpacked', images)
  kaggle = write_folders(tmp_path / 'kaggle', images, mask_folder='masks')
  parts = fake_ham10000.write_zips(tmp_path / 'parts', images, parts=5)
  digests = set()
  for directory in (raw_dir, unpacked, kaggle, parts):
    raw, verified = verify(directory)
    digests.add((raw.listing_digest(), verified.content_digest))
  assert len(digests) == 1


def test_any_change_of_content_changes_the_digest(tmp_path, images):
  digests = set()
  for change in ('none', 'image', 'mask', 'row'):
    changed = fake_ham10000.make_images()
    if change == 'image':
      changed[4].image += b'\0'  # Pillow ignores what follows the image.
    elif change == 'mask':
      changed[4].mask += b'\0'
    elif change == 'row':
      changed[4].row['age'] = '41.0'
    directory = fake_ham10000.write_zips(tmp_path / change, changed)
    raw, verified = verify(directory)
    digests |= {raw.listing_digest(), verified.content_digest}
  assert len(digests) == 8


def test_zip_goes_before_the_folder_it_was_unpacked_to(tmp_path, images):
  fake_ham10000.write_folders(tmp_path, images)
  fake_ham10000.write_zips(tmp_path, images)
  paths = ham10000_files.find(tmp_path)
  names = [*paths.images, *paths.masks]
  assert names == [
    'HAM10000_images_part_1.zip', 'HAM10000_images_part_2.zip',
    f'{MASKS}.zip',
  ]  # fmt: skip


def test_kaggle_csv_without_dataset(raw_dir, images):
  for image in images:
    del image.row['dataset']
  fake_ham10000.write_metadata(raw_dir, images)
  raw, _ = verify(raw_dir)
  assert raw.rows[FIRST] == {**images[0].row, 'dataset': ''}


def test_rows_of_other_images_do_no_harm(raw_dir):
  other = fake_ham10000.make_images(9)
  fake_ham10000.write_metadata(raw_dir, other)
  assert len(verify(raw_dir)[0].images) == 7


def test_no_such_directory(tmp_path):
  message = message_of(tmp_path / 'nowhere')
  assert re.search('no such directory: .*nowhere.*data.raw_dir', message)


@pytest.mark.parametrize(
  ('pattern', 'expected'),
  [
    ('HAM10000_images*', 'HAM10000_images_part_*.zip'),
    ('HAM10000_seg*', f'{MASKS}.zip'),
    ('*.csv', 'HAM10000_metadata.csv'),
  ],
)
def test_missing_file(raw_dir, pattern, expected):
  for path in raw_dir.glob(pattern):
    path.unlink()
  message = message_of(raw_dir)
  assert expected in message
  assert ham10000_files.WHERE_TO_GET in message


def test_missing_files_are_named_together(tmp_path):
  message = message_of(tmp_path)
  for name in ('HAM10000_images_part', MASKS, 'HAM10000_metadata.csv'):
    assert name in message


def test_missing_part(raw_dir):
  (raw_dir / 'HAM10000_images_part_2.zip').unlink()
  message = message_of(raw_dir)
  assert '3 masks have no image' in message
  assert 'Found: HAM10000_images_part_1.zip' in message
  assert f'{SECOND}_segmentation.png: no image' in message


def truncate_zip(raw_dir):
  path = raw_dir / 'HAM10000_images_part_1.zip'
  path.write_bytes(path.read_bytes()[:-100])


def corrupt_zip_entry(raw_dir):
  path = raw_dir / 'HAM10000_images_part_1.zip'
  data = bytearray(path.read_bytes())
  data[500] ^= 1  # Within the first image: its CRC no longer fits.
  path.write_bytes(data)


def drop_mask(raw_dir):
  replace_mask(raw_dir, THIRD, None)


def drop_image(raw_dir):
  replace_image(raw_dir, THIRD, None)


def cut_image(raw_dir):
  image = fake_ham10000.make_images()[2].image
  replace_image(raw_dir, THIRD, image[: len(image) // 2])


def no_image(raw_dir):
  replace_image(raw_dir, THIRD, b'<html>not found</html>')


def mask_of_other_size(raw_dir):
  replace_mask(raw_dir, THIRD, fake_ham10000.grey_png(255 * np.eye(45, 59)))


def grey_mask(raw_dir):
  values = np.tile(np.linspace(0, 255, 60), (45, 1))
  replace_mask(raw_dir, THIRD, fake_ham10000.grey_png(values))


def image_bomb(raw_dir):
  image = fake_ham10000.make_images()[2].image
  replace_image(raw_dir, THIRD, set_jpeg_size(image, 10001, 10000))


def mask_bomb(raw_dir):
  buffer = io.BytesIO()
  Image.new('1', (10000, 10001)).save(buffer, 'PNG')
  replace_mask(raw_dir, THIRD, buffer.getvalue())


def drop_row(raw_dir):
  images = fake_ham10000.make_images()
  fake_ham10000.write_metadata(raw_dir, images[:2] + images[3:])


def row_twice(raw_dir):
  images = fake_ham10000.make_images()
  fake_ham10000.write_metadata(raw_dir, [*images, images[2]])


def row_without_lesion(raw_dir):
  images = fake_ham10000.make_images()
  images[2].row['lesion_id'] = ''
  fake_ham10000.write_metadata(raw_dir, images)


def short_row(raw_dir):
  with (raw_dir / 'HAM10000_metadata.csv').open('a') as file:
    file.write('HAM_1,ISIC_1,nv\n')


def no_column(raw_dir):
  path = raw_dir / 'HAM10000_metadata.csv'
  path.write_text(path.read_text().replace('lesion_id', 'lesion'))


def binary_csv(raw_dir):
  (raw_dir / 'HAM10000_metadata.csv').write_bytes(b'\xff\xfe\x00')


def leave_by_parent(raw_dir):
  add_entry(raw_dir / f'{MASKS}.zip', '../evil_segmentation.png', b'')


def leave_by_root(raw_dir):
  add_entry(raw_dir / f'{MASKS}.zip', '/tmp/evil_segmentation.png', b'')


def leave_by_drive(raw_dir):
  add_entry(raw_dir / f'{MASKS}.zip', 'C:\\evil_segmentation.png', b'')


def image_twice(raw_dir):
  add_entry(raw_dir / 'HAM10000_images_part_2.zip', f'x/{THIRD}.jpg', b'')


@pytest.mark.parametrize(
  ('damage', 'expected'),
  [
    (truncate_zip, r'HAM10000_images_part_1.zip: not a whole zip file'),
    (corrupt_zip_entry, rf'part_1.zip/{FIRST}.jpg: unreadable .*CRC'),
    (drop_mask, rf'{THIRD}.jpg: no mask {THIRD}_segmentation.png'),
    (drop_image, rf'{THIRD}_segmentation.png: no image'),
    (cut_image, rf'part_1.zip/{THIRD}.jpg'),
    (no_image, rf'part_1.zip/{THIRD}.jpg'),
    (mask_of_other_size, rf'{THIRD}_seg.*: 59 x 45 pixels.* has 60 x 45'),
    (grey_mask, rf'{THIRD}_segmentation.png.*mask_threshold'),
    (image_bomb, rf'{THIRD}.jpg.*100'),
    (mask_bomb, rf'{THIRD}_segmentation.png.*100'),
    (drop_row, rf'HAM10000_metadata.csv: no row for {THIRD}'),
    (row_twice, rf'HAM10000_metadata.csv: row 7 has {THIRD} again'),
    (row_without_lesion, r'HAM10000_metadata.csv: row 6 has no lesion_id'),
    (short_row, r'HAM10000_metadata.csv: row 9 has 3 values for 8 columns'),
    (no_column, r'HAM10000_metadata.csv: no column lesion_id among lesion,'),
    (binary_csv, r'HAM10000_metadata.csv: unreadable'),
    (leave_by_parent, r'\.zip/\.\./evil_segmentation.png: a name that leads'),
    (leave_by_root, r'\.zip//tmp/evil_segmentation.png: a name that leads'),
    (leave_by_drive, r'C:.evil_segmentation.png: a name that leads'),
    (image_twice, rf'part_2.zip/x/{THIRD}.jpg: {THIRD} again, after .*part_1'),
  ],
  ids=lambda value: getattr(value, '__name__', ''),
)
def test_one_fault_is_named_and_no_other(raw_dir, damage, expected):
  damage(raw_dir)
  message = message_of(raw_dir)
  assert re.search(expected, message), message
  # 'row_without_lesion' leaves an image without a row; all else is one fault.
  most = 2 if damage in (drop_image, row_without_lesion) else 1
  assert f'problems: {most}\n' in message


def test_all_faults_are_listed_at_once(raw_dir):
  for damage in (grey_mask, drop_row, leave_by_root, corrupt_zip_entry):
    damage(raw_dir)
  replace_image(raw_dir, SECOND, b'none', part=2)
  message = message_of(raw_dir)
  for name in (
    f'{THIRD}_segmentation.png', f'no row for {THIRD}', '/tmp/evil',
    f'{FIRST}.jpg', f'{SECOND}.jpg',
  ):  # fmt: skip
    assert name in message
  assert 'problems: 5\n' in message


def test_unreadable_zip_does_not_hide_other_faults(raw_dir):
  cut_image(raw_dir)
  path = raw_dir / 'HAM10000_images_part_2.zip'
  path.write_bytes(path.read_bytes()[:50])
  message = message_of(raw_dir)
  assert 'HAM10000_images_part_2.zip: not a whole zip' in message
  assert f'{THIRD}.jpg' in message
  assert 'problems: 2\n' in message  # Its images are not said to be missing.


def test_threshold_allows_grey_masks(raw_dir):
  grey_mask(raw_dir)
  _, verified = verify(raw_dir, mask_threshold=127)
  assert verified.grey_masks == [THIRD]


def test_corrupt_files_in_folders(tmp_path, images):
  fake_ham10000.write_folders(tmp_path, images)
  path = tmp_path / 'HAM10000_images_part_1' / f'{THIRD}.jpg'
  path.write_bytes(images[2].image[:300])
  (tmp_path / 'HAM10000_images_part_2' / f'._{THIRD}.jpg').write_bytes(b'')
  shutil.copy(path, tmp_path / 'HAM10000_images_part_2')
  message = message_of(tmp_path)
  assert f'HAM10000_images_part_1/{THIRD}.jpg' in message
  assert f'HAM10000_images_part_2/{THIRD}.jpg: {THIRD} again' in message
  assert 'problems: 2\n' in message
