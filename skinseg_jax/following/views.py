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
    probability: Probability of lesion that the mask is from, as `predict` finds
      it, float32 [h, w] in [0, 1], at the size of the model.
    each: The same by each view of each member, float32 [V, h, w].
    threshold: Probability above which a pixel is lesion, in (0, 1).
  """

  mask: np.ndarray
  probability: np.ndarray
  each: np.ndarray
  threshold: float

  def views(self) -> Iterator[np.ndarray]:
    """Yields the mask of each view, bool [H, W]."""
    return predictor.view_masks(self.each, self.mask.shape, self.threshold)


def predict(
  model: model_interface.AnyModel,
  image: np.ndarray,
  size: tuple[int, int],
  *,
  bands: bool,
) -> Masks:
  """Predicts a picture, and views of it.

  The mask averages the views that the model averages, as that of `predict`
  does. `each` has these views. Of a member that averages none, it has the
  picture and its mirror images, and where its input is square their quarter
  turns.

  Args:
    model: Trained models.
    image: RGB, uint8, [height, width, 3].
    size: Height and width of the masks.
    bands: Whether views are needed. Without it, and without a lesion, `each` is
      empty.
  """
  threshold = model.config.evaluation.threshold
  (found,) = predictor.view_probabilities(
    model,
    [predictor.resize(model, image)],
    predictor.whole_batch(model, 1),
    several=bands,
  )
  mask = preprocessing.resize_probability(found.mean, size) > threshold
  # Copied: a part of an array keeps all of it in memory.
  each = found.each if bands and mask.any() else found.each[:0].copy()
  return Masks(mask, found.mean, each, threshold)


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
