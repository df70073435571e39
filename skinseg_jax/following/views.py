"""Masks of one picture from turned and mirrored views of it."""

import copy
import dataclasses
import itertools

import numpy as np
from scipy import ndimage

from skinseg_jax.data import preprocessing
from skinseg_jax.inference import (
  model_interface,
  postprocessing,
  predictor,
  trained_model,
)

_LARGEST = postprocessing.Steps(fill_holes=True, largest_component=True)
_FILLED = postprocessing.Steps(fill_holes=True)
# Pixels that touch at a corner belong to one piece.
_NEIGHBOURS = np.ones((3, 3), bool)


@dataclasses.dataclass(frozen=True, eq=False)
class Masks:
  """What a model says about a picture, with all pieces.

  Attributes:
    mask: By the mean probability of all views, bool [H, W].
    views: By each view of each member of the model, bool [H, W] each.
    probability: The mean, float32 [H, W] in [0, 1].
  """

  mask: np.ndarray
  views: list[np.ndarray]
  probability: np.ndarray


def predict(model: model_interface.AnyModel, image: np.ndarray) -> Masks:
  """Predicts a picture, and its mirror images and quarter turns.

  Args:
    model: Trained models. Members whose input is not square see only the four
      views without a quarter turn.
    image: RGB, uint8, [H, W, 3].
  """
  threshold = model.config.evaluation.threshold
  size = (image.shape[0], image.shape[1])
  found = [
    preprocessing.resize_probability(probability, size)
    for member, resized in zip(
      model.members, predictor.resize(model, image), strict=True
    )
    for probability in _of_views(member, resized)
  ]
  mean = np.asarray(np.mean(found, axis=0, dtype=np.float32))
  return Masks(mean > threshold, [one > threshold for one in found], mean)


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


def _of_views(
  member: model_interface.Model, image: np.ndarray
) -> list[np.ndarray]:
  """Probability by each view, as the image lies; float32 [H, W] each."""
  assert isinstance(member, trained_model.TrainedModel)
  config = copy.deepcopy(member.config)
  config.evaluation.test_time_augmentation = 'off'
  plain = dataclasses.replace(member, config=config)
  square = image.shape[0] == image.shape[1]
  # Quarter turns, then whether to mirror.
  maps = list(itertools.product(range(0, 4, 1 if square else 2), (False, True)))
  images = [
    np.rot90(image[:, ::-1] if mirror else image, turns)
    for turns, mirror in maps
  ]
  batch_size = predictor.whole_batch(plain, len(images))
  found = predictor.probabilities(plain, images, batch_size)
  backs = [
    np.rot90(one, -turns) for one, (turns, _) in zip(found, maps, strict=False)
  ]
  return [
    np.ascontiguousarray(one[:, ::-1] if mirror else one)
    for one, (_, mirror) in zip(backs, maps, strict=True)
  ]
