"""Predicts images from files and writes their masks."""

import collections
import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
import tqdm
from PIL import Image

from skinseg_jax.data import preprocessing
from skinseg_jax.inference import forward_pass, trained_model
from skinseg_jax.runtime import errors

# Images per forward pass; fewer where there are fewer images.
_BATCH_SIZE = 32

# Sky blue of Okabe and Ito, which colour-blind people see, too.
_TINT = np.array([86, 180, 233], np.float32)


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Where what is predicted goes.

  Attributes:
    masks: Folder of `<stem>.png`, 0 or 255, grey.
    overlays: Folder of `<stem>.png`, the image with its mask; None for none.
    probabilities: Folder of `<stem>.png`, 255 times the probability, grey;
      None for none.
  """

  masks: pathlib.Path
  overlays: pathlib.Path | None
  probabilities: pathlib.Path | None

  @property
  def folders(self) -> list[pathlib.Path]:
    """All that are wanted."""
    folders = (self.masks, self.overlays, self.probabilities)
    return [folder for folder in folders if folder]


@dataclasses.dataclass(frozen=True, eq=False)
class _Picture:
  """An image at the model's size, with its own height and width."""

  path: pathlib.Path
  image: np.ndarray
  size: tuple[int, int]


def find_images(inputs: Sequence[pathlib.Path]) -> list[pathlib.Path]:
  """Lists files, and the images directly in folders, in the order of names.

  Args:
    inputs: Files and folders.

  Raises:
    InputError: If one does not exist, a folder holds no image, or two images
      have one stem.
  """
  problems: list[str] = []
  found: dict[pathlib.Path, pathlib.Path] = {}
  for path in inputs:
    if path.is_dir():
      inside = [p for p in sorted(path.iterdir()) if _is_image(p)]
      if not inside:
        problems.append(f'{path} holds no image file')
    else:
      inside = [path]
      if not path.exists():
        problems.append(f'{path} does not exist')
    for file in inside:
      found.setdefault(file.resolve(), file)
  by_stem = collections.defaultdict(list)
  for path in found.values():
    by_stem[path.stem].append(path)
  problems += [
    f'{", ".join(map(str, paths))} have one stem, and so one mask'
    for paths in by_stem.values()
    if len(paths) > 1
  ]
  if problems:
    raise errors.InputError(
      'the inputs do not fit; name image files'
      f' ({", ".join(preprocessing.EXTENSIONS)}) with different stems, or'
      ' folders of them:\n' + errors.listing(problems)
    )
  return list(found.values())


def _is_image(path: pathlib.Path) -> bool:
  return (
    path.suffix.lower() in preprocessing.EXTENSIONS
    and not path.name.startswith('.')
    and path.is_file()
  )


def predict(
  model: trained_model.TrainedModel,
  paths: Sequence[pathlib.Path],
  outputs: Outputs,
) -> list[str]:
  """Writes a mask for each image that can be read.

  Args:
    model: What predicts.
    paths: Images with different stems.
    outputs: Folders, made if missing; files there are written over.

  Returns:
    What is wrong with each file that was skipped.
  """
  for folder in outputs.folders:
    folder.mkdir(parents=True, exist_ok=True)
  devices = model.sharding.mesh.size
  batch_size = -(-min(_BATCH_SIZE, len(paths)) // devices) * devices
  threshold = model.config.evaluation.threshold
  problems: list[str] = []
  workers = os.cpu_count() or 1
  with (
    concurrent.futures.ThreadPoolExecutor(workers) as pool,
    tqdm.tqdm(total=len(paths), unit='image', disable=None) as bar,
  ):
    read = lambda path: _read(path, model.config.data.image_size)
    pictures = _readable(
      _in_turn(pool, read, paths, most=2 * batch_size), problems
    )
    while batch := list(itertools.islice(pictures, batch_size)):
      probabilities = _probabilities(model, batch, batch_size)
      write = lambda pair: _write(pair[0], pair[1], threshold, outputs)
      pairs = list(zip(batch, probabilities, strict=False))
      for _ in _in_turn(pool, write, pairs, most=2 * workers):
        bar.update()
  return problems


def _in_turn(pool, function: Callable, items, *, most: int) -> Iterator:
  """Results in order, with at most `most` of them waiting."""
  pending: collections.deque = collections.deque()
  for item in items:
    pending.append(pool.submit(function, item))
    if len(pending) >= most:
      yield pending.popleft().result()
  while pending:
    yield pending.popleft().result()


def _read(
  path: pathlib.Path, image_size: tuple[int, int]
) -> _Picture | errors.InputError:
  try:
    image = _decode(path)
  except errors.InputError as error:
    return error
  resized = preprocessing.resize_image(image, image_size)
  return _Picture(path, resized, image.shape[:2])


def _decode(path: pathlib.Path) -> np.ndarray:
  try:
    data = path.read_bytes()
  except OSError as error:
    raise errors.InputError(f'{path}: unreadable ({error})') from error
  return preprocessing.decode_image(data, str(path))


def _readable(
  results: Iterator[_Picture | errors.InputError], problems: list[str]
) -> Iterator[_Picture]:
  """Passes on what could be read; the rest becomes lines of `problems`."""
  for result in results:
    if isinstance(result, errors.InputError):
      problems.append(str(result))
    else:
      yield result


def _probabilities(model, batch, batch_size) -> np.ndarray:
  """Probability of lesion, float32 [batch_size, H, W]; padding is black."""
  images = np.zeros((batch_size, *model.config.data.image_size, 3), np.uint8)
  images[: len(batch)] = [picture.image for picture in batch]
  logits = forward_pass.forward(
    model.graphdef,
    model.state,
    jax.device_put(images, model.sharding),
    views=model.config.evaluation.test_time_augmentation,
  )
  return np.asarray(forward_pass.probabilities(logits))


def _write(
  picture: _Picture,
  probability: np.ndarray,
  threshold: float,
  outputs: Outputs,
) -> None:
  probability = preprocessing.resize_probability(probability, picture.size)
  mask = probability > threshold
  name = f'{picture.path.stem}.png'
  _save(mask.astype(np.uint8) * 255, outputs.masks / name)
  if outputs.probabilities:
    grey = np.rint(probability * 255).astype(np.uint8)
    _save(grey, outputs.probabilities / name)
  if outputs.overlays:
    # Decoded again: large pictures are not kept while a batch is predicted.
    _save(_overlay(_decode(picture.path), mask), outputs.overlays / name)


def _overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """The image, tinted where the mask is, with a white line at its border."""
  image = image.copy()
  image[mask] = (0.75 * image[mask] + 0.25 * _TINT).astype(np.uint8)
  line = np.zeros_like(mask)
  for axis in (0, 1):
    changes = np.diff(mask, axis=axis)
    line |= np.pad(changes, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
  image[line] = 255
  return image


def _save(pixels: np.ndarray, path: pathlib.Path) -> None:
  temporary = path.with_name(path.name + '.tmp')
  Image.fromarray(pixels).save(temporary, 'PNG')
  temporary.replace(path)


def check_outputs(
  paths: Sequence[pathlib.Path], outputs: Outputs, overwrite: bool
) -> None:
  """Refuses to write over inputs, and over other files unless told to."""
  inputs = {path.resolve() for path in paths}
  targets = [
    folder / f'{path.stem}.png' for folder in outputs.folders for path in paths
  ]
  taken = [str(path) for path in targets if path.resolve() in inputs]
  if taken:
    raise errors.InputError(
      'these masks would be written over input images; choose another'
      ' --output:\n' + errors.listing(taken)
    )
  there = [str(path) for path in targets if path.exists()]
  if there and not overwrite:
    raise errors.InputError(
      'these files are there already; choose another --output, or give'
      ' --overwrite:\n' + errors.listing(there)
    )
