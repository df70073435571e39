"""Predicts images from files and writes their masks and a table of them.

Files are read ahead in threads and written in threads, a bounded number at a
time, so the memory does not grow with the number of images. Every batch has the
same size, so one program is compiled; the last batch is filled up.
"""

import collections
import concurrent.futures
import dataclasses
import math
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tqdm

from skinseg_jax.data import pictures, preprocessing
from skinseg_jax.inference import (
  image_columns,
  inputs,
  model_interface,
  outputs,
  postprocessing,
  predictor,
  table,
  tiles,
)
from skinseg_jax.quality import expected_dice, review
from skinseg_jax.runtime import distributed, errors, stop_signals

# Whole pictures in memory at once, if they are cut into tiles.
_LARGE_PICTURES = 2
# Limit on the probabilities of views of pictures whose files are not written
# yet, in bytes. One batch comes on top.
_WAITING_BYTES = 2**28
# Pictures whose tiles wait for one batch have 4 bytes a pixel in memory. Beyond
# so many pixels, no other picture is added to the batch.
_WAITING_PIXELS = 2**26


@dataclasses.dataclass(frozen=True)
class Options:
  """How masks are made of what the model says.

  Attributes:
    cleaning: What is done to each mask.
    tile: Height of the tiles that a picture is cut into, in its own pixels;
      their width has the proportions of the model's input. None: the whole
      picture is resized to the size of the model's input.
    review: What is known of the Dice of this model's masks, or None.
    measures: Whether the table also has the measures of each lesion, and their
      ranges over the views of a picture that is not cut into tiles.
    pixel_spacing: Distance between rows and between columns in millimetres, of
      upright pictures whose file does not state it; None if it is not known.
  """

  cleaning: postprocessing.Steps
  tile: int | None
  review: expected_dice.Calibration | None = None
  measures: bool = False
  pixel_spacing: tuple[float, float] | None = None

  @property
  def columns(self) -> Sequence[str]:
    """Columns of the table."""
    more = image_columns.measure_names() if self.measures else ()
    return (*table.COLUMNS, *more)


@dataclasses.dataclass(eq=False)
class _Picture:
  """An image, and what was predicted for it so far."""

  input: inputs.Input
  # Resized to the size of the model's input.
  reduced: np.ndarray
  # What the model is asked, in turn: results of `predictor.resize`.
  parts: Iterator[list[np.ndarray]]
  size: tuple[int, int]
  # Pictures in the file, of which this is the first.
  count: int
  blend: tiles.Blend | None
  answer: predictor.Answer | None = None

  def take(self, index: int, answer: predictor.Answer) -> bool:
    """Takes the prediction of a part; whether it was the last one."""
    if self.blend:
      self.blend.add(index, answer.probability)
      return not self.blend.missing
    self.answer = answer
    return True

  def probability(self) -> np.ndarray:
    """Float32 [height, width] at the picture's own size."""
    if self.blend:
      return self.blend.probability
    assert self.answer
    return preprocessing.resize_probability(self.answer.probability, self.size)


def predict(
  model: model_interface.AnyModel,
  files: inputs.Inputs,
  places: outputs.Outputs,
  done: table.Done,
  options: Options,
) -> table.Summary:
  """Writes a mask and a row of the table for each image that can be read.

  In a run of several processes each predicts its share of the images, and all
  of them have to call this.

  Args:
    model: What predicts.
    files: Images with different names.
    places: Folders, made if missing; files there are written over.
    done: Images that earlier runs finished; they are left as they are.
    options: How masks are made.

  Returns:
    What the table holds afterwards.

  Raises:
    InputError: If the folder holds predictions of another model or with other
      options.
    StoppedError: After a signal, in one process; the same call resumes.
  """
  model = model.on_this_process()
  settings = _settings(model, places, options)
  process, processes = distributed.process()

  def start():
    if not process:
      table.start(places.masks, settings, done)

  distributed.primary_first(start)
  # By name and not by position, so that each image is predicted once even where
  # processes see different files.
  share = (
    file
    for file in files
    if zlib.crc32(os.fsencode(file.name)) % processes == process
    and (file.name, file.file) not in done
  )
  with (
    table.Writer(places.masks, process, options.columns) as writer,
    stop_signals.StopSignals() as stop,
    stop.deferred(),
    tqdm.tqdm(
      total=files.count, initial=len(done), unit='image', disable=None
    ) as bar,
  ):
    for row in stop.heeded(_rows(model, share, places, options, files.count)):
      writer.add(row)
      bar.update()
  distributed.primary_first(lambda: None)  # All of them are ready.
  distributed.primary_first(
    lambda: None if process else table.join(places.masks, options.columns)
  )
  return table.summary(places.masks)


def _settings(
  model: model_interface.AnyModel, places: outputs.Outputs, options: Options
) -> dict[str, Any]:
  """What the files depend on, apart from the images."""
  members = model.members
  configs = [member.config for member in members]
  # As many values as there are models; of one model, the value itself.
  of_each = lambda values: values if len(members) > 1 else values[0]
  return {
    'model': model.fingerprint(),
    'step': of_each([member.step for member in members]),
    'image_size': of_each([config.data.image_size for config in configs]),
    'threshold': model.config.evaluation.threshold,
    'views': of_each(
      [config.evaluation.test_time_augmentation for config in configs]
    ),
    'overlay': places.overlays is not None,
    'probability': places.probabilities is not None,
    'uncertainty': places.uncertainties is not None,
    'review': options.review and options.review.fingerprint(),
    'tiles': options.tile,
    **dataclasses.asdict(options.cleaning),
    'measures': options.measures,
    'pixel_spacing': options.pixel_spacing,
    'columns': options.columns,
  }


def _rows(
  model: model_interface.AnyModel,
  files: Iterable[inputs.Input],
  places: outputs.Outputs,
  options: Options,
  count: int,
) -> Iterator[dict[str, Any]]:
  """Predicts, and yields the row of each image when its files are written."""
  size = model.config.data.image_size
  threshold = model.config.evaluation.threshold
  tile = None
  if options.tile:
    tile = (options.tile, max(1, round(options.tile * size[1] / size[0])))
  # By the number of images, not of those that are left: the same program gives
  # the same bits before and after an interruption.
  batch_size = predictor.batch_size(
    model, predictor.BATCH_SIZE if tile else count
  )
  most = _LARGE_PICTURES if tile else 2 * batch_size
  # Views of tiles are not kept.
  views = 'own' if options.measures and not tile else 'none'
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    # Rows, and the futures of those that are being made.
    rows: collections.deque[Any] = collections.deque()
    batch: list[tuple[_Picture, int, list[np.ndarray]]] = []

    def predict_batch():
      nonlocal most
      parts = [part for _, _, part in batch]
      answers = predictor.answers(model, parts, batch_size, views=views)
      for (picture, index, _), answer in zip(batch, answers, strict=True):
        if len(answer.views):
          most = min(most, max(1, _WAITING_BYTES // answer.views.nbytes))
        if picture.take(index, answer):
          rows.append(pool.submit(_write, picture, threshold, places, options))
      batch.clear()

    read = lambda file: _read(file, model, tile)
    for found in _in_turn(pool, read, files, most=most):
      if isinstance(found, dict):
        rows.append(found)
      else:
        waiting = {picture for picture, _, _ in batch} if tile else set()
        if sum(math.prod(one.size) for one in waiting) > _WAITING_PIXELS:
          predict_batch()
        for index, part in enumerate(found.parts):
          batch.append((found, index, part))
          if len(batch) == batch_size:
            predict_batch()
      while len(rows) > most:
        yield _result(rows.popleft())
    if batch:
      predict_batch()
    yield from map(_result, rows)


def _result(row: Any) -> dict[str, Any]:
  return row if isinstance(row, dict) else row.result()


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
  file: inputs.Input,
  model: model_interface.AnyModel,
  tile: tuple[int, int] | None,
) -> _Picture | dict[str, Any]:
  """Reads an image; the row of the table if that fails."""
  try:
    data = _bytes(file.path)
    image = preprocessing.decode_image(data, str(file.path))
    count = pictures.count(data, str(file.path))
  except errors.InputError as error:
    return _skipped(file, error)
  own = image.shape[:2]
  reduced = preprocessing.resize_image(image, model.config.data.image_size)
  if tile:
    blend = tiles.Blend(own, tile)
    parts = (predictor.resize(model, part) for part in blend.cut(image))
    return _Picture(file, reduced, parts, own, count, blend)
  resized = iter([predictor.resize(model, image)])
  return _Picture(file, reduced, resized, own, count, None)


def _skipped(file: inputs.Input, error: errors.InputError) -> dict[str, Any]:
  return {
    'image_id': file.name,
    'file': file.file,
    'status': table.SKIPPED,
    'problem': str(error),
  }


def _bytes(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise errors.InputError(f'{path}: unreadable ({error})') from error


def _write(
  picture: _Picture,
  threshold: float,
  places: outputs.Outputs,
  options: Options,
) -> dict[str, Any]:
  """Writes the files of an image; returns its row of the table."""
  file = picture.input
  image = spacing = None
  if places.overlays or options.measures:
    # Decoded again: large pictures are not kept while a batch is predicted.
    try:
      data = _bytes(file.path)
      image = preprocessing.decode_image(data, str(file.path))
      if options.measures:
        spacing = pictures.pixel_spacing(data, str(file.path))
    except errors.InputError as error:
      return _skipped(file, error)
  probability = picture.probability()
  mask = postprocessing.clean(probability > threshold, options.cleaning)
  measures = {}
  if options.measures and image is not None:
    spacing = spacing or options.pixel_spacing
    views = picture.answer.views if picture.answer else np.empty((0, 1, 1))
    masks = predictor.view_masks(views, picture.size, threshold)
    measures = image_columns.measures(
      image,
      mask,
      spacing,
      (postprocessing.clean(view, options.cleaning) for view in masks),
      len(views),
    )
  places.write(file.name, mask, probability, image)
  return {
    'image_id': file.name,
    'file': file.file,
    'status': table.PREDICTED,
    'pictures': picture.count,
    'height': picture.size[0],
    'width': picture.size[1],
    **image_columns.values(mask, probability),
    **review.cells(_review(picture, probability, mask, threshold, options)),
    **measures,
  }


def _review(
  picture: _Picture,
  probability: np.ndarray,
  mask: np.ndarray,
  threshold: float,
  options: Options,
) -> review.Review:
  if picture.answer:
    small, features = picture.answer.probability, picture.answer.features
  else:  # Of tiles.
    height, width = picture.reduced.shape[:2]
    small = preprocessing.resize_probability(probability, (height, width))
    features = None
  return review.examine(
    picture.reduced,
    small,
    mask,
    threshold,
    options.review,
    features=features,
    tiled=picture.answer is None,
  )
