"""Finds the images to predict, without holding all of their names in memory.

Files are looked at twice: once to check everything before anything is written,
and again when they are predicted. Between the two, 8 bytes are kept for each
file and for each of its outputs.
"""

import array
import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from skinseg_jax.data import pictures
from skinseg_jax.data.sources import folder_files
from skinseg_jax.inference import outputs as outputs_lib
from skinseg_jax.inference import table
from skinseg_jax.runtime import errors


class Input(NamedTuple):
  """An image file, and the name of what is written for it.

  The name is the path below the folder that was given, without extension, or
  the stem of a file that was given itself.
  """

  path: pathlib.Path
  name: str

  @property
  def file(self) -> str:
    """The absolute path, by which later runs know the file again."""
    return os.path.abspath(self.path)


@dataclasses.dataclass(frozen=True)
class Inputs:
  """The images to predict; iterating walks the folders.

  Attributes:
    paths: Files and folders.
    leave_out: A folder that is not searched: that of the masks.
    several: Files that several of the paths lead to; each is predicted once.
    count: Number of images.
    notes: Sentences on files that were left out.
  """

  paths: Sequence[pathlib.Path]
  leave_out: pathlib.Path
  several: frozenset[Input]
  count: int
  notes: list[str]

  def __iter__(self) -> Iterator[Input]:
    taken = set()
    for path in self.paths:
      for file in _walk(path, self.leave_out, []):
        if file in self.several:
          if _key(file) in taken:
            continue
          taken.add(_key(file))
        yield file


def scan(
  paths: Sequence[pathlib.Path],
  outputs: outputs_lib.Outputs,
  done: table.Done,
  *,
  overwrite: bool,
) -> Inputs:
  """Looks at all inputs and refuses what cannot be predicted as it is.

  Args:
    paths: Files and folders; the folders are searched with all below them.
    outputs: Where predictions will be written.
    done: What earlier runs wrote there.
    overwrite: Whether files that are already there may be replaced.

  Returns:
    The images: those of each path in turn, in a folder by name.

  Raises:
    InputError: If a path does not exist, cannot be read or holds no image, a
      folder below one cannot be read, a package that some images need is not
      installed, two images have one output, or an output is an input, another
      file, or belongs to another image.
  """
  paths = _different(paths)
  seen = _Seen(outputs, done)
  notes: list[str] = []
  problems = [f'{path} does not exist' for path in paths if not path.exists()]
  for path in paths:
    before = len(seen.sources)
    if not path.exists():
      continue
    try:
      for file in _walk(path, outputs.masks, notes):
        seen.add(file)
    except OSError as error:
      problems.append(f'{path} cannot be read ({error.strerror})')
      continue
    if len(seen.sources) == before:
      problems.append(f'{path} holds no image file')
  if problems:
    raise errors.InputError(
      'the inputs do not fit; name image files'
      f' ({", ".join(pictures.EXTENSIONS)}), or folders of them:\n'
      + errors.listing(problems)
    )
  found = Inputs(paths, outputs.masks, frozenset(), len(seen.sources), notes)
  if not all(s in pictures.FIRST_EXTENSIONS for s in seen.extensions):
    pictures.check_installed(file.path for file in found)
  if several := _check_shared(found, seen):
    found = dataclasses.replace(found, several=several)
    found = dataclasses.replace(found, count=sum(1 for _ in found))
  _check_taken(found, seen)
  _check_there(seen, overwrite)
  return found


def _different(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
  """Without folders, and files of one name, that were given before."""
  by_place = {
    (path.resolve(), '' if path.is_dir() else path.stem): path
    for path in reversed(paths)
  }
  return list(reversed(by_place.values()))


def _walk(
  path: pathlib.Path, leave_out: pathlib.Path, notes: list[str]
) -> Iterator[Input]:
  if not path.is_dir():
    yield Input(path, path.stem)
    return
  # A folder that is itself the output holds its inputs: `_check_taken` refuses
  # that.
  same = leave_out.exists() and path.samefile(leave_out)
  for file, name in folder_files.walk_pictures(
    path, leave_out=[] if same else [leave_out], notes=notes
  ):
    yield Input(file, name)


class _Seen:
  """What is kept of the files: mostly hashes, 8 bytes each."""

  def __init__(self, outputs: outputs_lib.Outputs, done: table.Done):
    self.outputs = outputs
    self._done = done
    self.sources = array.array('q')  # Identities of the input files.
    self.targets = array.array('q')  # Paths of their outputs.
    self.present = array.array('q')  # Identities of outputs that exist.
    self.there = errors.Few()
    self.others = errors.Few()
    self.extensions: set[str] = set()

  def add(self, file: Input) -> None:
    self.sources.append(_identity(file.path) or 0)
    self.extensions.add(file.path.suffix.lower())
    for target in self.outputs.targets(file.name):
      self.targets.append(hash(str(target)))
      if identity := _identity(target):
        self.present.append(identity)
        self.there.add(str(target))
    if self._done.other_file(file.name, file.file):
      self.others.add(f'{file.name}: {file.path}')

  @property
  def resumes(self) -> bool:
    return self._done.found


def _identity(path: pathlib.Path) -> int | None:
  """A number that all links to a file have in common; None if missing."""
  try:
    info = os.stat(path)
  except OSError:
    return None
  return hash((info.st_dev, info.st_ino))


def _key(file: Input) -> tuple[pathlib.Path, str]:
  """Equal for one file; a link with a name of its own is another one."""
  return file.path.resolve(), file.name


def _check_shared(found: Inputs, seen: _Seen) -> frozenset[Input]:
  """Refuses inputs with one output; returns files found several times."""
  values, counts = np.unique(np.array(seen.targets), return_counts=True)
  hashes = set(values[counts > 1].tolist())
  if not hashes:
    return frozenset()
  by_target = collections.defaultdict(list)
  for file in found:
    for target in seen.outputs.targets(file.name):
      if hash(str(target)) in hashes:
        by_target[target].append(file)
  shared, several = [], set()
  for target, files in by_target.items():
    first = {_key(file): file for file in reversed(files)}
    if len(first) > 1:
      paths = ' and '.join(str(file.path) for file in reversed(first.values()))
      shared.append(f'{target}: {paths}')
    elif len(files) > 1:
      several.update(files)
  if shared:
    raise errors.InputError(
      'these outputs would be written for several inputs; rename one of them,'
      ' or predict them in separate runs with another --output each:\n'
      + errors.listing(shared)
    )
  return frozenset(several)


def _check_taken(found: Inputs, seen: _Seen) -> None:
  taken = set(np.intersect1d(seen.present, seen.sources).tolist())
  if not taken:
    return
  paths = [
    str(target)
    for file in found
    for target in seen.outputs.targets(file.name)
    if _identity(target) in taken
  ]
  raise errors.InputError(
    'these masks would be written over input images; choose another'
    ' --output:\n' + errors.listing(paths)
  )


def _check_there(seen: _Seen, overwrite: bool) -> None:
  if overwrite:
    return
  if seen.others.count:
    raise errors.InputError(
      f'{seen.outputs.masks} already holds masks of other files with these'
      ' names; choose another --output, or give --overwrite to predict'
      ' everything again:\n' + str(seen.others)
    )
  table_path = seen.outputs.masks / table.NAME
  if table_path.exists():
    seen.there.add(str(table_path))
  if seen.there.count and not seen.resumes:
    raise errors.InputError(
      'these files already exist; choose another --output, or give'
      ' --overwrite:\n' + str(seen.there)
    )
