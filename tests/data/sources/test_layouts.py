"""Names and layouts that people have: endings, subfolders, official folders."""

import pathlib

import numpy as np
import pytest
from fake_images import random_image
from PIL import Image

from skinseg_jax import config as config_lib
from skinseg_jax.data.sources import catalog, folder
from skinseg_jax.runtime import errors

SIZE = (20, 30)


def write_image(path: pathlib.Path, seed=0) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(random_image(*SIZE, seed)).save(path)


def lesion(seed=0) -> np.ndarray:
  mask = np.zeros(SIZE, np.uint8)
  mask[4 + seed : 12 + seed, 5:20] = 1
  return mask


def write_mask(path: pathlib.Path, seed=0) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(lesion(seed) * np.uint8(255)).save(path)


def open_folder(images, masks, **options) -> folder.FolderSource:
  return folder.FolderSource(images, masks, None, 0, **options)


def check(source, image_ids) -> None:
  """Ids in order, and each mask the one of its seed."""
  assert source.image_ids == image_ids
  for seed, example in enumerate(source[i] for i in range(len(source))):
    np.testing.assert_array_equal(example['mask'], lesion(seed))


# --- Endings ---


@pytest.mark.parametrize(
  'ending',
  ['', '_Segmentation', '_MASK', '_seg', '_gt', '_GT', '_label', '_lesion'],
)
@pytest.mark.parametrize('extension', ['.png', '.PNG', '.gif', '.tif'])
def test_endings_in_any_case(tmp_path, ending, extension):
  for seed, name in enumerate(('a', 'b')):
    write_image(tmp_path / f'images/{name}.jpg', seed)
    write_mask(tmp_path / f'masks/{name}{ending}{extension}', seed)
  check(open_folder(tmp_path / 'images', tmp_path / 'masks'), ['a', 'b'])


def test_other_endings_are_proposed_and_work(tmp_path):
  write_image(tmp_path / 'images/a.jpg')
  write_mask(tmp_path / 'masks/a_manual1.gif')
  config = config_lib.Config()
  config.data.source = 'folder'
  config.data.images_dir = str(tmp_path / 'images')
  config.data.masks_dir = str(tmp_path / 'masks')
  with pytest.raises(errors.InputError) as caught:
    catalog.open_source(config.data)
  assert '--config.data.mask_suffixes=_a,_b sets' in str(caught.value)
  config.data.mask_suffixes = '_manual1,_b'
  check(catalog.open_source(config.data), ['a'])


def test_ids_may_end_like_masks(tmp_path):
  for seed, name in enumerate(('a', 'a_lesion', 'b_gt')):
    write_image(tmp_path / f'images/{name}.jpg', seed)
    write_mask(tmp_path / f'masks/{name}.png', seed)
  images = tmp_path / 'images'
  expected = ['a', 'a_lesion', 'b_gt']
  check(open_folder(images, tmp_path / 'masks'), expected)
  # Also where both lie in one folder.
  for path in (tmp_path / 'masks').iterdir():
    path.rename(images / path.name)
  check(open_folder(images, images), expected)


def test_masks_beside_images_of_any_format(tmp_path):
  for seed, (image, mask) in enumerate(
    [('a.png', 'a_GT.png'), ('b.bmp', 'b_seg.gif'), ('c.jpg', 'c.png')]
  ):
    write_image(tmp_path / image, seed)
    write_mask(tmp_path / mask, seed)
  check(open_folder(tmp_path, tmp_path), ['a', 'b', 'c'])


@pytest.mark.parametrize(
  ('photo', 'other'),
  [
    ('jpg', 'gif'), ('heic', 'png'), ('avif', 'png'), ('webp', 'png'),
    ('dcm', 'png'), ('avif', 'gif'), ('jpeg', 'tif'), ('jpg', 'webp'),
  ],
)  # fmt: skip
def test_masks_of_one_folder_that_differ_by_format(tmp_path, photo, other):
  for seed, name in enumerate('ab'):
    write_image(tmp_path / f'{name}.png', seed)
    (tmp_path / f'{name}.png').rename(tmp_path / f'{name}.{photo}')
    options = {'lossless': True} if other == 'webp' else {}
    Image.fromarray(lesion(seed) * np.uint8(255)).save(
      tmp_path / f'{name}.{other}', **options
    )
  check(open_folder(tmp_path, tmp_path), ['a', 'b'])


@pytest.mark.parametrize('second', ['heic', 'gif', 'avif', 'dcm'])
@pytest.mark.parametrize('first', ['jpg', 'png'])
def test_two_formats_of_an_image_beside_its_mask(
  tmp_path, capsys, first, second
):
  write_image(tmp_path / f'a.{first}')
  write_image(tmp_path / 'a.tif')
  (tmp_path / 'a.tif').rename(tmp_path / f'a.{second}')
  write_mask(tmp_path / 'a_mask.png')
  check(open_folder(tmp_path, tmp_path), ['a'])
  assert capsys.readouterr().out.count('the same name: left out') == 1


@pytest.mark.parametrize(
  ('images', 'masks'),
  [('data', 'data/masks'), ('data/images', 'data'), ('data', 'data/p/masks')],
)
def test_a_folder_inside_the_other(tmp_path, images, masks):
  for seed, name in enumerate(('p/a', 'q/b')):
    write_image(tmp_path / images / f'{name}.jpg', seed)
    write_mask(tmp_path / masks / f'{name}.png', seed)
  check(open_folder(tmp_path / images, tmp_path / masks), ['p/a', 'q/b'])


def test_a_format_of_today_beside_one_of_before(tmp_path, capsys):
  write_image(tmp_path / 'images/a.jpg')
  write_mask(tmp_path / 'masks/a.png')
  before = open_folder(tmp_path / 'images', tmp_path / 'masks').fingerprint
  write_image(tmp_path / 'images/a.gif', 1)
  (tmp_path / 'images/a.heic').write_bytes(b'of a phone')
  source = open_folder(tmp_path / 'images', tmp_path / 'masks')
  assert source.fingerprint == before
  assert '2 files in' in capsys.readouterr().out


def test_inverted_masks(tmp_path):
  write_image(tmp_path / 'images/a.jpg')
  white = (1 - lesion()) * np.uint8(255)
  (tmp_path / 'masks').mkdir()
  Image.fromarray(white).save(tmp_path / 'masks/a.png')
  plain = open_folder(tmp_path / 'images', tmp_path / 'masks')
  config = config_lib.DataConfig(
    source='folder',
    images_dir=str(tmp_path / 'images'),
    masks_dir=str(tmp_path / 'masks'),
    mask_invert=True,
  )
  inverted = catalog.open_source(config)
  check(inverted, ['a'])
  assert inverted.fingerprint != plain.fingerprint


# --- Subfolders ---


@pytest.mark.parametrize(
  'names',
  [
    ['p0/a', 'p0/b', 'p1/c'],
    ['p0/photo', 'p1/photo', 'p2/photo'],
    ['site/p0/day1/x', 'site/p0/day2/x', 'site/p1/x'],
    ['a', 'p0/b', 'p1/c'],
  ],
)
@pytest.mark.parametrize('ending', ['', '_segmentation'])
def test_trees_are_read_with_paths_as_ids(tmp_path, names, ending):
  for seed, name in enumerate(names):
    write_image(tmp_path / f'images/{name}.jpg', seed)
    write_mask(tmp_path / f'masks/{name}{ending}.png', seed)
  check(open_folder(tmp_path / 'images', tmp_path / 'masks'), names)


def test_a_tree_of_images_and_masks_together(tmp_path):
  for seed, name in enumerate(('p0/a', 'p1/a')):
    write_image(tmp_path / f'{name}.png', seed)
    write_mask(tmp_path / f'{name}_mask.png', seed)
  check(open_folder(tmp_path, tmp_path), ['p0/a', 'p1/a'])


def test_other_subfolders_of_a_flat_folder_are_left_out(tmp_path, capsys):
  write_image(tmp_path / 'images/a.jpg')
  write_mask(tmp_path / 'masks/a.png')
  before = open_folder(tmp_path / 'images', tmp_path / 'masks').fingerprint
  write_image(tmp_path / 'images/thumbs/a.jpg', 1)
  write_image(tmp_path / 'images/.cache/b.jpg', 1)
  write_mask(tmp_path / 'masks/drafts/old.png')
  (tmp_path / 'images/loop').symlink_to(tmp_path / 'images')
  source = open_folder(tmp_path / 'images', tmp_path / 'masks')
  assert source.fingerprint == before
  out = capsys.readouterr().out
  assert out.count('2 files in subfolders of') == 1


def test_unpaired_files_of_a_tree_are_listed(tmp_path):
  write_image(tmp_path / 'images/p0/a.jpg')
  write_image(tmp_path / 'images/p1/a.jpg')
  write_mask(tmp_path / 'masks/p0/a.png')
  with pytest.raises(errors.InputError, match=r'p1/a\.jpg: no mask'):
    open_folder(tmp_path / 'images', tmp_path / 'masks')


# --- Official layouts ---


def write_isic(root: pathlib.Path, year: int, part='Training') -> tuple:
  """The two folders of a challenge, with what else lies in them."""
  images, masks, ending = {
    2016: (
      f'ISBI2016_ISIC_Part1_{part}_Data',
      f'ISBI2016_ISIC_Part1_{part}_GroundTruth',
      '_Segmentation',
    ),
    2017: (
      f'ISIC-2017_{part}_Data',
      f'ISIC-2017_{part}_Part1_GroundTruth',
      '_segmentation',
    ),
    2018: (
      f'ISIC2018_Task1-2_{part}_Input',
      f'ISIC2018_Task1_{part}_GroundTruth',
      '_segmentation',
    ),
  }[year]
  for seed in range(2):
    name = f'ISIC_000000{seed}'
    write_image(root / images / f'{name}.jpg', seed)
    write_mask(root / masks / f'{name}{ending}.png', seed)
    if year == 2017:
      write_image(root / images / f'{name}_superpixels.png', seed)
    if year == 2018:
      (root / images / 'ATTRIBUTION.txt').write_text('')
      (root / images / 'LICENSE.txt').write_text('')
  return root / images, root / masks


IDS = ['ISIC_0000000', 'ISIC_0000001']


@pytest.mark.parametrize('year', [2016, 2017, 2018])
def test_isic_challenges(tmp_path, capsys, year):
  images, masks = write_isic(tmp_path, year)
  check(open_folder(images, masks), IDS)
  superpixels = capsys.readouterr().out.count('2 *_superpixels files')
  assert superpixels == (year == 2017)
  check(open_folder(tmp_path, tmp_path), IDS)


def test_isic_folder_that_was_extracted_into_its_own_name(tmp_path):
  images, masks = write_isic(tmp_path / 'x', 2018)
  for path in (images, masks):
    (tmp_path / path.name).mkdir()
    path.rename(tmp_path / path.name / path.name)
  check(open_folder(tmp_path / images.name, tmp_path / masks.name), IDS)


def test_several_sets_must_be_told_apart(tmp_path):
  write_isic(tmp_path, 2017)
  images, masks = write_isic(tmp_path, 2017, 'Test_v2')
  with pytest.raises(errors.InputError) as caught:
    open_folder(tmp_path, tmp_path)
  assert f'{images} with {masks}' in str(caught.value)
  check(open_folder(images, masks), IDS)


def write_ph2(root: pathlib.Path) -> None:
  for seed, name in enumerate(('IMD002', 'IMD003')):
    place = root / 'PH2 Dataset images' / name
    write_image(place / f'{name}_Dermoscopic_Image/{name}.bmp', seed)
    write_mask(place / f'{name}_lesion/{name}_lesion.bmp', seed)
    write_mask(place / f'{name}_roi/{name}_R1_Label3.bmp', seed)
  (root / 'PH2_dataset.txt').write_text('|| Name || ...')
  (root / 'PH2_dataset.xlsx').write_bytes(b'PK')


@pytest.mark.parametrize('inside', ['', 'PH2 Dataset images'])
def test_ph2(tmp_path, inside):
  write_ph2(tmp_path)
  check(open_folder(tmp_path / inside, tmp_path / inside), ['IMD002', 'IMD003'])


def test_ph2_lists_what_is_missing(tmp_path):
  write_ph2(tmp_path)
  for path in tmp_path.rglob('IMD003_lesion.bmp'):
    path.unlink()
  with pytest.raises(errors.InputError, match=r'IMD003_lesion\.bmp: missing'):
    open_folder(tmp_path, tmp_path)


# --- Several pictures, and tables ---


def test_several_pictures_in_a_file_are_said_once(tmp_path, capsys):
  for name in ('a', 'b'):
    write_mask(tmp_path / f'masks/{name}.png')
  (tmp_path / 'images').mkdir()
  pages = [Image.fromarray(random_image(*SIZE, seed)) for seed in (0, 1)]
  for name in ('a.tif', 'b.webp'):
    pages[0].save(
      tmp_path / 'images' / name, save_all=True, append_images=pages[1:]
    )
  source = open_folder(tmp_path / 'images', tmp_path / 'masks')
  np.testing.assert_array_equal(source[0]['image'], random_image(*SIZE))
  out = capsys.readouterr().out
  assert out.count('2 files hold several pictures; the first is used') == 1


def test_rows_of_other_images_are_counted(tmp_path, capsys):
  for seed, name in enumerate(('p0/a', 'p0/b', 'p1/c')):
    write_image(tmp_path / f'images/{name}.jpg', seed)
    write_mask(tmp_path / f'masks/{name}.png', seed)
  (tmp_path / 'meta.csv').write_text(
    '\ufefffilename;age_approx;diagnosis\np0/a.JPG;30;nv\nc.jpg;40;mel\n'
    'elsewhere.jpg;50;nv\nnowhere.jpg;60;nv\n',
    encoding='utf-8',
  )
  source = folder.FolderSource(
    tmp_path / 'images', tmp_path / 'masks', tmp_path / 'meta.csv', 0
  )
  assert [row['age'] for row in source.metadata] == ['30', '', '40']
  assert [row['dx'] for row in source.metadata] == ['nv', '', 'mel']
  out = capsys.readouterr().out
  assert '2 rows are of other images and ignored; 1 of 3 images have' in out
