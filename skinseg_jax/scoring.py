"""What a model makes of every image, on the device."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from skinseg_jax import calibration, compilation, losses, metrics


# Everything that predicts calls this one program: the same weights and images
# give the same bits, whatever is worked out from them.
@compilation.jit
def forward(
  eval_graphdef: nnx.GraphDef, model_state: Any, images: jax.Array
) -> jax.Array:
  """Predicts logits, float32 [B, H, W, 1], of uint8 images [B, H, W, 3]."""
  model = nnx.merge(eval_graphdef, model_state)
  return model(images.astype(np.float32) / 255.0)


@functools.partial(jax.jit, static_argnames='threshold')
def image_scores(
  logits: jax.Array, masks: jax.Array, *, threshold: float
) -> dict[str, jax.Array]:
  """Scores each image of a batch.

  Returns:
    `loss`, float32 [B], and `tp`, `fp`, `fn`, `tn`, int32 [B].
  """
  return {
    'loss': losses.bce_with_logits(logits, masks),
    **metrics.confusion_counts(logits, masks, threshold=threshold),
  }


@jax.jit
def probabilities(logits: jax.Array) -> jax.Array:
  """Probability of lesion, float32 [B, H, W], of logits [B, H, W, 1]."""
  return jax.nn.sigmoid(logits[..., 0])


def score(
  eval_graphdef: nnx.GraphDef,
  model_state: Any,
  batches: Iterable[Mapping[str, jax.Array]],
  *,
  threshold: float,
) -> dict[str, np.ndarray]:
  """Scores every image once, in order: counts and loss alone.

  Returns:
    `loss`, float [N], and `tp`, `fp`, `fn`, `tn`, int [N].
  """
  iterator, scored = iter(batches), []
  for batch in iterator:
    logits = forward(eval_graphdef, model_state, batch['image'])
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
  batches: Iterable[Mapping[str, jax.Array]],
) -> np.ndarray:
  """Counts the pixels of all images by truth and predicted probability.

  Returns:
    int64 [2, BINS], as `calibration.probability_histogram`.
  """
  iterator, counted = iter(batches), []
  for batch in iterator:
    logits = forward(eval_graphdef, model_state, batch['image'])
    counted.append(
      calibration.probability_histogram(logits, batch['mask'], batch['valid'])
    )
  iterator.close()
  return sum(
    multihost_utils.process_allgather(counted, tiled=True),
    np.zeros((2, calibration.BINS), np.int64),
  )
