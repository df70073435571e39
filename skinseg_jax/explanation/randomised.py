"""Sanity check: a map must change when the weights are random.

Adebayo et al., 2018, "Sanity Checks for Saliency Maps" (arXiv:1810.03292),
section 3: the model parameter randomisation test.
"""

from typing import Any

import jax
import numpy as np
from flax import nnx
from scipy import stats

from skinseg_jax.inference import trained_model
from skinseg_jax.models import build

# Not those that runs start from: a network may resemble its first weights.
_SEEDS = (1_000_001, 1_000_002, 1_000_003)


def states(model: trained_model.TrainedModel) -> list[Any]:
  """The states of networks of the same structure with fresh weights."""
  leaves, structure = jax.tree.flatten(model.state)
  found = []
  for seed in _SEEDS:
    fresh = jax.tree.leaves(nnx.state(build.create(model.config.model, seed)))
    # By way of NumPy, as weights are read: with the weak types of some initial
    # values, every program would be compiled again.
    placed = [
      jax.device_put(np.asarray(new), old.sharding)
      for new, old in zip(fresh, leaves, strict=True)
    ]
    found.append(jax.tree.unflatten(structure, placed))
  return found


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
  """Spearman's rank correlation of two maps of one size, in [-1, 1].

  Returns:
    None if a map has the same value everywhere, because it has no ranks then.
  """
  if not (np.ptp(first) > 0 and np.ptp(second) > 0):
    return None
  return float(stats.spearmanr(first.ravel(), second.ravel()).statistic)
