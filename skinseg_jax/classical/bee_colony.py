"""Thresholds by an artificial bee colony, in the manner of Aljanabi et al."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from skinseg_jax.classical import corrections, parameters, regions

_LEVELS = 256


def segment(image: np.ndarray, settings: parameters.BeeColony) -> np.ndarray:
  """Finds a lesion with thresholds that a bee colony chooses.

  In the manner of Aljanabi, Ozok, Rahebi and Abdullah (2018,
  doi:10.3390/sym10080347): a morphological filter removes noise, then a bee
  colony finds the best thresholds. Their objective and parameters could not be
  read. Here the objective is Otsu's: the variance between the classes.

  Args:
    image: RGB, uint8 [H, W, 3].
    settings: Its parameters.

  Returns:
    bool [H, W].
  """
  found = filtered(image, settings)
  if np.count_nonzero(found.histogram) < 2:
    return np.zeros(found.values.shape, bool)
  chosen = thresholds(found.histogram, settings)
  rough = (found.values <= chosen[settings.lesion_classes - 1]) & found.valid
  return regions.clean(rough, settings.clean_up)


class Filtered(NamedTuple):
  """What thresholds are chosen for.

  Attributes:
    values: A channel without noise, uint8 [H, W].
    valid: False in dark corners, bool [H, W].
    histogram: Valid pixels of each grey level, integers [256].
  """

  values: np.ndarray
  valid: np.ndarray
  histogram: np.ndarray


def filtered(image: np.ndarray, settings: parameters.BeeColony) -> Filtered:
  """Corrects an image, RGB, uint8 [H, W, 3], and removes noise."""
  corrected = corrections.correct(image, settings.corrections)
  values = corrections.channel(corrected.image, settings.channel)
  disc = regions.disc(settings.smoothing, min(values.shape))
  values = cv2.morphologyEx(values, cv2.MORPH_CLOSE, disc)
  values = cv2.morphologyEx(values, cv2.MORPH_OPEN, disc)
  histogram = np.bincount(values[corrected.valid], minlength=_LEVELS)
  return Filtered(values, corrected.valid, histogram)


def thresholds(counts: np.ndarray, settings: parameters.BeeColony) -> list[int]:
  """Finds thresholds with a high variance between the classes.

  Args:
    counts: Pixels of each grey level, integers [256].
    settings: Number of thresholds and the colony.

  Returns:
    Grey levels in ascending order; a class ends with its threshold.
  """
  between = variance_between(counts)
  # Only levels between the darkest and the brightest part the pixels.
  used = np.flatnonzero(counts)
  colony = _Colony(
    lambda position: between(_levels(position)),
    settings,
    (float(used[0]), float(used[-1])),
  )
  return _levels(colony.search())


def _levels(position: Sequence[float]) -> list[int]:
  return sorted(int(value) for value in position)


def variance_between(
  counts: np.ndarray,
) -> Callable[[Sequence[int]], float]:
  """Otsu's objective for a histogram.

  Args:
    counts: Pixels of each grey level, integers [256].

  Returns:
    A function of ascending thresholds. Its value is the variance between the
    classes, in squared grey levels.
  """
  total = int(counts.sum())
  mean = float(counts @ np.arange(len(counts))) / total
  # Of the levels from 0 to each, as Python numbers: faster one by one.
  pixels = [0, *counts.cumsum().tolist()]
  sums = [0, *(counts * np.arange(len(counts))).cumsum().tolist()]

  def objective(chosen: Sequence[int]) -> float:
    value, start = 0.0, 0
    for end in (*(level + 1 for level in chosen), len(counts)):
      size = pixels[end] - pixels[start]
      if size:
        value += (sums[end] - sums[start]) ** 2 / size
      start = end
    return value / total - mean**2

  return objective


@dataclasses.dataclass(eq=False)
class _Source:
  """A food source: a position, its value and the trials without a gain."""

  position: list[float]
  value: float
  trials: int = 0


class _Colony:
  """Karaboga's artificial bee colony; it maximises an objective.

  Karaboga (2005, technical report TR06, Erciyes University); Karaboga and
  Basturk (2007, doi:10.1007/s10898-007-9149-x). In each cycle an employed bee
  per source tries a neighbour of it. As many onlookers then choose sources in
  proportion to their value and try neighbours of these. At most one scout per
  cycle replaces a source that has not improved in more than `limit` trials.
  """

  def __init__(
    self,
    objective: Callable[[Sequence[float]], float],
    settings: parameters.BeeColony,
    bounds: tuple[float, float],
  ):
    self._objective = objective
    self._settings = settings
    self._bounds = bounds
    self._rng = np.random.default_rng(settings.random_seed)
    self._sources = [self._scouted() for _ in range(settings.sources)]
    self._best = max(self._sources, key=lambda source: source.value)

  def search(self) -> list[float]:
    """Returns the best position of all cycles."""
    count = len(self._sources)
    for _ in range(self._settings.cycles):
      for index in range(count):
        self._try_neighbour(index)
      for index in self._chosen_by_onlookers():
        self._try_neighbour(index)
      self._remember_best()
      self._send_scout()
    return self._best.position

  def _scouted(self) -> _Source:
    """A source at a random position."""
    size = self._settings.thresholds
    position = self._rng.uniform(*self._bounds, size).tolist()
    return _Source(position, self._objective(position))

  def _try_neighbour(self, index: int) -> None:
    """Moves one coordinate relative to another source; keeps a gain."""
    source = self._sources[index]
    draw, phi = self._rng.random(2).tolist()
    # One number chooses both the coordinate and one of the other sources.
    others = len(self._sources) - 1
    pick = int(draw * others * len(source.position))
    axis, other = divmod(pick, others)
    other += other >= index
    here = source.position[axis]
    there = self._sources[other].position[axis]
    moved = here + (2 * phi - 1) * (here - there)
    low, high = self._bounds
    position = list(source.position)
    position[axis] = min(max(moved, low), high)
    value = self._objective(position)
    if value > source.value:
      self._sources[index] = _Source(position, value)
    else:
      source.trials += 1

  def _chosen_by_onlookers(self) -> list[int]:
    """A source for each onlooker, in proportion to the values."""
    # A variance is not negative, but its rounding error may be.
    values = np.array([max(source.value, 0.0) for source in self._sources])
    shares = values.cumsum()
    draws = self._rng.random(len(values)) * shares[-1]
    chosen = shares.searchsorted(draws, side='right')
    return np.minimum(chosen, len(values) - 1).tolist()

  def _remember_best(self) -> None:
    best = max(self._sources, key=lambda source: source.value)
    if best.value > self._best.value:
      self._best = best

  def _send_scout(self) -> None:
    tired = max(self._sources, key=lambda source: source.trials)
    if tired.trials > self._settings.limit:
      self._sources[self._sources.index(tired)] = self._scouted()
