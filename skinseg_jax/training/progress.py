"""Numbers that the training loop keeps between updates, besides arrays."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from skinseg_jax.metrics import confusion


@dataclasses.dataclass
class Totals:
  """Exact sums over updates; means and ratios are computed from them."""

  steps: int = 0
  seconds: float = 0.0
  loss: float = 0.0
  tp: int = 0
  fp: int = 0
  fn: int = 0
  tn: int = 0

  def add(self, step_metrics: Mapping[str, np.ndarray]) -> None:
    """Adds one update's loss and counts."""
    self.steps += 1
    for name in ('loss', *confusion.COUNTS):
      setattr(self, name, getattr(self, name) + step_metrics[name].item())

  def scores(self) -> dict[str, float]:
    """Mean loss; Dice and accuracy pooled over all pixels."""
    ratios = confusion.ratios(dataclasses.asdict(self))
    return {
      'loss': self.loss / self.steps,
      'dice': float(ratios['dice']),
      'accuracy': float(ratios['accuracy']),
    }


@dataclasses.dataclass
class Progress:
  """What a checkpoint needs so that the log resumes without gaps or repeats.

  Attributes:
    window: Sums over the updates that are not in the log yet.
    epoch: Sums over the updates of the epoch. After its last update they stay
      until the epoch is scored.
    lines: Number of lines in the log.
    one_sided: Number of consecutive epochs, up to now, after which the model
      called every validation pixel lesion, or every one background.
  """

  window: Totals = dataclasses.field(default_factory=Totals)
  epoch: Totals = dataclasses.field(default_factory=Totals)
  lines: int = 0
  one_sided: int = 0

  def as_dict(self) -> dict[str, Any]:
    """A tree of Python numbers."""
    return dataclasses.asdict(self)

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'Progress':
    """The inverse of `as_dict`."""
    sums = {name: Totals(**values[name]) for name in ('window', 'epoch')}
    return cls(**{**values, **sums})
