"""Counts on the device, ratios on the host.

Rule for empty masks: if truth and prediction are both empty, Dice, IoU,
precision and recall are 1, as in the ISIC challenge. If only one of them is
empty, they are 0. Specificity follows the same rule with lesion and skin
swapped. Matthews' correlation (MCC) is undefined if truth or prediction is
constant; we set it to 1 if they agree everywhere, else to 0.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

COUNTS = ('tp', 'fp', 'fn', 'tn')

# An image whose IoU is below this scores 0 in the thresholded Jaccard index
# of the ISIC 2018 challenge (arXiv:1902.03368).
JACCARD_THRESHOLD = 0.65


def confusion_counts(
  logits: jax.Array, masks: jax.Array, *, threshold: float = 0.5
) -> dict[str, jax.Array]:
  """Counts true and false pixels of every image.

  Args:
    logits: Model output before the sigmoid, float, [B, H, W, 1].
    masks: Ground truth, 1 for lesion and 0 for skin, [B, H, W].
    threshold: Probability above which a pixel counts as lesion, in (0, 1).

  Returns:
    `tp`, `fp`, `fn`, `tn`, each int32 [B]; their sum is H * W.

  Raises:
    ValueError: If the shapes do not fit.
  """
  if logits.shape != (*masks.shape, 1):
    raise ValueError(
      'logits must be [B, H, W, 1] for masks [B, H, W], got'
      f' {logits.shape} and {masks.shape}.'
    )
  pred, true = jax.nn.sigmoid(logits[..., 0]) > threshold, masks > 0
  count = lambda x: jnp.sum(x, axis=(1, 2), dtype=jnp.int32)
  return {
    'tp': count(pred & true),
    'fp': count(pred & ~true),
    'fn': count(~pred & true),
    'tn': count(~pred & ~true),
  }


def mask_counts(predicted: np.ndarray, true: np.ndarray) -> dict[str, int]:
  """Counts true and false pixels of one mask on the host.

  Args:
    predicted: bool, [H, W].
    true: Ground truth, bool, [H, W].

  Returns:
    `tp`, `fp`, `fn`, `tn`; their sum is H * W.
  """
  tp = int(np.count_nonzero(predicted & true))
  fp = int(np.count_nonzero(predicted)) - tp
  fn = int(np.count_nonzero(true)) - tp
  return {'tp': tp, 'fp': fp, 'fn': fn, 'tn': true.size - tp - fp - fn}


def ratios(counts: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Turns counts into scores.

  Args:
    counts: `tp`, `fp`, `fn`, `tn`, integers of the same shape: scalars for
      pooled scores, [N] for scores per image.

  Returns:
    `accuracy`, `precision`, `recall`, `specificity`, `dice`, `iou` in [0, 1]
    and `mcc` in [-1, 1], float64 of the same shape.
  """
  tp, fp, fn, tn = (np.asarray(counts[name], np.int64) for name in COUNTS)
  return {
    'accuracy': _ratio(tp + tn, tp + fp + fn + tn, tp + tn),
    'precision': _ratio(tp, tp + fp, fn),
    'recall': _ratio(tp, tp + fn, fp),
    'specificity': _ratio(tn, tn + fp, fn),
    'dice': _ratio(2 * tp, 2 * tp + fp + fn, 0),
    'iou': _ratio(tp, tp + fp + fn, 0),
    'mcc': _mcc(tp, fp, fn, tn),
  }


def _ratio(part, whole, missed) -> np.ndarray:
  """Part / whole. If whole is 0: 1 if nothing was missed, else 0."""
  return np.where(whole > 0, part / np.maximum(whole, 1), missed == 0)


def _mcc(tp, fp, fn, tn) -> np.ndarray:
  """Matthews, 1975 (doi:10.1016/0005-2795(75)90109-9)."""
  # Floats, because the product of four counts overflows 64-bit integers.
  tp, fp, fn, tn = (np.asarray(count, np.float64) for count in (tp, fp, fn, tn))
  scale = np.sqrt((tp + fp) * (tp + fn)) * np.sqrt((tn + fp) * (tn + fn))
  mcc = (tp * tn - fp * fn) / np.where(scale > 0, scale, 1)
  return np.where(scale > 0, np.clip(mcc, -1, 1), fp + fn == 0)


def isic_scores(counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Scores each image as in part 1 of the ISIC challenges of 2017 and 2018.

  The challenges report the mean over images. The definitions come from
  arXiv:1710.05006 and arXiv:1902.03368. Undefined ratios follow the challenge's
  program (github.com/ImageMarkup/isic-challenge-scoring): Dice and Jaccard are
  1 if truth and prediction are both empty. Sensitivity is 1 if the truth is
  empty, and specificity is 1 if the truth is all lesion, whatever was
  predicted. Only these last two rules differ from `recall` and `specificity` of
  `ratios`.

  Args:
    counts: `tp`, `fp`, `fn`, `tn`, integers, [N].

  Returns:
    `accuracy`, `sensitivity`, `specificity`, `dice`, `jaccard` and
    `threshold_jaccard`, float64 [N] in [0, 1].
  """
  tp, fp, fn, tn = (np.asarray(counts[name], np.int64) for name in COUNTS)
  scores = ratios(counts)
  return {
    'accuracy': scores['accuracy'],
    'sensitivity': _ratio(tp, tp + fn, 0),
    'specificity': _ratio(tn, tn + fp, 0),
    'dice': scores['dice'],
    'jaccard': scores['iou'],
    'threshold_jaccard': thresholded_jaccard(scores['iou']),
  }


def thresholded_jaccard(iou: np.ndarray) -> np.ndarray:
  """IoU where it is at least 0.65, else 0 (ISIC 2018, arXiv:1902.03368)."""
  return np.where(iou >= JACCARD_THRESHOLD, iou, 0.0)


def pool(counts: Mapping[str, np.ndarray]) -> dict[str, int]:
  """Sums the counts of all images, exactly."""
  return {name: int(np.sum(counts[name], dtype=np.int64)) for name in COUNTS}


def baselines(counts: Mapping[str, int]) -> dict[str, dict[str, float]]:
  """Pooled scores of two constant predictions on the same truth.

  Args:
    counts: Pooled counts of any prediction; only the truth in them is used.
  """
  lesion = counts['tp'] + counts['fn']
  skin = counts['fp'] + counts['tn']
  constant = {
    'all_background': {'tp': 0, 'fp': 0, 'fn': lesion, 'tn': skin},
    'all_lesion': {'tp': lesion, 'fp': skin, 'fn': 0, 'tn': 0},
  }
  return {name: as_floats(ratios(c)) for name, c in constant.items()}


def as_floats(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Scalars as Python floats, for JSON."""
  return {name: float(value) for name, value in scores.items()}
