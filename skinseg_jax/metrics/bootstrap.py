"""Bootstrap intervals that allow for similar images of the same lesion.

Each draw takes C of the C clusters (lesions with all their images) with
replacement; every score is then recomputed. If every image is a separate
cluster, this is the ordinary bootstrap. The ordinary bootstrap gives intervals
that are too narrow if lesions have several images.

The plain percentile interval is too narrow for few clusters. We use the
expanded percentile interval of Hesterberg, 2015 (arXiv:1411.5279, 4.4). For n
clusters it moves the percentiles outwards by the factor sqrt(n / (n - 1)) and
replaces the normal distribution by Student's t distribution.
"""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from scipy import special

from skinseg_jax.metrics import confusion

# Share of intervals that should contain the true value.
CONFIDENCE = 0.95

# Draws that are ranked at once, to limit the memory.
_BLOCK = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Resampling:
  """Draws of clusters, shared by all scores of the same images.

  Attributes:
    index: Cluster of each image, int64 [N], 0 to C - 1.
    weights: How many times each draw contains each cluster, float64 [R, C];
      every row sums to C.
  """

  index: np.ndarray
  weights: np.ndarray

  @property
  def num_clusters(self) -> int:
    """Number of clusters, C."""
    return self.weights.shape[1]

  def sums(self, values: np.ndarray) -> np.ndarray:
    """Sums over the images of each draw.

    Args:
      values: One row per image, [N] or [N, K].

    Returns:
      One row per draw, float64 [R] or [R, K]; integers below 2**53 are exact.
    """
    per_cluster = np.zeros((self.num_clusters, *values.shape[1:]))
    np.add.at(per_cluster, self.index, values)
    return self.weights @ per_cluster


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
  """A score with its 95 % interval; its ends are None for a single cluster."""

  value: float
  low: float | None
  high: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
  """First run minus second, with its 95 % interval.

  Attributes:
    value: Difference of the scores.
    low: Lower end of the interval; None for a single cluster.
    high: Upper end of the interval; None for a single cluster.
    p_value: Smallest error level in [0, 1] at which the interval excludes 0;
      None for a single cluster.
  """

  value: float
  low: float | None
  high: float | None
  p_value: float | None


def resample(
  clusters: Sequence[Hashable], *, replicates: int = 2000, seed: int = 0
) -> Resampling:
  """Draws clusters with replacement.

  Args:
    clusters: Cluster of each of the N images, such as the name of its lesion.
      `range(N)` makes every image a separate cluster.
    replicates: Number of draws, R.
    seed: The same seed and clusters give the same draws.

  Raises:
    ValueError: If there is no image.
  """
  if not len(clusters):
    raise ValueError('cannot resample no images.')
  # In order of appearance, so that names do not matter.
  numbers = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
  index = np.array([numbers[name] for name in clusters])
  num = len(numbers)
  draws = np.random.default_rng(seed).integers(num, size=(replicates, num))
  draws += num * np.arange(replicates)[:, None]
  weights = np.bincount(draws.ravel(), minlength=replicates * num)
  return Resampling(index, weights.reshape(replicates, num).astype(np.float64))


def interval(
  replicates: np.ndarray, num_clusters: int
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the expanded percentile interval.

  Args:
    replicates: Scores of each draw, [R] or [R, K].
    num_clusters: Number of clusters, C.

  Returns:
    Lower and upper ends, float64 [] or [K]; NaN for a single cluster.
  """
  if num_clusters < 2:
    nothing = np.full(replicates.shape[1:], np.nan)
    return nothing, nothing
  t = special.stdtrit(num_clusters - 1, (1 - CONFIDENCE) / 2)
  tail = special.ndtr(t * np.sqrt(num_clusters / (num_clusters - 1)))
  low, high = np.quantile(replicates, [tail, 1 - tail], axis=0)
  return low, high


def p_value(differences: np.ndarray, num_clusters: int) -> np.ndarray:
  """Inverts `interval`: finds the error level at which it just excludes 0.

  Args:
    differences: Differences of two scores of each draw, [R] or [R, K].
    num_clusters: Number of clusters, C.

  Returns:
    Two-sided, float64 in [0, 1], [] or [K]; NaN for a single cluster.
  """
  if num_clusters < 2:
    return np.full(differences.shape[1:], np.nan)
  # The data count as one more draw, so that the share is above 0.
  below = (differences <= 0).sum(axis=0)
  above = (differences >= 0).sum(axis=0)
  share = (1 + np.minimum(below, above)) / (1 + len(differences))
  t = special.ndtri(share) / np.sqrt(num_clusters / (num_clusters - 1))
  return np.minimum(1.0, 2 * special.stdtr(num_clusters - 1, t))


def pooled(
  resampling: Resampling, counts: Mapping[str, np.ndarray]
) -> dict[str, Interval]:
  """Intervals of pooled ratios, from counts summed over all images.

  Args:
    resampling: From `resample` of the images' lesions.
    counts: `tp`, `fp`, `fn`, `tn`, integers, [N].

  Returns:
    An interval for each score of `confusion.ratios`.
  """
  value = confusion.ratios(confusion.pool(counts))
  return _intervals(resampling, value, _pooled_draws(resampling, counts))


def means(
  resampling: Resampling, scores: Mapping[str, np.ndarray]
) -> dict[str, Interval]:
  """Intervals of means over images.

  Args:
    resampling: From `resample` of the images' lesions.
    scores: One value per image for each score, [N].

  Returns:
    An interval for each score, by its name.
  """
  return _intervals(resampling, _means(scores), _mean_draws(resampling, scores))


def rank_correlation(
  resampling: Resampling, first: np.ndarray, second: np.ndarray
) -> Interval | None:
  """Spearman's rank correlation of two values per image, with its interval.

  Each draw ranks its images again. Equal values share their mean rank.

  Args:
    resampling: From `resample` of the images' lesions.
    first: One finite value per image, [N].
    second: Another finite value per image, [N].

  Returns:
    In [-1, 1]. None if one of the values is the same for all images, because
    they have no ranks then. The interval has no ends if this happens in a draw,
    as it does where there are few images.
  """
  (value,) = _spearman(np.ones((1, len(first))), first, second)
  if np.isnan(value):
    return None
  draws = np.concatenate(
    [
      _spearman(weights[:, resampling.index], first, second)
      for weights in np.split(
        resampling.weights, range(_BLOCK, len(resampling.weights), _BLOCK)
      )
    ]
  )
  low, high = map(float, interval(draws, resampling.num_clusters))
  return Interval(float(value), _known(low), _known(high))


def pooled_difference(
  resampling: Resampling,
  first: Mapping[str, np.ndarray],
  second: Mapping[str, np.ndarray],
) -> dict[str, Difference]:
  """Compares pooled ratios of two runs on the same images, draw by draw.

  Args:
    resampling: From `resample` of the images' lesions.
    first: `tp`, `fp`, `fn`, `tn` of one run, integers, [N].
    second: Counts of the other run, with images in the same order.
  """
  values = [
    confusion.ratios(confusion.pool(counts)) for counts in (first, second)
  ]
  draws = [_pooled_draws(resampling, counts) for counts in (first, second)]
  return _differences(resampling, values, draws)


def mean_difference(
  resampling: Resampling,
  first: Mapping[str, np.ndarray],
  second: Mapping[str, np.ndarray],
) -> dict[str, Difference]:
  """Compares means over images of two runs on the same images, draw by draw.

  Args:
    resampling: From `resample` of the images' lesions.
    first: One value per image for each score of one run, [N].
    second: Scores of the other run, with images in the same order.
  """
  values = [_means(scores) for scores in (first, second)]
  draws = [_mean_draws(resampling, scores) for scores in (first, second)]
  return _differences(resampling, values, draws)


def _spearman(
  weights: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
  """Rank correlation in each draw, [R]; NaN where there are no ranks.

  Args:
    weights: How many times each draw contains each image, [R, N].
    first: One value per image, [N].
    second: Another value per image, [N].
  """
  total = weights.sum(axis=1, keepdims=True)
  one, other = (
    ranks - (weights * ranks).sum(axis=1, keepdims=True) / total
    for ranks in (_ranks(weights, first), _ranks(weights, second))
  )
  product = lambda a, b: np.einsum('rn,rn,rn->r', weights, a, b)
  with np.errstate(invalid='ignore'):
    return product(one, other) / np.sqrt(
      product(one, one) * product(other, other)
    )


def _ranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Mean rank, less one half, of each value among those of a draw, [R, N]."""
  order = np.argsort(values, kind='stable')
  _, starts, level = np.unique(
    values[order], return_index=True, return_inverse=True
  )
  equal = np.add.reduceat(weights[:, order], starts, axis=1)
  ranks = np.empty_like(weights)
  ranks[:, order] = (equal.cumsum(axis=1) - equal / 2)[:, level]
  return ranks


def _means(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
  return {n: float(np.mean(s, dtype=np.float64)) for n, s in scores.items()}


def _pooled_draws(resampling, counts) -> dict[str, np.ndarray]:
  table = np.stack([counts[name] for name in confusion.COUNTS], axis=1)
  columns = resampling.sums(table).T
  return confusion.ratios(dict(zip(confusion.COUNTS, columns, strict=True)))


def _mean_draws(resampling, scores) -> dict[str, np.ndarray]:
  table = np.stack([np.ones(len(resampling.index)), *scores.values()], axis=1)
  images, *columns = resampling.sums(table).T
  return {
    name: column / images for name, column in zip(scores, columns, strict=True)
  }


def _intervals(resampling, values, draws) -> dict[str, Interval]:
  table = np.stack(list(draws.values()), axis=1)
  low, high = interval(table, resampling.num_clusters)
  return {
    name: Interval(float(values[name]), *map(_known, (low[i], high[i])))
    for i, name in enumerate(draws)
  }


def _differences(resampling, values, draws) -> dict[str, Difference]:
  first, second = values
  table = np.stack([draws[0][name] - draws[1][name] for name in first], axis=1)
  low, high = interval(table, resampling.num_clusters)
  p = p_value(table, resampling.num_clusters)
  return {
    name: Difference(
      float(first[name] - second[name]), *map(_known, (low[i], high[i], p[i]))
    )
    for i, name in enumerate(first)
  }


def _known(value: float) -> float | None:
  """None for NaN, because JSON has no NaN."""
  return None if np.isnan(value) else float(value)
