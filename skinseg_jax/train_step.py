"""One update of the weights: a pure function, compiled once."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from skinseg_jax import augmentation, averaging, losses, metrics
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
    graphdef: Static structure of all parts, see `train_state`.
    state: Their arrays; the buffers are reused for the result.
    batch: `image`, uint8 [B, H, W, 3], and `mask`, uint8 [B, H, W].
    config: Its `augmentation` and `train` are used.

  Returns:
    The new state, and scalars: `loss`, the mean, and `tp`, `fp`, `fn`, `tn`,
    int32, over the pixels of the batch as augmented.
  """
  train = config.train
  parts = nnx.merge(graphdef, state)
  model, optimizer = parts[1] if train.ema else parts
  images, masks = augmentation.augment(
    batch['image'],
    batch['mask'],
    optimizer.step[...],
    seed=train.seed,
    config=config.augmentation,
  )

  def loss_fn(model):
    logits = model(images)
    targets = losses.soften(masks, train.border_smoothing)
    return losses.BY_NAME[train.loss](logits, targets).mean(), logits

  (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
  optimizer.update(model, grads)
  if train.ema:
    step = optimizer.step[...]
    averaging.update_average(parts[0], model, step, train.ema)
  counts = metrics.confusion_counts(logits, masks)
  sums = {name: count.sum() for name, count in counts.items()}
  return nnx.state(parts), {'loss': loss, **sums}
