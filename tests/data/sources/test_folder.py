"""Folders are paired by stem, and everything that does not fit is listed."""

import hashlib
import io
import json
import pathlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from skinseg_jax.data import cache
from skinseg_jax.data.sources import folder
from skinseg_jax.runtime import errors

LESION = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


def write_image(path: pathlib.Path, size=(2, 3), seed=0, **options):
  rng = np.random.default_rng([seed, *path.name.encode()])
  pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
  path.parent.mkdir(exist_ok=True)
  Image.fromarray(pixels).save(path, **options)


def write_mask(path: pathlib.Path, lesion=LESION):
  path.parent.mkdir(exist_ok=True)
  Image.fromarray(lesion * np.uint8(255)).save(path)


def open_folder(root, masks='masks', metadata=None, threshold=0):
  return folder.FolderSource(
    images_dir=root / 'images',
    masks_dir=root / masks,
    metadata_csv=metadata,
    mask_threshold=threshold,
  )


def problems_of(*args, **kwargs) -> list[str]:
  """The indented lines of the message, without the directories."""
  with pytest.raises(errors.InputError) as caught:
    open_folder(*args, **kwargs)
  root = f'{args[0]}/'
  return [
    line.strip().replace(root, '')
    for line in str(caught.value).splitlines()
    if line.startswith('  ')
  ]


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
  """Images b, a and c, each with another kind of mask name."""
  write_image(tmp_path / 'images' / 'b.jpg')
  write_image(tmp_path / 'images' / 'a.PNG')
  write_image(tmp_path / 'images' / 'c.tif')
  write_mask(tmp_path / 'masks' / 'a.png')
  write_mask(tmp_path / 'masks' / 'b_segmentation.PNG', 1 - LESION)
  write_mask(tmp_path / 'masks' / 'c_mask.bmp', LESION * 0)
  return tmp_path


@pytest.fixture
def metadata(tmp_path) -> pathlib.Path:
  return tmp_path / 'metadata.csv'


# --- What fits ---


def test_masks_are_paired_by_stem(root):
  source = open_folder(root)
  assert source.name == 'folder'
  assert source.image_ids == ['a', 'b', 'c']
  assert len(source) == 3
  for index, lesion in enumerate([LESION, 1 - LESION, LESION * 0]):
    example = source[index]
    assert example['image_id'] == source.image_ids[index]
    np.testing.assert_array_equal(example['mask'], lesion)
  pixels = np.asarray(Image.open(root / 'images' / 'a.PNG'))
  np.testing.assert_array_equal(source[0]['image'], pixels)
  for index in (-1, 3):
    with pytest.raises(IndexError):
      source[index]


def test_one_directory_may_hold_both(tmp_path):
  directory = tmp_path / 'images'
  write_image(directory / 'a.jpg')
  write_mask(directory / 'a.png')  # Beside a JPEG, a mask.
  write_image(directory / 'b.png')
  write_mask(directory / 'b_mask.png', 1 - LESION)
  source = open_folder(tmp_path, masks='images')
  assert source.image_ids == ['a', 'b']
  np.testing.assert_array_equal(source[0]['mask'], LESION)
  np.testing.assert_array_equal(source[1]['mask'], 1 - LESION)


def test_other_files_are_ignored(root):
  fingerprint = open_folder(root).fingerprint
  (root / 'images' / '.hidden.png').write_bytes(b'')
  (root / 'images' / 'notes.txt').write_text('')
  (root / 'images' / 'd.png').mkdir()
  (root / 'masks' / '._a.png').write_bytes(b'')
  (root / 'masks' / 'Thumbs.db').write_bytes(b'')
  assert open_folder(root).fingerprint == fingerprint


def test_sizes_are_compared_after_turning(root):
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = 6
  write_image(root / 'images' / 'b.jpg', size=(3, 2), exif=exif)
  assert open_folder(root)[1]['image'].shape == (2, 3, 3)


def test_threshold_admits_grey_masks(root):
  Image.fromarray(LESION * np.uint8(200)).save(root / 'masks' / 'a.png')
  with pytest.raises(errors.InputError, match=r'a\.png: not binary'):
    open_folder(root)[0]
  source = open_folder(root, threshold=127)
  np.testing.assert_array_equal(source[0]['mask'], LESION)


def test_fingerprint_follows_contents_names_and_threshold(root):
  found = [open_folder(root).fingerprint, open_folder(root).fingerprint]
  assert found[0] == found[1]
  found.append(open_folder(root, threshold=127).fingerprint)
  write_mask(root / 'masks' / 'a.png', 1 - LESION)
  found.append(open_folder(root).fingerprint)
  write_image(root / 'images' / 'a.PNG', seed=1)
  found.append(open_folder(root).fingerprint)
  (root / 'images' / 'a.PNG').rename(root / 'images' / 'd.png')
  (root / 'masks' / 'a.png').rename(root / 'masks' / 'd.png')
  found.append(open_folder(root).fingerprint)
  assert len(set(found)) == len(found) - 1


@pytest.mark.parametrize('threshold', [0, 127])
def test_fingerprint_is_that_of_earlier_versions(root, threshold):
  # A run records it: ids, digests of image and mask, and the threshold.
  names = [
    ('images/a.PNG', 'masks/a.png'),
    ('images/b.jpg', 'masks/b_segmentation.PNG'),
    ('images/c.tif', 'masks/c_mask.bmp'),
  ]
  digests = [
    [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in pair]
    for pair in names
  ]
  text = json.dumps([['a', 'b', 'c'], digests, threshold])
  expected = hashlib.sha256(text.encode()).hexdigest()
  assert open_folder(root, threshold=threshold).fingerprint == expected


def test_unreadable_pixels_are_told_by_the_cache(root):
  data = (root / 'images' / 'b.jpg').read_bytes()
  (root / 'images' / 'b.jpg').write_bytes(data[: len(data) - 20])
  Image.fromarray(LESION * np.uint8(7)).save(root / 'masks' / 'c_mask.bmp')
  source = open_folder(root)
  with pytest.raises(errors.InputError) as caught:
    cache.open_cache(source, (16, 16), root)
  message = str(caught.value)
  assert message.startswith('2 of 3 examples cannot be read')
  assert 'images/b.jpg: cannot be decoded' in message
  assert 'masks/c_mask.bmp: not binary' in message


# --- Metadata ---


def test_without_a_csv_lesions_are_unknown(root):
  assert open_folder(root).metadata == [
    {'image_id': 'a', 'lesion_id': '', 'dx': ''},
    {'image_id': 'b', 'lesion_id': '', 'dx': ''},
    {'image_id': 'c', 'lesion_id': '', 'dx': ''},
  ]


def test_rows_are_in_the_order_of_images_with_all_columns(root, metadata):
  # With the byte-order mark and the empty last line that some programs write.
  text = 'sex,image_id,lesion_id,dx\nmale,c,L1,mel\n"fe,male",a,,nv\n\n'
  metadata.write_text(text, encoding='utf-8-sig')
  rows = open_folder(root, metadata=metadata).metadata
  assert rows == [
    {'image_id': 'a', 'lesion_id': '', 'dx': 'nv', 'sex': 'fe,male'},
    {'image_id': 'b', 'lesion_id': '', 'dx': '', 'sex': ''},
    {'image_id': 'c', 'lesion_id': 'L1', 'dx': 'mel', 'sex': 'male'},
  ]
  assert len({tuple(row) for row in rows}) == 1  # One order of columns.


def test_rows_that_do_not_fit_are_listed(root, metadata):
  metadata.write_text('image_id,dx\na,nv\na,nv\nb\nz,nv\n')
  assert problems_of(root, metadata=metadata) == [
    'metadata.csv: row 4 has 1 values for 2 columns',
    'metadata.csv: row 3: a again',
  ]


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (
      b'id,dx\na,nv\n',
      'columns are id, dx; there must be one of image_id, image',
    ),
    (b'image_id,dx,dx\na,nv,nv\n', 'columns are image_id, dx, dx;'),
    (b'', 'unreadable'),
    (b'PK\x03\x04 a workbook', 'a spreadsheet; save it as csv'),
    (b'image_id\n"a\n', 'unreadable'),
  ],
)
def test_csv_that_is_no_metadata(root, metadata, text, message):
  metadata.write_bytes(text)
  (problem,) = problems_of(root, metadata=metadata)
  assert problem.startswith('metadata.csv (data.metadata_csv): ')
  assert message in problem


def test_rows_may_name_paths(root, metadata):
  metadata.write_text('filename,lesion_id\nimages/a.PNG,L1\n')
  assert open_folder(root, metadata=metadata).metadata[0] == {
    'image_id': 'a',
    'lesion_id': 'L1',
    'dx': '',
  }


def test_csv_without_a_row_for_any_image(root, metadata):
  metadata.write_text('dx,Filename\nnv,IMG_7.jpg\nnv,IMG_8.jpg\n')
  (problem,) = problems_of(root, metadata=metadata)
  assert problem.startswith('metadata.csv (data.metadata_csv): no row is of')
  assert "column 'Filename' holds names such as 'IMG_7.jpg'" in problem
  assert "names such as 'a'" in problem
  metadata.write_text('image_id,dx\n')
  (problem,) = problems_of(root, metadata=metadata)
  assert 'one row for each image' in problem


def test_missing_csv_is_named(root, metadata):
  (problem,) = problems_of(root, metadata=metadata)
  assert problem.startswith('metadata.csv (data.metadata_csv): unreadable')


# --- What does not fit ---


def test_everything_wrong_is_listed_at_once(root, metadata):
  write_image(root / 'images' / 'd.png')  # No mask.
  write_mask(root / 'masks' / 'e_mask.png')  # No image.
  write_image(root / 'images' / 'a.jpg')  # Another a.
  write_mask(root / 'masks' / 'b.png')  # Another mask of b.
  write_image(root / 'images' / 'f.png', size=(4, 3))  # Larger than its mask.
  write_mask(root / 'masks' / 'f.png')
  (root / 'images' / 'g.png').write_bytes(b'no image')
  write_mask(root / 'masks' / 'g.png')
  metadata.write_text('image_id\nd\ne\n')
  assert problems_of(root, metadata=metadata) == [
    'a: several images (a.PNG, a.jpg)',
    'b: several masks (b.png, b_segmentation.PNG)',
    'images/d.png: no mask',
    'masks/e_mask.png: no image',
    'masks/f.png: 3 x 2 pixels, its image has 3 x 4',
    'images/g.png: no JPEG, PNG, BMP, TIFF, WebP, GIF, AVIF, HEIC or DICOM'
    ' file',
  ]


def test_a_mask_belongs_to_the_image_of_its_whole_name(root):
  write_image(root / 'images' / 'c_mask.png')
  assert problems_of(root) == ['images/c.tif: no mask']
  write_mask(root / 'masks' / 'c.png')
  assert open_folder(root).image_ids == ['a', 'b', 'c', 'c_mask']


def test_mask_that_is_a_copy_of_its_image_is_refused(root):
  data = (root / 'images' / 'a.PNG').read_bytes()
  (root / 'masks' / 'a.png').write_bytes(data)
  assert problems_of(root) == ['masks/a.png: the same file as its image']


def test_one_directory_of_images_alone(tmp_path):
  write_image(tmp_path / 'images' / 'a.png')
  write_image(tmp_path / 'images' / 'b.jpg')
  assert problems_of(tmp_path, masks='images') == [
    'images/a.png: no mask',
    'images/b.jpg: no mask',
  ]


def test_how_masks_are_named_is_said_where_one_is_missing(root, metadata):
  said = 'The mask of x.jpg is x.png'
  metadata.write_text('image_id,dx\na,nv\na,nv\n')
  write_image(root / 'images' / 'b.jpg', size=(4, 3))  # Larger than its mask.
  with pytest.raises(errors.InputError) as caught:
    open_folder(root, metadata=metadata)
  assert said not in str(caught.value)
  (root / 'masks' / 'a.png').unlink()
  with pytest.raises(errors.InputError, match=said):
    open_folder(root)


def test_two_images_of_one_stem_in_one_directory(tmp_path):
  # Neither is a JPEG: which one would be the mask?
  write_image(tmp_path / 'images' / 'a.png')
  write_mask(tmp_path / 'images' / 'a.bmp')
  assert problems_of(tmp_path, masks='images') == [
    'a: several images (a.bmp, a.png)',
    'images/a.bmp: no mask',
  ]


def test_more_than_100_megapixels_are_refused_before_decoding(root):
  buffer = io.BytesIO()
  Image.new('1', (10_001, 10_000)).save(buffer, 'PNG')
  (root / 'images' / 'b.jpg').write_bytes(buffer.getvalue())
  assert problems_of(root) == [
    'images/b.jpg: 10001 x 10000 pixels; at most 100 megapixels are allowed'
  ]


def test_missing_and_empty_directories_are_named(tmp_path):
  (tmp_path / 'images').mkdir()
  (tmp_path / 'images' / 'notes.txt').write_text('')
  empty, missing = problems_of(tmp_path)
  assert 'images (data.images_dir) holds no file of .jpg' in empty
  assert 'masks (data.masks_dir) is no directory' in missing
  (tmp_path / 'masks').write_text('')
  assert 'masks (data.masks_dir) is no directory' in problems_of(tmp_path)[1]
