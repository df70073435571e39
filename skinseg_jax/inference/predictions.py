"""Predicts images from files and writes their masks."""

import collections
import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tqdm
from PIL import Image

from skinseg_jax.data import pictures, preprocessing
from skinseg_jax.data.sources import folder_files
from skinseg_jax.runtime import errors

if TYPE_CHECKING:
  from skinseg_jax.inference import trained_model

# Images per forward pass; fewer where there are fewer images.
_BATCH_SIZE = 32

# Sky blue of Okabe and Ito, which colour-blind people can also see.
_TINT = np.array([86, 180, 233], np.float32)


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Folders for the predictions.

  Attributes:
    masks: Folder of `<name>.png`, 0 or 255, grey.
    overlays: Folder of `<name>.png`, the image with its mask; None for none.
    probabilities: Folder of `<name>.png`, 255 times the probability, grey;
      None for none.
  """

  masks: pathlib.Path
  overlays: pathlib.Path | None
  probabilities: pathlib.Path | None

  @property
  def folders(self) -> list[pathlib.Path]:
    """All folders to write to."""
    folders = (self.masks, self.overlays, self.probabilities)
    return [folder for folder in folders if folder]


class Input(NamedTuple):
  """An image file, and the name of what is written for it.

  The name is the path below the folder that was given, without extension, or
  the stem of a file that was given itself.
  """

  path: pathlib.Path
  name: str


@dataclasses.dataclass(frozen=True, eq=False)
class _Picture:
  """An image resized for the model, with its original height and width."""

  input: Input
  image: np.ndarray
  size: tuple[int, int]
  # Pictures in the file, of which this is the first.
  count: int


def find_images(
  inputs: Sequence[pathlib.Path], *, leave_out: pathlib.Path
) -> tuple[list[Input], list[str]]:
  """Lists files, and the images in folders and all folders below them.

  Args:
    inputs: Files and folders.
    leave_out: A folder that is not searched: that of the masks.

  Returns:
    The images in the order of paths; and sentences on files that were left out.

  Raises:
    InputError: If one does not exist, a folder holds no image, or a package
      that some images need is not installed.
  """
  problems: list[str] = []
  notes: list[str] = []
  # By file and name: a link with a name of its own has an output of its own.
  found: dict[tuple[pathlib.Path, str], Input] = {}
  for path in inputs:
    if path.is_dir():
      # A folder that is itself the output holds its inputs: `check_outputs`
      # refuses that.
      same = leave_out.exists() and path.samefile(leave_out)
      inside, more = folder_files.find_pictures(
        path, leave_out=[] if same else [leave_out]
      )
      notes += more
      if not inside:
        problems.append(f'{path} holds no image file')
    else:
      inside = {path: path.stem}
      if not path.exists():
        problems.append(f'{path} does not exist')
    for file, name in inside.items():
      found.setdefault((file.resolve(), name), Input(file, name))
  if problems:
    raise errors.InputError(
      'the inputs do not fit; name image files'
      f' ({", ".join(pictures.EXTENSIONS)}), or folders of them:\n'
      + errors.listing(problems)
    )
  images = list(found.values())
  pictures.check_installed(image.path for image in images)
  return images, notes


def predict(
  model: 'trained_model.TrainedModel',
  inputs: Sequence[Input],
  outputs: Outputs,
) -> tuple[list[str], list[str]]:
  """Writes a mask for each image that can be read.

  Args:
    model: What predicts.
    inputs: Images with different names.
    outputs: Folders, made if missing; files there are written over.

  Returns:
    What is wrong with each file that was skipped; and a line for each file
    that holds several pictures, of which the first was used.
  """
  for folder in outputs.folders:
    folder.mkdir(parents=True, exist_ok=True)
  # Imported where used: files are looked at before, and JAX takes seconds.
  from skinseg_jax.inference import predictor

  batch_size = predictor.whole_batch(model, min(_BATCH_SIZE, len(inputs)))
  threshold = model.config.evaluation.threshold
  problems: list[str] = []
  several: list[str] = []
  workers = os.cpu_count() or 1
  with (
    concurrent.futures.ThreadPoolExecutor(workers) as pool,
    tqdm.tqdm(total=len(inputs), unit='image', disable=None) as bar,
  ):
    read = lambda file: _read(file, model.config.data.image_size)
    readable = _readable(
      _in_turn(pool, read, inputs, most=2 * batch_size), problems
    )
    while batch := list(itertools.islice(readable, batch_size)):
      several += [
        f'{picture.input.path}: {picture.count} pictures'
        for picture in batch
        if picture.count > 1
      ]
      images = [picture.image for picture in batch]
      probabilities = predictor.probabilities(model, images, batch_size)
      write = lambda pair: _write(pair[0], pair[1], threshold, outputs)
      pairs = list(zip(batch, probabilities, strict=False))
      for _ in _in_turn(pool, write, pairs, most=2 * workers):
        bar.update()
  return problems, several


def _in_turn(pool, function: Callable, items, *, most: int) -> Iterator:
  """Yields results in order, with at most `most` of them pending."""
  pending: collections.deque = collections.deque()
  for item in items:
    pending.append(pool.submit(function, item))
    if len(pending) >= most:
      yield pending.popleft().result()
  while pending:
    yield pending.popleft().result()


def _read(
  file: Input, image_size: tuple[int, int]
) -> _Picture | errors.InputError:
  try:
    data = _bytes(file.path)
    image = preprocessing.decode_image(data, str(file.path))
    count = pictures.count(data, str(file.path))
  except errors.InputError as error:
    return error
  resized = preprocessing.resize_image(image, image_size)
  return _Picture(file, resized, image.shape[:2], count)


def _bytes(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise errors.InputError(f'{path}: unreadable ({error})') from error


def _readable(
  results: Iterator[_Picture | errors.InputError], problems: list[str]
) -> Iterator[_Picture]:
  """Yields the images that could be read; adds errors to `problems`."""
  for result in results:
    if isinstance(result, errors.InputError):
      problems.append(str(result))
    else:
      yield result


def _write(
  picture: _Picture,
  probability: np.ndarray,
  threshold: float,
  outputs: Outputs,
) -> None:
  probability = preprocessing.resize_probability(probability, picture.size)
  mask = probability > threshold
  name = f'{picture.input.name}.png'
  _save(mask.astype(np.uint8) * 255, outputs.masks / name)
  if outputs.probabilities:
    grey = np.rint(probability * 255).astype(np.uint8)
    _save(grey, outputs.probabilities / name)
  if outputs.overlays:
    # Decoded again: large pictures are not kept while a batch is predicted.
    path = picture.input.path
    image = preprocessing.decode_image(_bytes(path), str(path))
    _save(_overlay(image, mask), outputs.overlays / name)


def _overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """The image, tinted inside the mask, with a white line at the border."""
  image = image.copy()
  image[mask] = (0.75 * image[mask] + 0.25 * _TINT).astype(np.uint8)
  line = np.zeros_like(mask)
  for axis in (0, 1):
    changes = np.diff(mask, axis=axis)
    line |= np.pad(changes, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
  image[line] = 255
  return image


def _save(pixels: np.ndarray, path: pathlib.Path) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + '.tmp')
  Image.fromarray(pixels).save(temporary, 'PNG')
  temporary.replace(path)


def check_outputs(
  inputs: Sequence[Input], outputs: Outputs, overwrite: bool
) -> None:
  """Refuses to write over inputs, and over other files unless told to.

  Raises:
    InputError: Naming the files; also where two inputs have one output.
  """
  sources = {file.path.resolve() for file in inputs}
  by_target = collections.defaultdict(list)
  for folder in outputs.folders:
    for file in inputs:
      by_target[folder / f'{file.name}.png'].append(str(file.path))
  shared = [
    f'{target}: {" and ".join(paths)}'
    for target, paths in by_target.items()
    if len(paths) > 1
  ]
  if shared:
    raise errors.InputError(
      'these outputs would be written for several inputs; rename one of them,'
      ' or predict them in separate runs with another --output each:\n'
      + errors.listing(shared)
    )
  taken = [str(path) for path in by_target if path.resolve() in sources]
  if taken:
    raise errors.InputError(
      'these masks would be written over input images; choose another'
      ' --output:\n' + errors.listing(taken)
    )
  there = [str(path) for path in by_target if path.exists()]
  if there and not overwrite:
    raise errors.InputError(
      'these files already exist; choose another --output, or give'
      ' --overwrite:\n' + errors.listing(there)
    )
