"""How well masks fit the colours of their images, without a model.

The fit of a mask is R^2, the share of its variance that a linear function of
red, green and blue explains in that image. It does not change when the mask is
inverted, and it asks only that lesion and skin differ in colour, not which of
the two is darker. A mask that was flipped, turned or taken from another image
fits worse than the right one in almost every image.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Ways in which all pixels of a mask can move. `right`: a quarter turn to the
# right turned the mask into what it is.
MOVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  'flipped left to right': lambda masks: masks[:, :, ::-1],
  'flipped upside down': lambda masks: masks[:, ::-1],
  'turned by 180 degrees': lambda masks: masks[:, ::-1, ::-1],
  'turned by 90 degrees to the right': lambda masks: np.rot90(masks, 1, (1, 2)),
  'turned by 90 degrees to the left': lambda masks: np.rot90(masks, 3, (1, 2)),
}
# A fit is better than another if it exceeds it by this much. Of the 10,015
# images of HAM10000 at 32 px, 0.2 % have a move that fits better by this, 0.9
# of their flipped masks do.
_MARGIN = 0.03
# Each image is compared with the masks of so many others.
_PARTNERS = 16
# Share of other images' masks that fit better, from which on a mask is taken
# for another image's: 3 % of the images of HAM10000, 69 % of shuffled pairs.
_BETTER_PARTNERS = 0.25
# Among how many of the other masks a moved mask must be the best.
_TOP = 0.9


class Votes(NamedTuple):
  """What each image says of its mask; N images.

  Attributes:
    fit: R^2 of the given mask, 0 to 1, [N].
    move: Index in `MOVES` of the move that undoes what was done to the mask,
      -1 where none fits clearly better, [N].
    misfit: Whether a moved mask or many other images' masks fit better than
      the given one, bool [N].
  """

  fit: np.ndarray
  move: np.ndarray
  misfit: np.ndarray


def vote(images: np.ndarray, masks: np.ndarray) -> Votes:
  """Compares each mask with its moved copies and with other images' masks.

  Args:
    images: float [N, S, S, 3], 0 to 255.
    masks: Share of lesion, float [N, S, S], 0 to 1; constant in no image.
  """
  colours, units = _whitened(images), _unit(masks)
  fit = _fit(colours, units)
  moved = np.stack(
    [_fit(colours, _unit(move(masks))) for move in MOVES.values()]
  )
  offsets = _offsets(len(images))
  others = np.stack(
    [_fit(colours, np.roll(units, -offset, axis=0)) for offset in offsets]
  )
  undone = (moved.max(axis=0) > fit + _MARGIN) & (
    moved.max(axis=0) >= np.quantile(others, _TOP, axis=0)
  )
  better = (others > fit + _MARGIN).mean(axis=0)
  return Votes(
    fit=fit,
    move=np.where(undone, moved.argmax(axis=0), -1),
    misfit=undone | (better >= _BETTER_PARTNERS),
  )


def _offsets(count: int) -> list[int]:
  """Distances to the partners of each image, evenly spread over the set."""
  partners = min(count - 1, _PARTNERS)
  return [
    round((number + 1) * count / (partners + 1)) for number in range(partners)
  ]


def _whitened(images: np.ndarray) -> np.ndarray:
  """Colours of each image with mean 0, uncorrelated, of length 1 each.

  Returns:
    float [N, S * S, 3]. Where a colour does not vary beyond one grey level,
    it is shorter than 1: noise explains nothing.
  """
  pixels = images.reshape(len(images), -1, 3)
  pixels = pixels - pixels.mean(axis=1, keepdims=True)
  count = pixels.shape[1]
  covariance = pixels.transpose(0, 2, 1) @ pixels / count + np.eye(3)
  variances, axes = np.linalg.eigh(covariance)
  return pixels @ (axes / np.sqrt(variances * count)[:, None])


def _unit(masks: np.ndarray) -> np.ndarray:
  """Masks with mean 0 and length 1, [N, S * S]."""
  flat = masks.reshape(len(masks), -1)
  flat = flat - flat.mean(axis=1, keepdims=True)
  return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def _fit(colours: np.ndarray, units: np.ndarray) -> np.ndarray:
  """R^2 of each mask, [N]."""
  return ((units[:, None] @ colours)[:, 0] ** 2).sum(axis=1)
