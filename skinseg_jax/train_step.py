"""One update of the weights: a pure function, compiled once."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from skinseg_jax import augmentation, losses, metrics
from skinseg_jax import config as config_lib


@functools.partial(jax.jit, static_argnames='config', donate_argnames='state')
def train_step(
  graphdef: nnx.GraphDef,
  state: Any,
  batch: Mapping[str, jax.Array],
  *,
  config: config_lib.Config,
) -> tuple[Any, dict[str, jax.Array]]:
  """One update.

  Args:
    graphdef: Static structure of (model, optimizer).
    state: Their arrays; the buffers are reused for the result.
    batch: `image`, uint8 [B, H, W, 3], and `mask`, uint8 [B, H, W].
    config: Its `augmentation` and `train.seed` are used.

  Returns:
    The new state, and scalars: `loss`, the mean, and `tp`, `fp`, `fn`, `tn`,
    int32, over the pixels of the batch as augmented.
  """
  model, optimizer = nnx.merge(graphdef, state)
  images, masks = augmentation.augment(
    batch['image'],
    batch['mask'],
    optimizer.step[...],
    seed=config.train.seed,
    config=config.augmentation,
  )

  def loss_fn(model):
    logits = model(images)
    return losses.bce_with_logits(logits, masks).mean(), logits

  (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
  optimizer.update(model, grads)
  counts = metrics.confusion_counts(logits, masks)
  sums = {name: count.sum() for name, count in counts.items()}
  return nnx.state((model, optimizer)), {'loss': loss, **sums}
