"""Predicts pictures from Python: arrays, Pillow images and files."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, overload

import jax
import numpy as np
from PIL import Image

from skinseg_jax import config as config_lib
from skinseg_jax.data import preprocessing
from skinseg_jax.inference import forward_pass, model_interface
from skinseg_jax.measures import lesion
from skinseg_jax.measures import spread as spread_lib
from skinseg_jax.quality import expected_dice, review

# Pictures per forward pass; fewer where there are fewer pictures.
BATCH_SIZE = 32


class Answer(NamedTuple):
  """What a model says about a picture, at the size in the model's config.

  Attributes:
    probability: Of lesion, float32 [H, W] in [0, 1].
    features: Means of the network's deepest feature maps over all positions
      and views, float32 [C]; None of several models and of classical methods.
    views: Probability by each view of each member, as the picture lies,
      float32 [V, H, W]; empty if they were not kept.
  """

  probability: np.ndarray
  features: np.ndarray | None
  views: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
  """What the model says about one picture.

  Attributes:
    mask: Whether a pixel is lesion, bool [height, width], at the size of the
      picture.
    probability: Probability of lesion, float32 [height, width] in [0, 1].
    image: The picture, RGB, uint8 [height, width, 3].
  """

  mask: np.ndarray
  probability: np.ndarray
  image: np.ndarray
  # What the review and the ranges of measures need.
  _answer: Answer = dataclasses.field(repr=False)
  _threshold: float = dataclasses.field(repr=False)
  _calibration: expected_dice.Calibration | None = dataclasses.field(repr=False)

  @property
  def expected_dice(self) -> float | None:
    """The Dice to expect of the mask, in [0, 1].

    None if the model has no calibration: no `review.json`, or several models.
    """
    return self._review.expected_dice

  @property
  def needs_review(self) -> bool:
    """Whether a person should look at the mask."""
    return self._review.needed

  @property
  def reasons(self) -> tuple[str, ...]:
    """Why a person should look at the mask; empty for no reason.

    Without a calibration, pictures unlike the training images and low expected
    Dice are not noticed.
    """
    return self._review.reasons

  @functools.cached_property
  def _review(self) -> review.Review:
    height, width = self._answer.probability.shape
    return review.examine(
      preprocessing.resize_image(self.image, (height, width)),
      self._answer.probability,
      self.mask,
      self._threshold,
      self._calibration,
      features=self._answer.features,
    )

  def measures(
    self, pixel_spacing: tuple[float, float] | None = None
  ) -> lesion.Measures:
    """Measures the lesion and the skin around it, see `lesion.measure`.

    Args:
      pixel_spacing: Distance between rows and between columns in millimetres,
        or None if it is not known.
    """
    return lesion.measure(self.image, self.mask, pixel_spacing)

  def spread(
    self, pixel_spacing: tuple[float, float] | None = None
  ) -> dict[str, spread_lib.Spread]:
    """How much each measure differs between the views that the mask averages.

    Args:
      pixel_spacing: As for `measures`.

    Returns:
      By the name of the measure. Without a range if the model has one view.
    """
    masks = view_masks(self._answer.views, self.mask.shape, self._threshold)
    own = self.measures(pixel_spacing).orientation
    return spread_lib.spread(self.image, masks, pixel_spacing, orientation=own)


class Predictor:
  """A model that is ready to predict.

  Attributes:
    config: Config of its run.
    step: Number of updates that it was trained for; of several models the
      largest.
  """

  def __init__(
    self,
    model: model_interface.AnyModel,
    calibration: expected_dice.Calibration | None = None,
  ):
    """Computes nothing yet.

    Args:
      model: What predicts.
      calibration: What is known of the Dice of this model's masks, or None.
    """
    self._model = model
    self._calibration = calibration
    self.config: config_lib.Config = model.config
    self.step = model.step

  @overload
  def predict(  # type: ignore[overload-overlap]  # A string is iterable, too.
    self, pictures: preprocessing.Picture
  ) -> Prediction: ...

  @overload
  def predict(
    self, pictures: Iterable[preprocessing.Picture]
  ) -> list[Prediction]: ...

  def predict(
    self, pictures: preprocessing.Picture | Iterable[preprocessing.Picture]
  ) -> Prediction | list[Prediction]:
    """Predicts one picture, or several.

    Args:
      pictures: One picture, or an iterable of them. An array is uint8, RGB
        [height, width, 3] or grey [height, width]. Orientation by EXIF is
        applied to files and Pillow images.

    Returns:
      One prediction for one picture, and otherwise a list of them.

    Raises:
      InputError: If a picture is none of these, an array has another type or
        shape, or a file or a Pillow image cannot be read. Nothing is returned
        then.
    """
    if isinstance(
      pictures, (np.ndarray, Image.Image, str, bytes, os.PathLike)
    ) or not isinstance(pictures, Iterable):
      return next(self._predicted([pictures]))
    return list(self._predicted(pictures))

  def _predicted(
    self, pictures: Iterable[preprocessing.Picture]
  ) -> Iterator[Prediction]:
    most = batch_size(self._model, BATCH_SIZE)
    threshold = self.config.evaluation.threshold
    left = enumerate(pictures)
    while batch := list(itertools.islice(left, most)):
      arrays = [
        preprocessing.to_array(picture, f'picture {i}') for i, picture in batch
      ]
      resized = [resize(self._model, array) for array in arrays]
      size = batch_size(self._model, len(batch))
      found = answers(self._model, resized, size, views='own')
      for array, answer in zip(arrays, found, strict=True):
        yield at_own_size(array, answer, threshold, self._calibration)


def at_own_size(
  image: np.ndarray,
  answer: Answer,
  threshold: float,
  calibration: expected_dice.Calibration | None,
) -> Prediction:
  """What the model says about a picture, at the size of the picture.

  Args:
    image: The picture, RGB, uint8 [height, width, 3].
    answer: What the model says about it at its own size.
    threshold: Probability above which a pixel is lesion, in (0, 1).
    calibration: What is known of the Dice of this model's masks, or None.
  """
  own = preprocessing.resize_probability(answer.probability, image.shape[:2])
  return Prediction(own > threshold, own, image, answer, threshold, calibration)


def view_masks(
  views: np.ndarray, size: tuple[int, ...], threshold: float
) -> Iterator[np.ndarray]:
  """Yields the mask of each view, one by one.

  Args:
    views: Probability by each view, float32 [V, H, W]; or empty.
    size: Height and width of the picture.
    threshold: Probability above which a pixel is lesion, in (0, 1).

  Yields:
    bool [height, width].
  """
  height, width = size
  for view in views:
    yield preprocessing.resize_probability(view, (height, width)) > threshold


def batch_size(model: model_interface.AnyModel, count: int) -> int:
  """How many pictures a forward pass takes, if there are `count` in all.

  At most 32, or the next number that the model's devices divide. A power of
  two where there are fewer, so that few programs are compiled.
  """
  power = 2 ** (count - 1).bit_length()
  return whole_batch(model, min(BATCH_SIZE, power))


def whole_batch(model: model_interface.AnyModel, batch_size: int) -> int:
  """The batch size, or the next that the model's devices divide."""
  devices = model.sharding.mesh.size
  return -(-batch_size // devices) * devices


def resize(
  model: model_interface.AnyModel, image: np.ndarray
) -> list[np.ndarray]:
  """Resizes a picture for each member of a model.

  Args:
    model: What will predict.
    image: uint8 [height, width, 3].

  Returns:
    For each of `model.members`, uint8 [H, W, 3] of its input size.
  """
  sizes = [member.config.data.image_size for member in model.members]
  by_size = {size: preprocessing.resize_image(image, size) for size in {*sizes}}
  return [by_size[size] for size in sizes]


def answers(
  model: model_interface.AnyModel,
  images: Sequence[Sequence[np.ndarray]],
  batch_size: int,
  *,
  views: Literal['none', 'own', 'several'] = 'none',
) -> list[Answer]:
  """Predicts one batch with each member, and takes the mean.

  Probabilities of members with smaller inputs are resized before the mean is
  taken.

  Args:
    model: What predicts.
    images: N results of `resize`, at most `batch_size`. Black images fill the
      batch.
    batch_size: Images in the compiled programs.
    views: Which views to keep. 'own': those that each member averages.
      'several': as 'own'; a member that averages none is predicted once more,
      with as many views as it can. The mean is always over the views that the
      members average.

  Returns:
    One for each picture.
  """
  size = model.config.data.image_size
  total = np.zeros((len(images), *size), np.float32)
  resized = lambda one: preprocessing.resize_probability(one, size)
  features, kept = [], []
  for member, own in zip(model.members, zip(*images, strict=True), strict=True):
    batch = _batch(member, own, batch_size)
    found = member.each_view(batch, several=False)
    features.append(np.asarray(found.features).mean(axis=0))
    mean = forward_pass.mean_of_views(found.logits)
    for place, one in zip(total, _probabilities(mean), strict=False):
      place += resized(one)
    if views == 'several' and len(found.logits) == 1:
      found = member.each_view(batch, several=True)
    if views != 'none':
      kept.append(_probabilities(found.logits))
  total /= np.float32(len(model.members))
  return [
    Answer(
      probability,
      features[0][i] if len(features) == 1 and features[0].size else None,
      np.array([resized(one) for each in kept for one in each[:, i]]),
    )
    for i, probability in enumerate(total)
  ]


def each(
  model: model_interface.Model, images: Iterable[np.ndarray]
) -> Iterator[Answer]:
  """Predicts any number of images of the model's size, batch by batch.

  Args:
    model: What predicts.
    images: uint8 [H, W, 3] each.

  Yields:
    Without views, in order.
  """
  size = whole_batch(model, BATCH_SIZE)
  left = iter(images)
  while batch := list(itertools.islice(left, size)):
    yield from answers(model, [[image] for image in batch], size)


def _probabilities(logits: jax.Array) -> np.ndarray:
  return np.asarray(forward_pass.probabilities(logits))


def _batch(
  model: model_interface.Model, images: Sequence[np.ndarray], batch_size: int
) -> jax.Array:
  batch = np.zeros((batch_size, *model.config.data.image_size, 3), np.uint8)
  batch[: len(images)] = images
  return jax.device_put(batch, model.sharding)
