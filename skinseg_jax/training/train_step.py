"""One update of the weights: a pure function, compiled once."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.metrics import confusion
from skinseg_jax.training import augmentation, averaging, losses

# Number of dropout's draws, beyond those of the augmentation of any batch.
_DROPOUT = 2**32 - 1


@functools.partial(jax.jit, static_argnames='config', donate_argnames='state')
def train_step(
  graphdef: nnx.GraphDef,
  state: Any,
  batch: Mapping[str, jax.Array],
  *,
  config: config_lib.Config,
) -> tuple[Any, dict[str, jax.Array]]:
  """Makes one update.

  Args:
    graphdef: Static structure of all parts, see `train_state`.
    state: Their arrays; the buffers are reused for the result.
    batch: `image`, uint8 [B, H, W, 3], and `mask`, uint8 [B, H, W].
    config: Only `augmentation` and `train` are used.

  Returns:
    The new state, and a dict of scalars. `loss` is the mean over the augmented
    batch. `tp`, `fp`, `fn` and `tn`, int32, count its pixels. `finite`, bool,
    is true if the loss and all values of the model that predicts are finite.
  """
  train = config.train
  parts = nnx.merge(graphdef, state)
  model, optimizer = parts[1] if train.ema else parts
  step = optimizer.step[...]
  images, masks = augmentation.augment(
    batch['image'],
    batch['mask'],
    step,
    seed=train.seed,
    config=config.augmentation,
  )

  def loss_fn(model, key, images, masks):
    logits = model(images, key=key)
    counts = confusion.confusion_counts(logits, masks)
    sums = {name: count.sum() for name, count in counts.items()}
    targets = losses.soften(masks, train.border_smoothing)
    return losses.BY_NAME[train.loss](logits, targets).mean(), sums

  grad_fn = nnx.value_and_grad(loss_fn, has_aux=True)
  if train.accumulation_steps > 1:
    grad_fn = _in_parts(grad_fn, train.accumulation_steps)
  (loss, sums), grads = grad_fn(
    model, dropout_key(train.seed, step), images, masks
  )
  optimizer.update(model, grads)
  if train.ema:
    averaging.update_average(parts[0], model, optimizer.step[...], train.ema)
  new = nnx.state(parts)
  finite = jnp.stack(
    [jnp.isfinite(leaf).all() for leaf in (loss, *jax.tree.leaves(new[0]))]
  )
  return new, {'loss': loss, **sums, 'finite': finite.all()}


def dropout_key(seed: int, step: jax.Array) -> jax.Array:
  """Key of a step's dropout: it follows from seed and step alone.

  So a resumed run draws what an undisturbed one does, and JAX draws the same
  bits for a batch on one device as on many.
  """
  key = jax.random.fold_in(jax.random.key(seed), step)
  return jax.random.fold_in(key, _DROPOUT)


def _in_parts(grad_fn: Callable[..., Any], parts: int) -> Callable[..., Any]:
  """Makes a function that applies `grad_fn` to a batch in equal parts.

  It returns the means of the parts' losses and gradients and the sums of their
  counts. Batch norm sees one part at a time, and its running statistics are
  updated once per part.
  """

  def whole(model, key, *batch):
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def one_part(rest, part):
      model = nnx.merge(graphdef, params, rest, copy=True)
      result = grad_fn(model, *part)
      return nnx.state(model, nnx.Not(nnx.Param)), result

    def add_part(carry, part):
      rest, result = one_part(carry[0], part)
      return (rest, jax.tree.map(jnp.add, carry[1], result)), None

    # Part i takes images i, i + parts, ...: each image stays on its device.
    split = [x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1) for x in batch]
    split = [jax.random.split(key, parts), *split]
    _, shapes = jax.eval_shape(one_part, rest, [x[0] for x in split])
    zeros = jax.tree.map(jnp.zeros_like, shapes)
    (rest, total), _ = jax.lax.scan(add_part, (rest, zeros), split)
    nnx.update(model, rest)
    (loss, sums), grads = total
    mean = lambda tree: jax.tree.map(lambda x: x / parts, tree)
    return (mean(loss), sums), mean(grads)

  return whole
