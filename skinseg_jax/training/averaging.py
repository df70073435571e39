"""Moving averages of a model's weights, which predict better than the latest.

Averaging follows Polyak and Juditsky, 1992; the exponential decay follows
Tarvainen and Valpola, 2017 (arXiv:1703.01780). The running statistics of batch
norm are averaged by the same rule. `scripts/studies/recipe.py` also scores each
average with statistics that it recomputes for the averaged weights.
"""

import jax
import jax.numpy as jnp
from flax import nnx


def decay_at(update: jax.Array, decay: float) -> jax.Array:
  """The decay for one update: small at first, so that old weights fade sooner.

  Args:
    update: Number of the update, from 1.
    decay: Final value, in (0, 1).

  Returns:
    min(decay, (1 + update) / (10 + update)), as in TensorFlow's
    ExponentialMovingAverage.
  """
  return jnp.minimum(decay, (1 + update) / (10 + update))


def update_average(
  average: nnx.Module, model: nnx.Module, update: jax.Array, decay: float
) -> None:
  """Moves each value of `average` towards the value in `model`.

  Args:
    average: Its weights and running statistics are changed in place.
    model: The model after the update, with the same shapes.
    update: Number of the update, from 1.
    decay: See `decay_at`.
  """
  share = 1 - decay_at(update, decay)
  nnx.update(
    average,
    jax.tree.map(
      lambda old, new: old + share * (new - old),
      nnx.state(average),
      nnx.state(model),
    ),
  )
