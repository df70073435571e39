"""Finds image files in folders and pairs them with their masks."""

import collections
import os
import pathlib
from collections.abc import Container, Iterator, Sequence

from skinseg_jax.data import pictures
from skinseg_jax.data import remedies as remedies_lib
from skinseg_jax.data.sources import layouts
from skinseg_jax.runtime import errors

_JPEG = ('.jpg', '.jpeg')
# In these formats are photographs, not masks, where both lie in one folder.
_PHOTOS = (
  *_JPEG, '.heic', '.heif', '.avif', '.webp', '.dcm', '.dicom'
)  # fmt: skip
# These endings make a file a mask even where its image is missing.
_SURE_SUFFIXES = ('_segmentation', '_mask')


def find_pictures(
  directory: pathlib.Path, *, leave_out: Sequence[pathlib.Path] = ()
) -> tuple[dict[pathlib.Path, str], list[str]]:
  """Lists the pictures in a folder and in all folders below it.

  Hidden files and folders are ignored, and so are the files of ISIC 2017 whose
  names end in `_superpixels`. So is a file whose format older versions did not
  read, such as GIF, beside one with the same stem that they did.

  Args:
    directory: Where to look; links to folders are followed.
    leave_out: Folders that are not looked into.

  Returns:
    Ids by path, in the order of paths: an id is the path below `directory`,
    with slashes and without extension. And sentences on what was left out.

  Raises:
    OSError: If `directory` is no folder that can be read.
    InputError: If a folder below it cannot be read.
  """
  ids, notes = _every_picture(directory, leave_out)
  kept = _one_format(ids)
  return kept, notes + _left_out_formats(len(ids) - len(kept), directory)


def walk_pictures(
  directory: pathlib.Path,
  *,
  leave_out: Sequence[pathlib.Path] = (),
  notes: list[str],
) -> Iterator[tuple[pathlib.Path, str]]:
  """As `find_pictures`, but holds the names of one folder at a time.

  Args:
    directory: Where to look; links to folders are followed.
    leave_out: Folders that are not looked into.
    notes: Gets the sentences on what was left out, at the end.

  Yields:
    Path and id of each picture: folder by folder, those above first, and by
    name within a folder.

  Raises:
    OSError: If `directory` is no folder that can be read.
    InputError: If a folder below it cannot be read.
  """
  superpixels = others = 0
  for folder, names, left_out in _folders(directory, leave_out):
    superpixels += left_out
    kept = _names_of_one_format(names)
    others += len(names) - len(kept)
    for name in kept:
      yield folder / name, _id(folder / name, directory)
  notes += _left_out_superpixels(superpixels, directory)
  notes += _left_out_formats(others, directory)


def _every_picture(
  directory: pathlib.Path, leave_out: Sequence[pathlib.Path]
) -> tuple[dict[pathlib.Path, str], list[str]]:
  """As `find_pictures`, but all files of the same stem."""
  found, superpixels = [], 0
  for folder, names, left_out in _folders(directory, leave_out):
    superpixels += left_out
    found += [folder / name for name in names]
  ids = {path: _id(path, directory) for path in sorted(found)}
  return ids, _left_out_superpixels(superpixels, directory)


def _folders(
  directory: pathlib.Path, leave_out: Sequence[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, list[str], int]]:
  """Each folder, the names of its pictures, and how many were left out."""
  os.scandir(directory).close()
  seen = {path.resolve() for path in leave_out}
  for folder, folders, names in os.walk(
    directory, onerror=_refuse, followlinks=True
  ):
    path = pathlib.Path(folder)
    if path.resolve() in seen:  # Left out, or a link leads back.
      folders.clear()
      continue
    seen.add(path.resolve())
    folders[:] = sorted(
      name for name in folders if name[0] != '.' and name != '__MACOSX'
    )
    files = sorted(name for name in names if is_picture(path / name))
    kept = [
      name
      for name in files
      if not os.path.splitext(name)[0].lower().endswith('_superpixels')
    ]
    yield path, kept, len(files) - len(kept)


def _refuse(error: OSError) -> None:
  """Ends the walk: what a folder holds must not be missed unnoticed."""
  raise errors.InputError(
    f'{error.filename} cannot be read ({error.strerror}); make it readable, or'
    ' move it elsewhere.'
  ) from error


def _id(path: pathlib.Path, directory: pathlib.Path) -> str:
  return path.relative_to(directory).with_suffix('').as_posix()


def _left_out_superpixels(number: int, directory: pathlib.Path) -> list[str]:
  if not number:
    return []
  return [f'{number} *_superpixels files in {directory}: left out']


def _names_of_one_format(names: list[str]) -> list[str]:
  """As `_one_format`, for the names in one folder."""
  if all(_is_first(pathlib.Path(name)) for name in names):
    return names  # The usual case, without a second list of a million names.
  kept = _one_format({pathlib.Path(n): pathlib.Path(n).stem for n in names})
  return [str(path) for path in kept]


def _one_format(ids: dict[pathlib.Path, str]) -> dict[pathlib.Path, str]:
  """Leaves out files of later formats beside one of the first formats."""
  first = {image_id for path, image_id in ids.items() if _is_first(path)}
  return {
    path: image_id
    for path, image_id in ids.items()
    if _is_first(path) or image_id not in first
  }


def _left_out_formats(number: int, directory: pathlib.Path) -> list[str]:
  if not number:
    return []
  return [
    f'{number} files in {directory} lie beside a file of another format with'
    ' the same name: left out'
  ]


def is_picture(path: pathlib.Path) -> bool:
  """Whether it is a file with the name of a picture, and not hidden."""
  return (
    path.suffix.lower() in pictures.EXTENSIONS
    and not path.name.startswith('.')
    and path.is_file()
  )


def _is_first(path: pathlib.Path) -> bool:
  return path.suffix.lower() in pictures.FIRST_EXTENSIONS


def find_pairs(
  images_dir: pathlib.Path,
  masks_dir: pathlib.Path,
  *,
  suffixes: Sequence[str],
  remedies: remedies_lib.Remedies,
  problems: list[str],
) -> tuple[dict[str, layouts.Pair], list[str]]:
  """Finds images and masks and pairs them up.

  Args:
    images_dir: Folder of the images, or one of `layouts`.
    masks_dir: Folder of the masks; may be the same.
    suffixes: Endings that a mask's name may have, in any case.
    remedies: What the user types to change a setting.
    problems: Gets a line for everything that has no single counterpart.

  Returns:
    Pairs by image id, in the order of ids; and sentences on what was left out.

  Raises:
    InputError: If a folder is missing or holds no picture, or a package that
      some need is not installed.
  """
  if images_dir.is_dir() and masks_dir.is_dir():
    if images_dir.samefile(masks_dir):
      if pairs := layouts.ph2(images_dir, problems):
        return pairs, []
      folders = layouts.isic(layouts.unwrapped(images_dir))
      images_dir, masks_dir = folders or (images_dir, masks_dir)
    images_dir, masks_dir = map(layouts.unwrapped, (images_dir, masks_dir))
  images, masks, notes = _list(images_dir, masks_dir, remedies)
  if images_dir.samefile(masks_dir):
    everything = len(images)
    images, masks = map(_one_format, _divide(images, suffixes))
    notes = list(dict.fromkeys(notes))
    left_out = everything - len(images) - len(masks)
    notes += _left_out_formats(left_out, images_dir)
  pictures.check_installed([*images, *masks])
  pairs, alone = _pair(images, masks, suffixes, problems)
  if alone:
    notes.append(
      f'{alone} files in subfolders of {images_dir} and {masks_dir} have no'
      ' counterpart: left out'
    )
  return pairs, notes


def _list(
  images_dir: pathlib.Path,
  masks_dir: pathlib.Path,
  remedies: remedies_lib.Remedies,
) -> tuple[dict[pathlib.Path, str], dict[pathlib.Path, str], list[str]]:
  """Pictures of both folders by path, and sentences on what was left out.

  A folder inside the other is not part of that one. Of a folder that is both,
  the files of all formats are listed.

  Raises:
    InputError: If a folder is missing or holds none.
  """
  problems, found, notes = [], [], []
  is_one = images_dir.resolve() == masks_dir.resolve()
  for remedy, directory, other in (
    (remedies.images, images_dir, masks_dir),
    (remedies.masks, masks_dir, images_dir),
  ):
    place = f'{directory} ({remedies_lib.name(remedy)})'
    try:
      ids, more = (
        _every_picture(directory, ())
        if is_one
        else find_pictures(directory, leave_out=[other])
      )
    except OSError as error:
      problems.append(f'{place} is no directory: {error}')
      continue
    found.append(ids)
    notes += more
    if not ids:
      allowed = ', '.join(pictures.EXTENSIONS)
      problems.append(f'{place} holds no file of {allowed}')
  if problems:
    raise errors.InputError(
      'name directories of images and of masks:\n' + errors.listing(problems)
    )
  images, masks = found
  return images, masks, notes


def _divide(
  found: dict[pathlib.Path, str], suffixes: Sequence[str]
) -> tuple[dict[pathlib.Path, str], dict[pathlib.Path, str]]:
  """Images and masks of a folder that holds both.

  A mask is a file that is no photo beside a photo of the same stem, a file
  whose name ends in `_segmentation` or `_mask`, and one with another of the
  endings whose image is there, unless it has such a mask itself. Beside a JPEG
  a WebP is no photo. Of formats that older versions did not read, a file is no
  mask if there is one with an ending.
  """
  is_jpeg = lambda path: path.suffix.lower() in _JPEG
  jpegs = {image_id for path, image_id in found.items() if is_jpeg(path)}

  def is_photo(path: pathlib.Path, name: str) -> bool:
    kind = path.suffix.lower()
    return kind in _PHOTOS and not (kind == '.webp' and name in jpegs)

  photos = {name for path, name in found.items() if is_photo(path, name)}
  others = {name for path, name in found.items() if not is_photo(path, name)}
  sure = tuple(suffix for suffix in suffixes if suffix in _SURE_SUFFIXES)
  ids = photos | others
  lower = {image_id.lower() for image_id in ids}

  def is_mask(path: pathlib.Path, name: str) -> bool:
    if sure and name.lower().endswith(sure):
      return True
    if name in photos and not is_photo(path, name):
      if name in jpegs and _is_first(path):
        return True
      endings = filter(None, suffixes)
      return all(name.lower() + e.lower() not in lower for e in endings)
    has_mask = any(name.lower() + suffix in lower for suffix in sure)
    has_mask = has_mask or (is_photo(path, name) and name in others)
    return bool(_bases(name, suffixes, ids)) and not has_mask

  masks = {path: name for path, name in found.items() if is_mask(path, name)}
  images = {path: name for path, name in found.items() if path not in masks}
  return images, masks


def _bases(
  name: str, suffixes: Sequence[str], known: Container[str]
) -> list[str]:
  """Known ids that are `name` without one of the endings; the longest first."""
  bases = [
    name[: -len(suffix)]
    for suffix in sorted(filter(None, suffixes), key=len)
    if name.lower().endswith(suffix.lower())
  ]
  return [base for base in bases if base in known]


def _pair(
  images: dict[pathlib.Path, str],
  masks: dict[pathlib.Path, str],
  suffixes: Sequence[str],
  problems: list[str],
) -> tuple[dict[str, layouts.Pair], int]:
  """Pairs by image id, sorted by it; what has no single mate is a problem.

  Where images lie in the folder itself, files in subfolders need no mate: they
  are left out, and their number is returned.
  """
  by_id, mates = collections.defaultdict(list), collections.defaultdict(list)
  for path, image_id in images.items():
    by_id[image_id].append(path)
  is_flat = any('/' not in image_id for image_id in by_id)
  pairs, alone, left_out = {}, [], 0
  for path, name in masks.items():
    bases = [name] if name in by_id else _bases(name, suffixes, by_id)
    if bases:
      mates[bases[0]].append(path)
    elif is_flat and '/' in name:
      left_out += 1
    else:
      alone.append(f'{path}: no image')
  for image_id, same_id in sorted(by_id.items()):
    found = mates[image_id]
    if not found and is_flat and '/' in image_id:
      left_out += len(same_id)
      continue
    if len(same_id) > 1:
      problems.append(f'{image_id}: several images ({_names(same_id)})')
    if len(found) > 1:
      problems.append(f'{image_id}: several masks ({_names(found)})')
    elif not found:
      problems.append(f'{same_id[0]}: no mask')
    else:
      pairs[image_id] = layouts.Pair(same_id[0], found[0])
  problems += alone
  return pairs, left_out


def _names(paths: list[pathlib.Path]) -> str:
  return ', '.join(path.name for path in paths)
