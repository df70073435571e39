"""Masks of one picture, and of turned and mirrored views of it."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from skinseg_jax.data import preprocessing
from skinseg_jax.inference import model_interface, postprocessing, predictor

_LARGEST = postprocessing.Steps(fill_holes=True, largest_component=True)
_FILLED = postprocessing.Steps(fill_holes=True)
# Pixels that touch at a corner belong to one piece.
_NEIGHBOURS = np.ones((3, 3), bool)


@dataclasses.dataclass(frozen=True, eq=False)
class Masks:
  """What a model says about a picture, with all pieces.

  Attributes:
    mask: Whether a pixel is lesion, bool [H, W].
    answer: What the model says at its own size.
    threshold: Probability above which a pixel is lesion, in (0, 1).
  """

  mask: np.ndarray
  answer: predictor.Answer
  threshold: float

  def views(self) -> Iterator[np.ndarray]:
    """Yields the mask of each view, bool [H, W]."""
    views = self.answer.views
    return predictor.view_masks(views, self.mask.shape, self.threshold)


def predict(
  model: model_interface.AnyModel,
  image: np.ndarray,
  size: tuple[int, int],
  *,
  bands: bool,
) -> Masks:
  """Predicts a picture, and views of it.

  The mask is that of `predict`. With `bands`, several views are kept, as
  `predictor.answers` says.

  Args:
    model: Trained models.
    image: RGB, uint8, [height, width, 3].
    size: Height and width of the masks.
    bands: Whether to keep views. Without a lesion none are kept.
  """
  threshold = model.config.evaluation.threshold
  (found,) = predictor.answers(
    model,
    [predictor.resize(model, image)],
    predictor.whole_batch(model, 1),
    views='several' if bands else 'none',
  )
  mask = preprocessing.resize_probability(found.probability, size) > threshold
  if not mask.any():
    # Copied: a part of an array keeps all of it in memory.
    found = found._replace(views=found.views[:0].copy())
  return Masks(mask, found, threshold)


def largest(mask: np.ndarray) -> np.ndarray:
  """The largest piece of a mask, without holes; bool [H, W]."""
  return postprocessing.clean(mask, _LARGEST)


def piece_at(mask: np.ndarray, place: np.ndarray) -> np.ndarray:
  """The piece of a mask that covers most of a place, without holes.

  Args:
    mask: bool, [H, W].
    place: bool, [H, W].

  Returns:
    bool [H, W]; empty if the mask covers nothing of the place.
  """
  filled = postprocessing.clean(mask, _FILLED)
  labels, _ = ndimage.label(filled, structure=_NEIGHBOURS)
  covered = np.bincount(labels[place], minlength=1)
  covered[0] = 0  # Skin.
  return filled & (labels == covered.argmax())
