"""Measures a model's predictions in one pass over the images.

The device predicts one batch while host threads measure outlines and images of
the previous batch.
"""

import collections
import concurrent.futures
import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from skinseg_jax.data import cache, input_pipeline, preprocessing
from skinseg_jax.data.sources import interface
from skinseg_jax.evaluation import scoring, subgroups
from skinseg_jax.inference import forward_pass, model_interface
from skinseg_jax.measures import skin
from skinseg_jax.metrics import calibration, confusion, surface


@dataclasses.dataclass(frozen=True, eq=False)
class Assessment:
  """Measurements of N images.

  Attributes:
    image_ids: Ids of the images; all arrays have this order.
    counts: `tp`, `fp`, `fn`, `tn` at the config's threshold, int64 [N].
    loss: Cross-entropy of each image, float [N].
    squared_error: `calibration.squared_errors`, summed over each image, [N].
    surface: `boundary_f1`, `hd95`, `assd`, float64 [N].
    measured: Image properties, from `subgroups.measure`, [N] each.
    skin: `ita`, float64 [N], the typology angle of the skin around the true
      lesion at the model's size (see `skin.examine`), NaN where there is none;
      `reason`, [N], why there is none, or ''.
    pieces: `subgroups.pieces` of each predicted mask, [N].
    packed: Predicted masks, eight pixels per byte, uint8 [N, ceil(H * W / 8)].
    histogram: `calibration.probability_histogram` over all images, int64.
    native_counts: `counts` at each image's original size; None if skipped.
  """

  image_ids: list[str]
  counts: dict[str, np.ndarray]
  loss: np.ndarray
  squared_error: np.ndarray
  surface: dict[str, np.ndarray]
  measured: dict[str, np.ndarray]
  skin: dict[str, np.ndarray]
  pieces: np.ndarray
  packed: np.ndarray
  histogram: np.ndarray
  native_counts: dict[str, np.ndarray] | None


def assess(
  model: model_interface.Model,
  source: interface.Source,
  data: cache.CachedData,
  image_ids: Sequence[str],
  *,
  native_size: bool,
) -> Assessment:
  """Predicts and measures every image once, in order.

  Args:
    model: The model to assess.
    source: The images at their original size.
    data: The same images, in the same order, at the model's size.
    image_ids: Ids of the images to assess.
    native_size: Whether to also score at each image's original size.
  """
  evaluation = model.config.evaluation
  indices = input_pipeline.select(data, image_ids)
  batches = input_pipeline.evaluation_batches(
    data, indices, batch_size=evaluation.batch_size, sharding=model.sharding
  )
  measure = _HostMeasurer(source, data, evaluation.threshold, native_size)
  histogram = np.zeros((2, calibration.BINS), np.int64)
  scored, measured = [], []
  workers = os.cpu_count() or 1
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    pending: collections.deque = collections.deque()
    for number, outputs in enumerate(_predict(model, batches)):
      rows = indices[number * evaluation.batch_size :][: evaluation.batch_size]
      histogram += outputs.pop('histogram')
      probabilities = outputs.pop('probability')
      scored.append({k: v[: len(rows)] for k, v in outputs.items()})
      pending.append(pool.submit(measure, rows, probabilities))
      if len(pending) > workers:  # Limits the number of batches in memory.
        measured += pending.popleft().result()
    for rest in pending:
      measured += rest.result()
  return _collect(list(image_ids), scored, measured, histogram, native_size)


def join(parts: Sequence[Assessment]) -> Assessment:
  """Measurements of several sets of images as of one, in the order of ids.

  Args:
    parts: At least one; no image twice, all with the same measurements.
  """
  ids = [name for part in parts for name in part.image_ids]
  order = np.array(sorted(range(len(ids)), key=lambda i: ids[i]))

  def joined(values: list[Any]) -> Any:
    if values[0] is None:
      return None
    if isinstance(values[0], dict):
      names = values[0]
      return {name: joined([v[name] for v in values]) for name in names}
    return np.concatenate(values)[order]

  fields = [field.name for field in dataclasses.fields(Assessment)]
  own = {'image_ids', 'histogram'}
  return Assessment(
    image_ids=[ids[i] for i in order],
    histogram=np.sum([part.histogram for part in parts], axis=0),
    **{
      name: joined([getattr(part, name) for part in parts])
      for name in fields
      if name not in own
    },
  )


def _predict(
  model: model_interface.Model,
  batches: Iterable[Any],
) -> Iterator[dict[str, np.ndarray]]:
  """Yields each batch's outputs while the device works on the next batch."""
  iterator: Any = iter(batches)
  previous = None
  gather = lambda outputs: multihost_utils.process_allgather(
    outputs, tiled=True
  )
  for batch in iterator:
    outputs = _outputs(model, batch)
    if previous is not None:
      yield gather(previous)
    previous = outputs
  iterator.close()
  if previous is not None:
    yield gather(previous)


def _outputs(model, batch) -> dict[str, jax.Array]:
  logits = model.logits(batch['image'])
  masks = batch['mask']
  threshold = model.config.evaluation.threshold
  return {
    **scoring.image_scores(logits, masks, threshold=threshold),
    'squared_error': calibration.squared_errors(logits, masks),
    'probability': forward_pass.probabilities(logits),
    'histogram': calibration.probability_histogram(
      logits, masks, batch['valid']
    ),
  }


@dataclasses.dataclass(frozen=True, eq=False)
class _HostMeasurer:
  """Measures predictions and images on the host."""

  source: interface.Source
  data: cache.CachedData
  threshold: float
  native_size: bool

  def __call__(
    self, indices: np.ndarray, probabilities: np.ndarray
  ) -> list[dict[str, Any]]:
    """Measures each image of a batch; probabilities are float32 [B, H, W]."""
    return [
      self._one(int(index), probability)
      for index, probability in zip(indices, probabilities, strict=False)
    ]

  def _one(self, index: int, probability: np.ndarray) -> dict[str, Any]:
    image, truth = self.data.images[index], self.data.masks[index]
    predicted = probability > self.threshold
    result = {
      'surface': surface.surface_scores(predicted, truth),
      'measured': subgroups.measure(image, truth),
      'skin': skin_of(image, truth),
      'pieces': subgroups.pieces(predicted),
      'packed': np.packbits(predicted),
    }
    if self.native_size:
      truth = self.source[index]['mask'] > 0
      resized = preprocessing.resize_probability(probability, truth.shape)
      result['native_counts'] = confusion.mask_counts(
        resized > self.threshold, truth
      )
    return result


def skin_of(image: np.ndarray, truth: np.ndarray) -> dict[str, float | str]:
  """The entries of `Assessment.skin` for one image.

  Args:
    image: RGB, uint8, [H, W, 3].
    truth: Ground truth, nonzero for lesion, [H, W].
  """
  around = skin.examine(image, truth > 0)
  ita = math.nan if around.ita is None else around.ita
  return {'ita': ita, 'reason': around.reason}


def _collect(image_ids, scored, measured, histogram, native_size) -> Assessment:
  columns = {
    name: np.concatenate([batch[name] for batch in scored])
    for name in scored[0]
  }
  table = lambda part: {
    name: np.array([one[part][name] for one in measured])
    for name in measured[0][part]
  }
  return Assessment(
    image_ids=image_ids,
    counts={name: columns[name].astype(np.int64) for name in confusion.COUNTS},
    loss=columns['loss'],
    squared_error=columns['squared_error'],
    surface=table('surface'),
    measured=table('measured'),
    skin=table('skin'),
    pieces=np.array([one['pieces'] for one in measured]),
    packed=np.stack([one['packed'] for one in measured]),
    histogram=histogram,
    native_counts=table('native_counts') if native_size else None,
  )
