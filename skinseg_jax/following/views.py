"""Masks of one picture from turned and mirrored views of it."""

import dataclasses

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
    mask: That of `predict`, bool [H, W].
    views: By each view of each member of the model, bool [H, W] each.
    answer: What the model says at its own size.
  """

  mask: np.ndarray
  views: list[np.ndarray]
  answer: predictor.Answer


def predict(model: model_interface.AnyModel, image: np.ndarray) -> Masks:
  """Predicts a picture, and views of it.

  They are the views that the model averages. Of a member that averages none,
  the picture and its mirror images are taken, and where its input is square
  their quarter turns.

  Args:
    model: Trained models.
    image: RGB, uint8, [H, W, 3].
  """
  threshold = model.config.evaluation.threshold
  (found,) = predictor.answers(
    model,
    [predictor.resize(model, image)],
    predictor.whole_batch(model, 1),
    views='several',
  )
  size = (image.shape[0], image.shape[1])
  mean = preprocessing.resize_probability(found.probability, size)
  each = predictor.view_masks(found.views, size, threshold)
  return Masks(mean > threshold, list(each), found)


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
