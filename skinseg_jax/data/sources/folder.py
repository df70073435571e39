"""A source of one's own: a directory of images and one of masks."""

import collections
import concurrent.futures
import csv
import hashlib
import json
import os
import pathlib
from typing import NamedTuple

import tqdm

from skinseg_jax.data import preprocessing
from skinseg_jax.data.sources import interface
from skinseg_jax.runtime import errors

_JPEG = ('.jpg', '.jpeg')
_MASK_SUFFIXES = ('_segmentation', '_mask')


class _Pair(NamedTuple):
  image: pathlib.Path
  mask: pathlib.Path


class FolderSource:
  """Images and masks paired by stem, ids being stems; see `sources.Source`.

  The mask of `x.jpg` is `x.png`, `x_segmentation.png` or `x_mask.png`, or has
  any other of the extensions .jpg, .jpeg, .png, .bmp, .tif, .tiff and .webp, in
  any case; JPEG masks are grey at edges and need a threshold. Hidden files,
  other files and subdirectories are ignored.

  Images and masks may lie in one directory: masks are then the files with one
  of the two endings, and those beside a JPEG image of the same stem.

  The csv has a column `image_id`, the stem. Images without a row have '' in
  all its columns; those without `lesion_id` count as lesions of their own.
  """

  name = 'folder'

  def __init__(
    self,
    images_dir: pathlib.Path,
    masks_dir: pathlib.Path,
    metadata_csv: pathlib.Path | None,
    mask_threshold: int,
  ):
    """Pairs the files up and reads each once, decoding none.

    Args:
      images_dir: Directory of the images.
      masks_dir: Directory of the masks.
      metadata_csv: UTF-8 csv with a header, or None.
      mask_threshold: Grey value above which a pixel is lesion; 0 is strict.

    Raises:
      InputError: If a directory is missing or holds no image file; otherwise
        listing all images without mask, masks without image, ambiguous names,
        unreadable headers, sizes that differ, and what in the csv does not fit.
    """
    problems: list[str] = []
    images, masks = _list_files(images_dir, masks_dir)
    pairs = _pair(images, masks, problems)
    rows = {}
    if metadata_csv:
      stems = {path.stem for path in images}
      rows = _read_rows(metadata_csv, stems, problems)
    digests = _check_files(list(pairs.values()), problems)
    if problems:
      raise errors.InputError(
        f'images in {images_dir} and masks in {masks_dir} do not fit;'
        f' problems: {len(problems)}\n{errors.listing(problems)}\n'
        'The mask of x.jpg is x.png, x_segmentation.png or x_mask.png.'
      )
    self._pairs = list(pairs.values())
    self._mask_threshold = mask_threshold
    self.image_ids = list(pairs)
    self.metadata = _complete(rows, self.image_ids)
    self.fingerprint = hashlib.sha256(
      json.dumps([self.image_ids, digests, mask_threshold]).encode()
    ).hexdigest()

  def __len__(self) -> int:
    return len(self.image_ids)

  def __getitem__(self, index: int) -> interface.Example:
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} of {len(self)} examples')
    pair = self._pairs[index]
    return {
      'image_id': self.image_ids[index],
      'image': preprocessing.decode_image(_read(pair.image), str(pair.image)),
      'mask': preprocessing.decode_mask(
        _read(pair.mask), str(pair.mask), threshold=self._mask_threshold
      ),
    }


def _read(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise errors.InputError(f'{path}: unreadable ({error})') from error


def _list_files(
  images_dir: pathlib.Path, masks_dir: pathlib.Path
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """Image files of both directories, or of one that holds both.

  Raises:
    InputError: If a directory is missing or holds none.
  """
  problems = []
  found = {}
  for field, directory in (
    ('data.images_dir', images_dir),
    ('data.masks_dir', masks_dir),
  ):
    try:
      found[field] = [
        path
        for path in sorted(directory.iterdir())
        if path.suffix.lower() in preprocessing.EXTENSIONS
        and not path.name.startswith('.')
        and path.is_file()
      ]
      if not found[field]:
        allowed = ', '.join(preprocessing.EXTENSIONS)
        problems.append(f'{directory} ({field}) holds no file of {allowed}')
    except OSError as error:
      problems.append(f'{directory} ({field}) is no directory: {error}')
  if problems:
    raise errors.InputError(
      'name directories of images and of masks:\n' + errors.listing(problems)
    )
  images, masks = found.values()
  if images_dir.samefile(masks_dir):
    jpegs = {path.stem for path in images if path.suffix.lower() in _JPEG}
    is_mask = lambda path: (
      path.stem.endswith(_MASK_SUFFIXES)
      or (path.stem in jpegs and path.suffix.lower() not in _JPEG)
    )
    images, masks = (
      [path for path in images if not is_mask(path)],
      [path for path in masks if is_mask(path)],
    )
  return images, masks


def _pair(
  images: list[pathlib.Path], masks: list[pathlib.Path], problems: list[str]
) -> dict[str, _Pair]:
  """Pairs by image id, sorted by it; what has no single mate is a problem."""
  by_id, by_stem = collections.defaultdict(list), collections.defaultdict(list)
  for path in images:
    by_id[path.stem].append(path)
  for path in masks:
    by_stem[path.stem].append(path)
  pairs, taken = {}, collections.defaultdict(list)
  for image_id, same_stem in sorted(by_id.items()):
    mates = [
      mask
      for suffix in ('', *_MASK_SUFFIXES)
      for mask in by_stem[image_id + suffix]
    ]
    for mask in mates:
      taken[mask].append(image_id)
    if len(same_stem) > 1:
      problems.append(f'{image_id}: several images ({_names(same_stem)})')
    if len(mates) > 1:
      problems.append(f'{image_id}: several masks ({_names(mates)})')
    elif not mates:
      problems.append(f'{same_stem[0]}: no mask')
    else:
      pairs[image_id] = _Pair(same_stem[0], mates[0])
  for mask in masks:
    if mask not in taken:
      problems.append(f'{mask}: no image')
    elif len(taken[mask]) > 1:
      problems.append(f'{mask}: mask of {" and of ".join(taken[mask])}')
  return pairs


def _names(paths: list[pathlib.Path]) -> str:
  return ', '.join(path.name for path in paths)


def _check_files(pairs: list[_Pair], problems: list[str]) -> list[list[str]]:
  """SHA-256 of image and mask of each pair; compares sizes by the headers."""
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    checks = tqdm.tqdm(
      pool.map(_check_pair, pairs),
      'reading',
      len(pairs),
      unit='image',
      disable=None,
    )
    digests = []
    for pair_digests, pair_problems in checks:
      digests.append(pair_digests)
      problems += pair_problems
  return digests


def _check_pair(pair: _Pair) -> tuple[list[str], list[str]]:
  digests, sizes, problems = [], [], []
  for path in pair:
    try:
      data = _read(path)
      digests.append(hashlib.sha256(data).hexdigest())
      sizes.append(preprocessing.image_size(data, str(path)))
    except errors.InputError as error:
      problems.append(str(error))
  if len(sizes) == 2 and sizes[0] != sizes[1]:
    image_size, mask_size = (f'{w} x {h}' for h, w in sizes)
    problems.append(
      f'{pair.mask}: {mask_size} pixels, its image has {image_size}'
    )
  if len(digests) == 2 and digests[0] == digests[1]:
    problems.append(f'{pair.mask}: the same file as its image')
  return digests, problems


def _read_rows(
  path: pathlib.Path, image_ids: set[str], problems: list[str]
) -> dict[str, dict[str, str]]:
  """Rows of the csv by image id; what does not fit is a problem."""
  try:
    with path.open(encoding='utf-8-sig', newline='') as file:
      header, *lines = csv.reader(file, strict=True)
  except (OSError, csv.Error, ValueError) as error:  # Empty, or not UTF-8.
    problems.append(f'{path} (data.metadata_csv): unreadable ({error})')
    return {}
  if 'image_id' not in header or len(set(header)) < len(header):
    problems.append(
      f'{path} (data.metadata_csv): the columns are {", ".join(header)}; there'
      ' must be image_id, and none twice'
    )
    return {}
  rows: dict[str, dict[str, str]] = {}
  for number, fields in enumerate(lines, start=2):
    if not fields:  # An empty line.
      continue
    row = dict(zip(header, fields, strict=False))
    place = f'{path}: row {number}'
    if len(fields) != len(header):
      problems.append(
        f'{place} has {len(fields)} values for {len(header)} columns'
      )
    elif row['image_id'] not in image_ids:
      problems.append(f'{place}: no image {row["image_id"]!r}')
    elif rows.setdefault(row['image_id'], row) is not row:
      problems.append(f'{place}: {row["image_id"]} again')
  return rows


def _complete(
  rows: dict[str, dict[str, str]], image_ids: list[str]
) -> list[dict[str, str]]:
  """One row per id, all with the same columns."""
  columns = dict.fromkeys(('image_id', 'lesion_id', 'dx'), '')
  for row in rows.values():
    columns |= dict.fromkeys(row, '')
  completed = []
  for image_id in image_ids:
    completed.append(
      {**columns, **rows.get(image_id, {}), 'image_id': image_id}
    )
  return completed
