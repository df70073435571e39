"""Evaluates probabilities: histogram, calibration and all thresholds at once.

Probabilities of lesion and of skin pixels are counted in `BINS` bins of equal
width. Bin k holds k / BINS < p <= (k + 1) / BINS; bin 0 also holds p = 0. The
pixels above an edge are therefore exactly the pixels that
`confusion.confusion_counts` calls lesion at that threshold. BINS is a power of
two, so nothing is rounded. Only calibration replaces a pixel's probability by
the centre of its bin; the error is at most 1 / 32,768. The Brier score does not
use bins.
"""

import jax
import jax.numpy as jnp
import numpy as np

from skinseg_jax.metrics import confusion

BINS = 2**14

# Bins of the reliability diagram, as in Guo et al., 2017 (arXiv:1706.04599).
RELIABILITY_BINS = 15


@jax.jit
def probability_histogram(
  logits: jax.Array, masks: jax.Array, valid: jax.Array
) -> jax.Array:
  """Counts the pixels of a batch by truth and predicted probability.

  Args:
    logits: Model output before the sigmoid, float, [B, H, W, 1].
    masks: Ground truth, 1 for lesion and 0 for skin, [B, H, W].
    valid: Which images count, bool, [B].

  Returns:
    Number of skin pixels (row 0) and lesion pixels (row 1) in each bin, int32
    [2, BINS]. Sum the batches on the host, in int64.

  Raises:
    ValueError: If the shapes do not fit.
  """
  _check(logits, masks)
  probabilities = jax.nn.sigmoid(logits[..., 0])
  # Exact, since BINS is a power of two. NaN falls into bin 0.
  above = jnp.ceil(probabilities * BINS).astype(jnp.int32)
  bins = jnp.clip(above - 1, 0, BINS - 1)
  bins = jnp.where(masks > 0, bins + BINS, bins)
  # Padding gets an index that does not exist, so `drop` ignores it.
  bins = jnp.where(valid[:, None, None], bins, 2 * BINS)
  counts = jnp.zeros(2 * BINS, jnp.int32).at[bins].add(1, mode='drop')
  return counts.reshape(2, BINS)


@jax.jit
def squared_errors(logits: jax.Array, masks: jax.Array) -> jax.Array:
  """Sums (p - y)^2 over the pixels of each image, for `brier_score`.

  Args:
    logits: Model output before the sigmoid, float, [B, H, W, 1].
    masks: Ground truth, 1 for lesion and 0 for skin, [B, H, W].

  Returns:
    float32 [B], with a relative error of about 2e-6 at 224 x 224.

  Raises:
    ValueError: If the shapes do not fit.
  """
  _check(logits, masks)
  squared = (jax.nn.sigmoid(logits[..., 0]) - masks) ** 2
  squared = squared.reshape(len(masks), -1)
  # A matrix product, because XLA fuses sigmoid and `sum` into a program that is
  # 25 times as slow on a CPU.
  ones = jnp.ones(squared.shape[1])
  return jnp.matmul(squared, ones, precision='highest')


def _check(logits, masks):
  if logits.shape != (*masks.shape, 1):
    raise ValueError(
      'logits must be [B, H, W, 1] for masks [B, H, W], got'
      f' {logits.shape} and {masks.shape}.'
    )


def brier_score(squared: np.ndarray, pixels: int) -> float:
  """Mean squared error of the probabilities of all pixels (Brier, 1950).

  Args:
    squared: `squared_errors` of all images, [N].
    pixels: Number of pixels of all images together.
  """
  return float(np.sum(squared, dtype=np.float64) / pixels)


def reliability(histogram: np.ndarray) -> list[dict[str, float]]:
  """Makes the table of a reliability diagram.

  Args:
    histogram: Skin and lesion pixels, integers, [2, BINS].

  Returns:
    A row for each of the 15 bins of equal width that is not empty: its ends
    `low` and `high`, its number of `pixels`, `confidence` (mean probability)
    and `frequency` (share of lesion pixels). All but `pixels` are in [0, 1].
  """
  rows = []
  for number, (pixels, lesion, summed) in enumerate(_reliability(histogram)):
    if pixels:
      rows.append(
        {
          'low': number / RELIABILITY_BINS,
          'high': (number + 1) / RELIABILITY_BINS,
          'pixels': int(pixels),
          'confidence': float(summed / pixels),
          'frequency': float(lesion / pixels),
        }
      )
  return rows


def expected_calibration_error(histogram: np.ndarray) -> float:
  """Mean distance of confidence and frequency over bins, weighted by pixels.

  Guo et al., 2017 (arXiv:1706.04599), equation 3 with 15 bins, for the
  probability of lesion.

  Args:
    histogram: Skin and lesion pixels, integers, [2, BINS]; not empty.
  """
  pixels, lesion, summed = _reliability(histogram).T
  return float(np.abs(summed - lesion).sum() / pixels.sum())


def _reliability(histogram) -> np.ndarray:
  """Pixels, lesion pixels and sum of probabilities by bin; float64 [15, 3]."""
  centres = (np.arange(BINS) + 0.5) / BINS
  # No centre lies on an edge of a wide bin: 15 and 2 * BINS share no factor.
  wide = (centres * RELIABILITY_BINS).astype(int)
  pixels, lesion = histogram.sum(axis=0, dtype=np.int64), histogram[1]
  return np.stack(
    [
      np.bincount(wide, weights=weights, minlength=RELIABILITY_BINS)
      for weights in (pixels, lesion, pixels * centres)
    ],
    axis=1,
  )


def counts_above(histogram: np.ndarray) -> dict[str, np.ndarray]:
  """Pooled counts at every threshold k / BINS; at 0 every pixel is lesion.

  Args:
    histogram: Skin and lesion pixels, integers, [2, BINS].

  Returns:
    `tp`, `fp`, `fn`, `tn`, int64 [BINS].
  """
  above = histogram[:, ::-1].cumsum(axis=1, dtype=np.int64)[:, ::-1]
  (fp, tp), (skin, lesion) = above, histogram.sum(axis=1, dtype=np.int64)
  return {'tp': tp, 'fp': fp, 'fn': lesion - tp, 'tn': skin - fp}


def thresholds() -> np.ndarray:
  """The thresholds of `counts_above`, float64 [BINS], from 0 up."""
  return np.arange(BINS) / BINS


def sweep(histogram: np.ndarray, *, points: int = 128) -> dict[str, np.ndarray]:
  """Pooled scores at evenly spaced thresholds, including 0.5.

  Args:
    histogram: Skin and lesion pixels, integers, [2, BINS].
    points: Number of steps from 0 to 1; a power of two.

  Returns:
    `threshold`, and `dice`, `iou`, `precision`, `recall` at each threshold;
    float64 [points - 1].
  """
  chosen = np.s_[BINS // points :: BINS // points]
  counts = {n: c[chosen] for n, c in counts_above(histogram).items()}
  scores = confusion.ratios(counts)
  return {
    'threshold': thresholds()[chosen],
    **{name: scores[name] for name in ('dice', 'iou', 'precision', 'recall')},
  }


def precision_recall(
  histogram: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Precision-recall curve, from the highest threshold down.

  Only thresholds at which the prediction changes are kept.

  Args:
    histogram: Skin and lesion pixels, integers, [2, BINS].

  Returns:
    Precision, recall and threshold, float64 [K].
  """
  changes = np.flatnonzero(histogram.any(axis=0))[::-1]
  scores = confusion.ratios(
    {name: count[changes] for name, count in counts_above(histogram).items()}
  )
  return scores['precision'], scores['recall'], thresholds()[changes]


def average_precision(histogram: np.ndarray) -> float:
  """Area under the precision-recall curve, as a step sum as in scikit-learn.

  Args:
    histogram: Skin and lesion pixels, integers, [2, BINS].

  Returns:
    Sum of precision times the increase in recall, in [0, 1]; NaN if there is no
    lesion pixel.
  """
  if not histogram[1].any():
    return float('nan')
  precision, recall, _ = precision_recall(histogram)
  return float(np.sum(precision * np.diff(recall, prepend=0.0)))


def best_threshold(histogram: np.ndarray) -> float:
  """Finds the threshold with the highest pooled Dice.

  Use only the histogram of the training images. A threshold that is chosen on
  the images of a reported score makes that score too good.

  Args:
    histogram: Skin and lesion pixels, integers, [2, BINS].

  Returns:
    Threshold in (0, 1), a multiple of 1 / BINS. Of equally good thresholds, the
    one nearest to 0.5.
  """
  dice = confusion.ratios(counts_above(histogram))['dice'][1:]
  best = thresholds()[1:][dice == dice.max()]
  return float(best[np.argmin(np.abs(best - 0.5))])
