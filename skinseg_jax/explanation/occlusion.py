"""Occlusion sensitivity: what is lost when a patch of the picture is hidden.

Zeiler and Fergus, 2014 (arXiv:1311.2901), section 4.2, with the lesion's logits
for the score of a class.
"""

import itertools
from collections.abc import Callable

import numpy as np

from skinseg_jax.runtime import errors

# Pictures that are predicted at once.
BATCH_SIZE = 32
# Smaller patches take very long and hide next to nothing.
_SMALLEST = 4


def patch_size(given: int | None, image_size: tuple[int, int]) -> int:
  """Height and width of a patch: an eighth of the input if not given.

  Args:
    given: Value of --patch, in pixels of the network's input.
    image_size: Height and width of that input.

  Raises:
    InputError: If such a patch does not fit.
  """
  shorter = min(image_size)
  if given is None:
    return max(_SMALLEST, shorter // 8)
  if not _SMALLEST <= given <= shorter // 2:
    raise errors.InputError(
      f'--patch {given} does not fit: the network sees {image_size[0]} x'
      f' {image_size[1]} pixels; give {_SMALLEST} to {shorter // 2}.'
    )
  return given


def sensitivity(
  predict: Callable[[np.ndarray], np.ndarray],
  image: np.ndarray,
  pixels: np.ndarray,
  patch: int,
) -> np.ndarray:
  """Hides patch after patch and looks how far the score falls.

  The score is the mean logit of the chosen pixels. A patch is filled with the
  mean colour of the picture. Neighbouring patches overlap by half.

  Args:
    predict: Maps uint8 [N, H, W, 3], N up to `BATCH_SIZE`, to logits
      [N, H, W, 1].
    image: uint8 [H, W, 3].
    pixels: Whether a pixel counts, bool [H, W], at least one.
    patch: Height and width of a patch, in pixels.

  Returns:
    float32 [H, W], in logits: for each pixel, the mean fall of the score over
    the patches that hide it. Above 0 where the picture speaks for the lesion.
  """
  height, width = image.shape[:2]
  colour = np.rint(image.mean(axis=(0, 1))).astype(np.uint8)
  corners = itertools.product(_starts(height, patch), _starts(width, patch))
  # The first of them hides nothing.
  places = [
    np.s_[:0, :0],
    *(np.s_[y : y + patch, x : x + patch] for y, x in corners),
  ]
  scores: list[float] = []
  for start in range(0, len(places), BATCH_SIZE):
    batch = places[start : start + BATCH_SIZE]
    images = np.repeat(image[None], len(batch), axis=0)
    for one, place in zip(images, batch, strict=True):
      one[place] = colour
    scores += predict(images)[:, pixels, 0].mean(axis=1).tolist()
  total, count = np.zeros((2, height, width))
  for place, score in zip(places, scores, strict=True):
    total[place] += scores[0] - score
    count[place] += 1
  return (total / count).astype(np.float32)


def _starts(length: int, patch: int) -> list[int]:
  """Where patches begin; the last one ends at the edge."""
  starts = range(0, length - patch, max(1, patch // 2))
  return [*starts, length - patch]
