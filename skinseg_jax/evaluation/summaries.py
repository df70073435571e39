"""Turns the measurements of an evaluation into summary scores."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skinseg_jax.data import groups
from skinseg_jax.evaluation import assessment, subgroups
from skinseg_jax.metrics import bootstrap, calibration, confusion

REPLICATES, BOOTSTRAP_SEED = 2000, 0

# Number of points kept of the precision-recall curve.
_CURVE_POINTS = 200


def scores_per_image(
  assessed: assessment.Assessment,
) -> dict[str, np.ndarray]:
  """All scores of each image by name, float64 [N]."""
  each = confusion.ratios(assessed.counts)
  each['threshold_jaccard'] = confusion.thresholded_jaccard(each['iou'])
  return {**each, **assessed.surface}


def lesions(metadata: Sequence[Mapping[str, str]]) -> list[str]:
  """The lesion or patient of each row, as `groups.names` has it.

  An image without one counts as its own.
  """
  return [''.join(name) for name in groups.names(metadata)]


def summarise(
  assessed: assessment.Assessment,
  metadata: Sequence[Mapping[str, str]],
  *,
  image_size: tuple[int, int],
  threshold: float,
) -> dict[str, Any]:
  """Computes all scores with their intervals for `summary.json`.

  Args:
    assessed: Measurements of N images.
    metadata: Their N rows of metadata.
    image_size: Height and width of the predictions, in pixels.
    threshold: Pixels with a probability above this counted as lesion.
  """
  counts = confusion.pool(assessed.counts)
  pixels = sum(counts.values())
  resampling = bootstrap.resample(
    lesions(metadata), replicates=REPLICATES, seed=BOOTSTRAP_SEED
  )
  pooled = _as_dicts(bootstrap.pooled(resampling, assessed.counts))
  scores = scores_per_image(assessed)
  each = _as_dicts(bootstrap.means(resampling, scores))
  isic = bootstrap.means(resampling, confusion.isic_scores(assessed.counts))
  tp, fp, fn = (assessed.counts[name] for name in ('tp', 'fp', 'fn'))
  return {
    'num_images': len(assessed.image_ids),
    'image_size': list(image_size),
    'threshold': threshold,
    'counts': counts,
    'pooled': {name: ends['value'] for name, ends in pooled.items()},
    'pooled_intervals': pooled,
    'per_image': {
      name: {'mean': ends.pop('value'), **ends} for name, ends in each.items()
    },
    'isic': _as_dicts(isic),
    'skin_tone': subgroups.skin_tone(
      scores['dice'], assessed.skin, lesions(metadata)
    ),
    'clusters': resampling.num_clusters,
    'clustered_by': groups.column(metadata).removesuffix('_id'),
    'replicates': REPLICATES,
    'bootstrap_seed': BOOTSTRAP_SEED,
    'loss': float(assessed.loss.mean(dtype=np.float64)),
    'both_empty_images': int(np.sum(tp + fp + fn == 0)),
    'baselines': confusion.baselines(counts),
    'calibration': {
      'ece': calibration.expected_calibration_error(assessed.histogram),
      'brier': calibration.brier_score(assessed.squared_error, pixels),
      'reliability': calibration.reliability(assessed.histogram),
      'average_precision': _average_precision(assessed.histogram),
    },
    'sweep': {
      name: values.tolist()
      for name, values in calibration.sweep(assessed.histogram).items()
    },
    'precision_recall': _curve(assessed.histogram),
    'native_size': _native(assessed.native_counts),
  }


def _as_dicts(intervals) -> dict[str, dict[str, Any]]:
  return {name: dataclasses.asdict(i) for name, i in intervals.items()}


def _average_precision(histogram: np.ndarray) -> float | None:
  """None if there is no lesion pixel, because JSON has no NaN."""
  value = calibration.average_precision(histogram)
  return None if np.isnan(value) else value


def _curve(histogram: np.ndarray) -> dict[str, list[float]]:
  """Precision-recall curve, thinned to evenly spaced points along it."""
  precision, recall, _ = calibration.precision_recall(histogram)
  steps = np.abs(np.diff(precision)) + np.abs(np.diff(recall))
  along = np.concatenate([[0.0], steps.cumsum()])
  marks = np.linspace(0, along[-1], _CURVE_POINTS)
  kept = np.unique(along.searchsorted(marks).clip(max=len(along) - 1))
  return {
    'precision': precision[kept].tolist(),
    'recall': recall[kept].tolist(),
  }


def _native(counts) -> dict[str, Any] | None:
  if counts is None:
    return None
  each = confusion.ratios(counts)
  each['threshold_jaccard'] = confusion.thresholded_jaccard(each['iou'])
  return {
    'pooled': confusion.as_floats(confusion.ratios(confusion.pool(counts))),
    'per_image': {
      name: {'mean': float(values.mean())} for name, values in each.items()
    },
  }


def scores_at(histogram: np.ndarray, threshold: float) -> dict[str, float]:
  """Pooled scores at a threshold that is a multiple of 1 / BINS."""
  index = round(threshold * calibration.BINS)
  counts = calibration.counts_above(histogram)
  return confusion.as_floats(
    confusion.ratios({name: values[index] for name, values in counts.items()})
  )


def describe(summary: Mapping[str, Any]) -> str:
  """Formats the main scores with their intervals in a few lines."""
  pooled, each = summary['pooled_intervals'], summary['per_image']
  of = summary['clustered_by']
  lines = [
    f'step {summary["checkpoint_step"]}, {summary["num_images"]} images of'
    f' {summary["clusters"]} {of}s (95 % intervals by {of})'
  ]
  for name in ('dice', 'iou', 'precision', 'recall', 'accuracy'):
    lines.append(f'  pooled {name:22}{_ends(pooled[name], "value")}')
  for name in ('dice', 'threshold_jaccard', 'boundary_f1'):
    lines.append(f'  mean {name:24}{_ends(each[name], "mean")}')
  lines.append(f'  {_skin_tone(summary)}')
  lines += _notes(summary)
  return '\n'.join(lines)


def _ends(ends: Mapping[str, float | None], value: str) -> str:
  if ends['low'] is None:
    return f'{ends[value]:.4f}'
  return f'{ends[value]:.4f} ({ends["low"]:.4f} to {ends["high"]:.4f})'


def _skin_tone(summary) -> str:
  tone = summary['skin_tone']
  found = tone['dice_rank_correlation']
  return (
    'rank correlation of dice and skin angle (ITA) '
    + ('unknown' if found is None else _ends(found, 'value'))
    + f', {tone["images"]} images'
  )


def _notes(summary) -> list[str]:
  """Notes on threshold, review, overlap with training data and shift."""
  lines = []
  if point := summary['operating_point']:
    lines.append(
      f'  pooled dice {point["pooled"]["dice"]:.4f} at the threshold'
      f' {point["threshold"]:.3f}, the best on the training images'
    )
  if judged := summary.get('review'):
    counts = ', '.join(f'{n} {name}' for name, n in judged['counts'].items())
    lines.append(f'  expert review: {counts}')
    if judged['excluded']:
      lines.append(f'  left out as rejected: {len(judged["excluded"])} images')
  if trained_on := summary.get('trained_on'):
    lines.append(
      f'  {trained_on:,} of these images have the id of a training image: their'
      ' scores are likely too good'
    )
  lines += [
    f'  shift: {note}' for note in summary.get('shift', {}).get('notes', [])
  ]
  return lines
