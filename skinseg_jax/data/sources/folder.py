"""Your own images: a directory of images and one of masks."""

import concurrent.futures
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence

import tqdm

from skinseg_jax import config as config_lib
from skinseg_jax.data import pictures, preprocessing, tables
from skinseg_jax.data import remedies as remedies_lib
from skinseg_jax.data.sources import folder_files, interface, layouts
from skinseg_jax.runtime import errors

_SUFFIXES = tuple(config_lib.DataConfig().mask_suffixes.split(','))


class FolderSource:
  """Images and masks paired by name; see `interface.Source`.

  The id of an image is its path below the directory, with slashes and without
  extension. Its mask has the same path in the other directory; its name may
  have one of the endings, in any case, and any extension of a picture. JPEG
  masks are grey at edges and need a threshold. Hidden files, other files and
  `*_superpixels` files are ignored. Where images lie in the directory itself,
  files in subdirectories that have no counterpart are left out.

  Images and masks may lie in one directory: masks are then the files with one
  of the endings, and those beside an image of the same stem in a format of
  photos, such as JPEG. One directory may lie in the other. The folder of
  PH2, or the one that holds both folders of ISIC 2016, 2017 or 2018 (task 1),
  is named for both as well.

  The table has a column of ids (`tables.ID_COLUMNS`). Images without a row
  have '' in all its columns, rows of other images are ignored; both are
  counted in a line that is printed. An image without `lesion_id` counts as a
  lesion of its own.
  """

  name = 'folder'

  def __init__(
    self,
    images_dir: pathlib.Path,
    masks_dir: pathlib.Path,
    metadata_csv: pathlib.Path | None,
    mask_threshold: int,
    *,
    mask_invert: bool = False,
    mask_suffixes: Sequence[str] = _SUFFIXES,
    remedies: remedies_lib.Remedies = remedies_lib.CONFIG,
  ):
    """Pairs the files up and reads each once, decoding none.

    Args:
      images_dir: Directory of the images.
      masks_dir: Directory of the masks.
      metadata_csv: Table that `tables.read` reads, or None.
      mask_threshold: Grey value above which a pixel is lesion; 0 is strict.
      mask_invert: Whether to swap lesion and skin in all masks.
      mask_suffixes: Endings of the names of masks; none is always allowed.
      remedies: What the user types to change a setting.

    Raises:
      InputError: If a directory is missing or holds no image file; otherwise
        listing all images without mask, masks without image, ambiguous names,
        unreadable headers, sizes that differ, and what in the csv does not fit.
    """
    pairs, rows, digests = _read_all(
      images_dir, masks_dir, metadata_csv, mask_suffixes, remedies
    )
    self._pairs = list(pairs.values())
    self._mask_threshold = mask_threshold
    self._mask_invert = mask_invert
    self._remedies = remedies
    self.image_ids = list(pairs)
    self.metadata = _complete(rows, self.image_ids)
    # What later versions added counts only where it is used.
    shaped_by = [self.image_ids, digests, mask_threshold]
    shaped_by += ['inverted'] if mask_invert else []
    self.fingerprint = hashlib.sha256(
      json.dumps(shaped_by).encode()
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
        _read(pair.mask),
        str(pair.mask),
        threshold=self._mask_threshold,
        invert=self._mask_invert,
        remedies=self._remedies,
      ),
    }


def _read_all(
  images_dir: pathlib.Path,
  masks_dir: pathlib.Path,
  metadata_csv: pathlib.Path | None,
  suffixes: Sequence[str],
  remedies: remedies_lib.Remedies,
) -> tuple[dict[str, layouts.Pair], dict[str, dict[str, str]], list[list[str]]]:
  """Pairs and rows by image id, and the digests of the pairs."""
  problems: list[str] = []
  rows: dict[str, dict[str, str]] = {}
  pairs, notes = folder_files.find_pairs(
    images_dir,
    masks_dir,
    suffixes=suffixes,
    remedies=remedies,
    problems=problems,
  )
  if metadata_csv:
    place = f'{metadata_csv} ({remedies_lib.name(remedies.metadata)})'
    rows = _read_rows(metadata_csv, place, list(pairs), problems, notes)
  digests = _check_files(list(pairs.values()), problems, notes)
  if problems:
    message = (
      f'images in {images_dir} and masks in {masks_dir} do not fit;'
      f' problems: {len(problems)}\n{errors.listing(problems)}'
    )
    if any(line.endswith((': no mask', ': no image')) for line in problems):
      endings = ', '.join(filter(None, suffixes))
      message += (
        f'\nThe mask of x.jpg is x.png, or x with an ending ({endings}) and'
        f' .png; {remedies.mask_suffixes}_a,_b sets other endings.'
      )
    raise errors.InputError(message)
  for note in notes:
    print(note, flush=True)
  return pairs, rows, digests


def _read(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise errors.InputError(f'{path}: unreadable ({error})') from error


def _check_files(
  pairs: list[layouts.Pair], problems: list[str], notes: list[str]
) -> list[list[str]]:
  """SHA-256 of image and mask of each pair; compares sizes by the headers."""
  several = []
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    checks = tqdm.tqdm(
      pool.map(_check_pair, pairs),
      'reading',
      len(pairs),
      unit='image',
      disable=None,
    )
    digests = []
    for pair_digests, pair_problems, pair_several in checks:
      digests.append(pair_digests)
      problems += pair_problems
      several += pair_several
  if several:
    notes.append(
      f'{len(several)} files hold several pictures; the first is used:\n'
      + errors.listing(several)
    )
  return digests


def _check_pair(pair: layouts.Pair) -> tuple[list[str], list[str], list[str]]:
  """Digests, problems, and the files that hold several pictures."""
  digests, sizes, problems, several = [], [], [], []
  for path in pair:
    try:
      data = _read(path)
      digests.append(hashlib.sha256(data).hexdigest())
      sizes.append(preprocessing.image_size(data, str(path)))
      if (number := pictures.count(data, str(path))) > 1:
        several.append(f'{path}: {number} pictures')
    except errors.InputError as error:
      problems.append(str(error))
  if len(sizes) == 2 and sizes[0] != sizes[1]:
    image_size, mask_size = (f'{w} x {h}' for h, w in sizes)
    problems.append(
      f'{pair.mask}: {mask_size} pixels, its image has {image_size}'
    )
  if len(digests) == 2 and digests[0] == digests[1]:
    problems.append(f'{pair.mask}: the same file as its image')
  return digests, problems, several


def _read_rows(
  path: pathlib.Path,
  place: str,
  image_ids: list[str],
  problems: list[str],
  notes: list[str],
) -> dict[str, dict[str, str]]:
  """Rows of the csv by image id; what does not fit is a problem."""
  try:
    table = tables.read(path)
  except errors.InputError as error:
    problems.append(f'{place}: {error}')
    return {}
  if 'image_id' not in table.header:
    problems.append(
      f'{place}: the columns are {", ".join(table.header)}; there must be one'
      f' of {", ".join(tables.ID_COLUMNS)}'
    )
    return {}
  pairs_fit = not problems  # Else a row may be of an image without a mask.
  problems += [f'{path}: {problem}' for problem in table.problems]
  ids = tables.Ids(image_ids)
  rows: dict[str, dict[str, str]] = {}
  others = 0
  for number, row in table.lines:
    image_id = ids.find(row['image_id'])
    if image_id is None:
      others += 1
    elif rows.setdefault(image_id, row) is not row:
      problems.append(f'{path}: row {number}: {image_id} again')
  if pairs_fit and not rows:
    problems.append(f'{place}: {_no_row_fits(table, image_ids[0])}')
  without = len(image_ids) - len(rows)
  if others or without:
    notes.append(
      f'{path}: {others} rows are of other images and ignored; {without} of'
      f' {len(image_ids)} images have no row'
    )
  return rows


def _no_row_fits(table: tables.Table, image_id: str) -> str:
  if not table.lines:
    return 'no row; give a table with one row for each image'
  cell = table.lines[0][1]['image_id']
  return (
    f'no row is of an image: column {table.id_name!r} holds names such as'
    f' {cell!r}, the images have names such as {image_id!r}. Write the names of'
    ' the images into that column, or give the table of these images'
  )


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
