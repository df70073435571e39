"""The raw files of HAM10000, read in place: zips or folders.

Known are the Dataverse layout (zips, or folders of their names) and two of
Kaggle. One has folders of images, the csv, and any one folder of masks; it
repeats the images in folders with names in lower case, which are ignored. The
other has the folders `images` and `masks` and the classes in `GroundTruth.csv`;
it does not say which lesion an image shows. Nothing is extracted to disk.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import threading
import zipfile
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from skinseg_jax.data import remedies as remedies_lib
from skinseg_jax.data import tables
from skinseg_jax.runtime import errors

METADATA_NAME = 'HAM10000_metadata.csv'
# The table of the second Kaggle layout: the image and one column a class.
CLASSES_NAME = 'GroundTruth.csv'
COLUMNS = (
    'lesion_id', 'image_id', 'dx', 'dx_type', 'age', 'sex', 'localization',
    'dataset',
)  # fmt: skip
WHERE_TO_GET = 'https://doi.org/10.7910/DVN/DBW86T'

# Kaggle's csv lacks `dataset`; these must be there and filled.
_REQUIRED_COLUMNS = {
  METADATA_NAME: ('lesion_id', 'image_id', 'dx'),
  CLASSES_NAME: ('image_id', 'dx'),
}
# Patterns of file names; the group is the image id.
_IMAGE_NAME = re.compile(r'(.+)\.jpe?g', re.IGNORECASE)
_MASK_NAME = re.compile(r'(.+)_segmentation\.png', re.IGNORECASE)
# The largest real file has 0.6 MB; a much larger one may be a zip bomb.
_MAX_BYTES = 64 * 2**20
# Other methods are refused: a file can make LZMA use any amount of memory.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class RawPaths(NamedTuple):
  """Paths of the raw files: zips or folders, by the names used in messages."""

  images: dict[str, pathlib.Path]
  masks: dict[str, pathlib.Path]
  metadata: pathlib.Path


class _Container(Protocol):
  """A zip or a folder, and what it holds."""

  # Size in bytes by name within the container; a name may come twice.
  entries: list[tuple[str, int]]

  def read(self, entry: str) -> bytes: ...


class _Zip:
  def __init__(self, path: pathlib.Path):
    self._zip = zipfile.ZipFile(path)
    self._lock = threading.Lock()
    self.entries = [
      (info.filename, info.file_size)
      for info in self._zip.infolist()
      if not info.filename.endswith('/')  # is_dir() needs a name.
    ]

  def read(self, entry: str) -> bytes:
    with self._lock:
      info = self._zip.getinfo(entry)
      if info.compress_type not in _COMPRESSIONS:
        raise NotImplementedError(f'compression method {info.compress_type}')
      # Never more than the size it declares.
      return self._zip.read(info)


class _Folder:
  def __init__(self, path: pathlib.Path):
    self._path = path
    self.entries = [
      (file.relative_to(path).as_posix(), file.stat().st_size)
      for file in sorted(path.rglob('*'))
      if file.is_file()
    ]

  def read(self, entry: str) -> bytes:
    return (self._path / entry).read_bytes()


@dataclasses.dataclass(frozen=True)
class RawFile:
  """One image or mask: its name in messages and its size in bytes."""

  name: str
  size: int
  container: _Container
  entry: str

  def read(self) -> bytes:
    """Reads the file whole.

    Raises:
      InputError: If it cannot be read, or its checksum in the zip differs.
    """
    try:
      return self.container.read(self.entry)
    except Exception as error:  # A damaged zip leads zipfile into anything.
      raise errors.InputError(f'{self.name}: unreadable ({error})') from error


@dataclasses.dataclass
class RawFiles:
  """Contents of the raw files by image id, and their problems.

  Attributes:
    images: Images by id.
    masks: Masks by id.
    rows: Metadata by id; every row has all `COLUMNS`, '' where empty.
    sizes: Bytes by name of zip, folder or csv.
    unreadable: One line for each zip or csv that could not be read.
    problems: One line for each thing in the others that does not fit.
  """

  images: dict[str, RawFile] = dataclasses.field(default_factory=dict)
  masks: dict[str, RawFile] = dataclasses.field(default_factory=dict)
  rows: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
  sizes: dict[str, int] = dataclasses.field(default_factory=dict)
  unreadable: list[str] = dataclasses.field(default_factory=list)
  problems: list[str] = dataclasses.field(default_factory=list)

  def listing_digest(self) -> str:
    """SHA-256, in hex, of ids, sizes and rows: the same in any layout.

    Only for raw files without problems; reads no picture.
    """
    return digest(
        [image_id, image.size, self.masks[image_id].size,
         *self.rows[image_id].values()]
        for image_id, image in sorted(self.images.items())
    )  # fmt: skip


def find(
  raw_dir: pathlib.Path,
  remedies: remedies_lib.Remedies = remedies_lib.CONFIG,
) -> RawPaths:
  """Finds the raw files in a directory; a zip goes before its folder.

  Args:
    raw_dir: The directory.
    remedies: What the user types to name another.

  Raises:
    InputError: If the directory or a part of the data set is missing.
  """
  if not raw_dir.is_dir():
    raise errors.InputError(
      f'no such directory: {raw_dir} ({remedies_lib.name(remedies.raw_dir)});'
      ' leave it out to use what is prepared, else to download.'
    )
  images = _containers(raw_dir, 'HAM10000_images_part_*')
  images = images or _containers(raw_dir, 'ham10000_images_part_*')
  images = images or _containers(raw_dir, 'images')
  masks = _containers(raw_dir, 'HAM10000_segmentations*')
  masks = masks or _mask_folders(raw_dir)
  candidates = [raw_dir / METADATA_NAME, raw_dir / CLASSES_NAME]
  metadata = next((path for path in candidates if path.is_file()), None)
  missing = []
  if not images:
    missing.append(
      'HAM10000_images_part_*.zip, folders of those names, or the folder images'
    )
  if not masks:
    missing.append(
      'HAM10000_segmentations_lesion_tschandl.zip, or a folder of'
      ' *_segmentation.png'
    )
  if not metadata:
    missing.append(
      f'{METADATA_NAME} (Dataverse: "Original File Format") or {CLASSES_NAME}'
    )
  if missing or not metadata:
    raise errors.InputError(
      f'{raw_dir} lacks:\n{errors.listing(missing)}\nGet them from'
      f' {WHERE_TO_GET}, or leave {remedies_lib.name(remedies.raw_dir)} out to'
      ' have everything downloaded.'
    )
  return RawPaths(images, masks, metadata)


def _containers(raw_dir: pathlib.Path, pattern: str) -> dict[str, pathlib.Path]:
  by_stem = {}
  for path in sorted(raw_dir.glob(pattern)):  # x sorts before x.zip.
    if path.is_dir() or path.suffix == '.zip':
      by_stem[path.stem] = path
  return {path.name: path for path in by_stem.values()}


def _mask_folders(raw_dir: pathlib.Path) -> dict[str, pathlib.Path]:
  return {
    path.name: path
    for path in sorted(raw_dir.iterdir())
    if path.is_dir() and any(path.rglob('*_segmentation.png'))
  }


def list_files(paths: RawPaths) -> RawFiles:
  """Lists the contents of the raw files and pairs them; reads no picture.

  Missing pairs are not looked for where a zip or the csv cannot be read.
  """
  raw = RawFiles()
  _add_members(raw, raw.images, paths.images, _IMAGE_NAME)
  _add_members(raw, raw.masks, paths.masks, _MASK_NAME)
  _add_rows(raw, paths.metadata)
  if not raw.unreadable:
    _add_unpaired(raw, list(paths.images), _table_name(paths.metadata))
  return raw


def _add_members(
  raw: RawFiles,
  members: dict[str, RawFile],
  paths: dict[str, pathlib.Path],
  pattern: re.Pattern[str],
) -> None:
  """Adds the files whose names fit `pattern` to `members`, by image id."""
  for container_name, path in paths.items():
    try:
      container = _Folder(path) if path.is_dir() else _Zip(path)
    except Exception as error:  # A damaged one leads zipfile into anything.
      raw.unreadable.append(
        f'{container_name}: not a whole zip file ({error}); get it again'
      )
      continue
    raw.sizes[container_name] = sum(size for _, size in container.entries)
    for entry, size in container.entries:
      file = RawFile(f'{container_name}/{entry}', size, container, entry)
      if problem := _entry_problem(file):
        raw.problems.append(f'{file.name}: {problem}')
      elif match := _match(pattern, entry):
        known = members.setdefault(match[1], file)
        if known is not file:
          raw.problems.append(
            f'{file.name}: {match[1]} again, after {known.name}'
          )


def _entry_problem(file: RawFile) -> str | None:
  path = pathlib.PureWindowsPath(file.entry)  # Knows /, \ and drive letters.
  if path.anchor or '..' in path.parts:
    return 'a name that leads out of the folder; do not trust this zip'
  if file.size > _MAX_BYTES:
    return f'{file.size} bytes, at most {_MAX_BYTES} are allowed'
  return None


def _match(pattern: re.Pattern[str], entry: str) -> re.Match[str] | None:
  """Matches the last part of a name; files that macOS adds never match."""
  path = pathlib.PurePosixPath(entry)
  if '__MACOSX' in path.parts or path.name.startswith('.'):
    return None
  return pattern.fullmatch(path.name)


def _add_rows(raw: RawFiles, path: pathlib.Path) -> None:
  name = _table_name(path)
  try:
    table = tables.read(path)
  except errors.InputError as error:
    raw.unreadable.append(f'{name}: {error}')
    return
  required = _REQUIRED_COLUMNS[name]
  if lacking := [c for c in required if c not in table.header]:
    raw.unreadable.append(
      f'{name}: no column {", ".join(lacking)} among {", ".join(table.header)}'
    )
    return
  raw.sizes[name] = path.stat().st_size
  raw.problems += [f'{name}: {problem}' for problem in table.problems]
  for number, values in table.lines:
    row = {column: values.get(column, '').strip() for column in COLUMNS}
    place = f'{name}: row {number}'
    if empty := [c for c in required if not row[c]]:
      raw.problems.append(f'{place} has no {", ".join(empty)}')
    elif raw.rows.setdefault(row['image_id'], row) is not row:
      raw.problems.append(f'{place} has {row["image_id"]} again')


def _table_name(path: pathlib.Path) -> str:
  """Name of the table in messages; a download has another name."""
  return CLASSES_NAME if path.name == CLASSES_NAME else METADATA_NAME


def _add_unpaired(raw: RawFiles, image_sources: list[str], table: str) -> None:
  """Notes files without a counterpart; ignores rows of other images."""
  for image_id, image in sorted(raw.images.items()):
    if image_id not in raw.masks:
      raw.problems.append(f'{image.name}: no mask {image_id}_segmentation.png')
    if image_id not in raw.rows:
      raw.problems.append(f'{table}: no row for {image_id}')
  if alone := sorted(raw.masks.keys() - raw.images.keys()):
    raw.problems.append(
      f'{len(alone)} masks have no image; is a HAM10000_images_part_*.zip'
      ' missing (the original has parts 1 and 2)? Found:'
      f' {", ".join(image_sources)}'
    )
    raw.problems += [f'{raw.masks[name].name}: no image' for name in alone]


def digest(lines: Iterable[list]) -> str:
  """SHA-256, in hex, of lists that JSON can hold, one a line."""
  sha256 = hashlib.sha256()
  for line in lines:
    sha256.update(json.dumps(line).encode() + b'\n')
  return sha256.hexdigest()
