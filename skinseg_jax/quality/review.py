"""Decides whether a person should look at a prediction, and says why."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from skinseg_jax.measures import shape
from skinseg_jax.quality import expected_dice, signs

# Columns of `predictions.csv`.
COLUMNS = ('expected_dice', 'needs_review', 'reasons')

NOTHING = 'nothing found'
BORDER = 'lesion touches the border'
SEVERAL = 'several lesions'
UNIFORM = 'nearly one colour'
DARK = 'too dark'
BLURRED = 'blurred'
UNLIKE = 'unlike the training images'
LOW = 'low expected Dice'

# Without a calibration: mean grey value, `detail` (see `signs.describe`), and
# standard deviation of the grey values.
_DARK, _BLURRED, _UNIFORM = 50.0, -1.6, 3.0
# Smallest share of the lesion that counts as another lesion.
_PIECE = 0.05


@dataclasses.dataclass(frozen=True)
class Review:
  """What is known of how far a mask can be trusted.

  Attributes:
    expected_dice: The Dice to expect of the mask, in [0, 1]; None without a
      calibration.
    reasons: Why a person should look at the mask; empty for no reason.
  """

  expected_dice: float | None
  reasons: tuple[str, ...]

  @property
  def needed(self) -> bool:
    """Whether a person should look at the mask."""
    return bool(self.reasons)


def examine(
  image: np.ndarray,
  probability: np.ndarray,
  mask: np.ndarray,
  threshold: float,
  calibration: expected_dice.Calibration | None,
  *,
  features: np.ndarray | None,
  tiled: bool = False,
) -> Review:
  """Examines one prediction.

  Args:
    image: RGB, uint8 [h, w, 3], of the model's size.
    probability: Probability of lesion, float32 [h, w].
    mask: The mask that is written, of the picture's or the model's size, bool
      [height, width].
    threshold: Probability above which a pixel counts as lesion, in (0, 1).
    calibration: What `expected_dice.fit` learned for this model. Without it,
      there is no expected Dice, and unlike pictures are not noticed.
    features: Of the network for the picture, [C]. None: only colours and
      patterns say whether the picture is unlike the training images.
    tiled: Whether the picture was predicted in tiles. The expected Dice does
      not hold then, and there is none.
  """
  found = signs.describe(image, probability, threshold)
  why = [*_of_mask(mask), *of_picture(found, features, calibration)]
  if calibration is None or tiled:
    return Review(None, tuple(why))
  if calibration.is_low(found):
    why.append(LOW)
  return Review(calibration.expected(found), tuple(why))


def cells(review: Review) -> dict[str, int | str]:
  """Cells of a table by the names in `COLUMNS`.

  The expected Dice, 0 to 1, or ''; 1 if a person should look at the mask,
  otherwise 0; why, separated by '; '.
  """
  dice = review.expected_dice
  return {
    'expected_dice': '' if dice is None else f'{dice:.4f}',
    'needs_review': int(review.needed),
    'reasons': '; '.join(review.reasons),
  }


def _of_mask(mask: np.ndarray) -> list[str]:
  if not mask.any():
    return [NOTHING]
  why = []
  if shape.touches_border(mask):
    why.append(BORDER)
  # Large pictures are thinned out: pieces of a twentieth remain.
  thin = mask[tuple(slice(None, None, max(1, n // 256)) for n in mask.shape)]
  sizes = signs.piece_sizes(thin)
  if (sizes >= _PIECE * sizes.sum()).sum() > 1:
    why.append(SEVERAL)
  return why


def of_picture(
  found: Mapping[str, float],
  features: np.ndarray | None,
  calibration: expected_dice.Calibration | None,
) -> list[str]:
  """Reasons that the picture alone gives; whatever the prediction.

  Args:
    found: `signs.describe` of the picture.
    features: As in `examine`.
    calibration: Likewise.
  """
  dark = calibration.dark if calibration else _DARK
  blurred = calibration.blurred if calibration else _BLURRED
  checks = {
    UNIFORM: found['contrast'] < np.log(_UNIFORM + 1),
    DARK: expected_dice.grey(found) < dark,
    BLURRED: found['detail'] < blurred,
    UNLIKE: calibration and calibration.is_unlike(found, features),
  }
  return [reason for reason, applies in checks.items() if applies]
