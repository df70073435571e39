"""Computes loss and pixel counts of every image on the device."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from skinseg_jax.inference import forward_pass
from skinseg_jax.metrics import calibration, confusion, cross_entropy


@functools.partial(jax.jit, static_argnames='threshold')
def image_scores(
  logits: jax.Array, masks: jax.Array, *, threshold: float
) -> dict[str, jax.Array]:
  """Scores each image of a batch.

  Returns:
    `loss`, float32 [B], and `tp`, `fp`, `fn`, `tn`, int32 [B].
  """
  return {
    'loss': cross_entropy.bce_with_logits(logits, masks),
    **confusion.confusion_counts(logits, masks, threshold=threshold),
  }


def score(
  eval_graphdef: nnx.GraphDef,
  model_state: Any,
  batches: Iterable[Any],
  *,
  threshold: float,
  views: str,
) -> dict[str, np.ndarray]:
  """Computes loss and counts of every image once, in order.

  Returns:
    `loss`, float [N], and `tp`, `fp`, `fn`, `tn`, int [N].
  """
  iterator: Any = iter(batches)
  scored = []
  for batch in iterator:
    logits = forward_pass.forward(
      eval_graphdef, model_state, batch['image'], views=views
    )
    scores = image_scores(logits, batch['mask'], threshold=threshold)
    scored.append({**scores, 'valid': batch['valid']})
  iterator.close()
  # Every process gets the scores of all images.
  gathered = multihost_utils.process_allgather(scored, tiled=True)
  whole = {
    name: np.concatenate([batch[name] for batch in gathered])
    for name in gathered[0]
  }
  valid = whole.pop('valid')
  return {name: values[valid] for name, values in whole.items()}


def histogram(
  eval_graphdef: nnx.GraphDef,
  model_state: Any,
  batches: Iterable[Any],
  *,
  views: str,
) -> np.ndarray:
  """Counts the pixels of all images by truth and predicted probability.

  Returns:
    int64 [2, BINS], in the format of `calibration.probability_histogram`.
  """
  iterator: Any = iter(batches)
  counted = []
  for batch in iterator:
    logits = forward_pass.forward(
      eval_graphdef, model_state, batch['image'], views=views
    )
    counted.append(
      calibration.probability_histogram(logits, batch['mask'], batch['valid'])
    )
  iterator.close()
  return sum(
    multihost_utils.process_allgather(counted, tiled=True),
    np.zeros((2, calibration.BINS), np.int64),
  )
