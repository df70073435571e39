"""Loss functions for training."""

import jax
import jax.numpy as jnp
import numpy as np

from skinseg_jax.metrics import cross_entropy

# Added to numerator and denominator, so that the ratio exists for empty masks.
_ONE_PIXEL = 1.0
# Constants of focal Tversky, as in its paper: weight of a missed lesion pixel,
# weight of a false lesion pixel, and exponent 1 / gamma for gamma = 4 / 3.
_MISSED, _FALSE, _EXPONENT = 0.7, 0.3, 0.75


def bce_dice_with_logits(logits: jax.Array, masks: jax.Array) -> jax.Array:
  """Cross-entropy plus (1 - soft Dice) of each image.

  The sum follows nnU-Net (Isensee et al., 2021, doi:10.1038/
  s41592-020-01008-z). The soft Dice follows Drozdzal et al., 2016
  (arXiv:1608.04117): 2 sum(p t) / (sum(p) + sum(t)), with one pixel added to
  numerator and denominator.

  Args:
    logits: Model output before the sigmoid, float, [B, H, W, 1].
    masks: Ground truth in [0, 1], [B, H, W].

  Returns:
    Loss, float32 [B].

  Raises:
    ValueError: If the shapes do not fit.
  """
  hit, missed, false = _soft_counts(logits, masks)
  dice = (2 * hit + _ONE_PIXEL) / (2 * hit + missed + false + _ONE_PIXEL)
  return cross_entropy.bce_with_logits(logits, masks) + 1 - dice


def focal_tversky_with_logits(logits: jax.Array, masks: jax.Array) -> jax.Array:
  """(1 - T) ** (3 / 4) of each image's Tversky index T.

  As in Abraham and Khan, 2019 (arXiv:1810.07842), T = TP / (TP + 0.7 FN +
  0.3 FP) in soft counts, with one pixel added to numerator and denominator.
  Missed lesion pixels weigh more than false ones.

  Args:
    logits: Model output before the sigmoid, float, [B, H, W, 1].
    masks: Ground truth in [0, 1], [B, H, W].

  Returns:
    Loss in [0, 1], float32 [B].

  Raises:
    ValueError: If the shapes do not fit.
  """
  hit, missed, false = _soft_counts(logits, masks)
  wrong = _MISSED * missed + _FALSE * false
  # The slope at 0 is infinite, so values below a millionth are cut off.
  return jnp.maximum(wrong / (hit + wrong + _ONE_PIXEL), 1e-6) ** _EXPONENT


# Losses by their name in `config.train.loss`; each returns one value per image.
BY_NAME = {
  'bce': cross_entropy.bce_with_logits,
  'bce_dice': bce_dice_with_logits,
  'focal_tversky': focal_tversky_with_logits,
}


def soften(masks: jax.Array, sigma: float) -> jax.Array:
  """Blurs masks, so that the loss is lower where outlines are uncertain.

  Args:
    masks: In {0, 1}, [B, H, W].
    sigma: Standard deviation of the Gaussian in pixels; 0 changes nothing. The
      Gaussian is cut at three standard deviations. Edge pixels are repeated
      outwards (scipy's `nearest`).

  Returns:
    float32 [B, H, W] in [0, 1].
  """
  masks = masks.astype(jnp.float32)
  if not sigma:
    return masks
  radius = int(3 * sigma + 0.5)
  offsets = np.arange(-radius, radius + 1)
  weights = np.exp(-0.5 * (offsets / sigma) ** 2)
  weights /= weights.sum()
  for axis in (1, 2):
    size = masks.shape[axis]
    widths = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
    padded = jnp.pad(masks, widths, mode='edge')
    masks = sum(  # type: ignore[assignment]
      float(weight) * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
      for i, weight in enumerate(weights)
    )
  return masks


def _soft_counts(logits, masks) -> tuple[jax.Array, jax.Array, jax.Array]:
  """TP, FN and FP with probabilities in place of decisions, float32 [B]."""
  logits, masks = cross_entropy.aligned(logits, masks)
  probabilities = jax.nn.sigmoid(logits)
  total = lambda x: x.sum(axis=(1, 2))
  return (
    total(probabilities * masks),
    total((1 - probabilities) * masks),
    total(probabilities * (1 - masks)),
  )
