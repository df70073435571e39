"""Predicts pictures from Python: arrays, Pillow images and files."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

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
  # What the review needs: probability at the model's size, and more.
  _reduced: np.ndarray = dataclasses.field(repr=False)
  _threshold: float = dataclasses.field(repr=False)
  _calibration: expected_dice.Calibration | None = dataclasses.field(repr=False)
  # Of each view, float32 [V, H, W] at the model's size, if it was kept.
  _each: np.ndarray | None = dataclasses.field(repr=False)

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
    height, width = self._reduced.shape
    return review.examine(
      preprocessing.resize_image(self.image, (height, width)),
      self._reduced,
      self.mask,
      self._threshold,
      self._calibration,
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
    masks = view_masks(self._each, self.mask.shape, self._threshold)
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
      found = view_probabilities(self._model, resized, size)
      for array, views in zip(arrays, found, strict=True):
        yield at_own_size(
          array, views.mean, threshold, self._calibration, views.each
        )


def at_own_size(
  image: np.ndarray,
  probability: np.ndarray,
  threshold: float,
  calibration: expected_dice.Calibration | None = None,
  each: np.ndarray | None = None,
) -> Prediction:
  """What the model says about a picture, at the size of the picture.

  Args:
    image: The picture, RGB, uint8 [height, width, 3].
    probability: Probability of lesion, float32 [H, W], at the model's size.
    threshold: Probability above which a pixel is lesion, in (0, 1).
    calibration: What is known of the Dice of this model's masks, or None.
    each: As in `Views`, if it was kept.
  """
  own = preprocessing.resize_probability(probability, image.shape[:2])
  return Prediction(
    own > threshold, own, image, probability, threshold, calibration, each
  )


def view_masks(
  each: np.ndarray | None, size: tuple[int, ...], threshold: float
) -> Iterator[np.ndarray]:
  """Yields the mask of each view, one by one.

  Args:
    each: Probability by each view, float32 [V, H, W]; None for no view.
    size: Height and width of the picture.
    threshold: Probability above which a pixel is lesion, in (0, 1).

  Yields:
    bool [height, width].
  """
  height, width = size
  for view in () if each is None else each:
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


def mean_probabilities(
  model: model_interface.AnyModel,
  images: Sequence[Sequence[np.ndarray]],
  batch_size: int,
) -> np.ndarray:
  """Predicts one batch with each member, and takes the mean.

  Args:
    model: What predicts.
    images: N results of `resize`, at most `batch_size`.
    batch_size: Images in the compiled programs.

  Returns:
    Probability of lesion, float32 [N, H, W] of the size in the model's config.
    Probabilities of members with smaller inputs are resized to it before.
  """
  return _mean(
    model,
    len(images),
    (
      probabilities(member, own, batch_size)
      for member, own in _by_member(model, images)
    ),
  )


class Views(NamedTuple):
  """What a model says about a picture, at the size in the model's config.

  Attributes:
    mean: As `mean_probabilities` gives it, float32 [H, W].
    each: By each view of each member, as the picture lies, float32 [V, H, W].
  """

  mean: np.ndarray
  each: np.ndarray


def view_probabilities(
  model: model_interface.AnyModel,
  images: Sequence[Sequence[np.ndarray]],
  batch_size: int,
  *,
  several: bool = False,
) -> list[Views]:
  """Predicts one batch with each member, and keeps what each view says.

  A member has the views that it averages, or one. The mean is over these.

  Args:
    model: What predicts.
    images: N results of `resize`, at most `batch_size`.
    batch_size: Images in the compiled programs.
    several: Whether `each` has as many views as possible of members that
      average none.

  Returns:
    One for each picture.
  """
  size = model.config.data.image_size
  means, each = [], []
  for member, own in _by_member(model, images):
    batch = _batch(member, own, batch_size)
    logits = member.view_logits(batch, several=False)
    means.append(
      np.asarray(forward_pass.probabilities(forward_pass.mean_of_views(logits)))
    )
    if several and len(logits) == 1:
      logits = member.view_logits(batch, several=True)
    each.append(np.asarray(forward_pass.probabilities(logits)))
  return [
    Views(
      mean,
      np.stack(
        [
          preprocessing.resize_probability(view, size)
          for views in each
          for view in views[:, i]
        ]
      ),
    )
    for i, mean in enumerate(_mean(model, len(images), means))
  ]


def _by_member(
  model: model_interface.AnyModel, images: Sequence[Sequence[np.ndarray]]
) -> Iterator[tuple[model_interface.Model, Sequence[np.ndarray]]]:
  """Each member with its own images of the batch."""
  return zip(model.members, zip(*images, strict=True), strict=True)


def _mean(
  model: model_interface.AnyModel, count: int, found: Iterable[np.ndarray]
) -> np.ndarray:
  """Mean over the members' probabilities of `count` pictures."""
  size = model.config.data.image_size
  total = np.zeros((count, *size), np.float32)
  for one in found:
    for place, probability in zip(total, one, strict=False):
      place += preprocessing.resize_probability(probability, size)
  return total / np.float32(len(model.members))


def probabilities(
  model: model_interface.Model,
  images: Sequence[np.ndarray],
  batch_size: int,
) -> np.ndarray:
  """Predicts one batch, filled up with black images to its size.

  Args:
    model: What predicts.
    images: At most `batch_size` images, uint8 [H, W, 3], of the model's size.
    batch_size: Images in the compiled program.

  Returns:
    Probability of lesion, float32 [batch_size, H, W].
  """
  logits = model.logits(_batch(model, images, batch_size))
  return np.asarray(forward_pass.probabilities(logits))


def _batch(
  model: model_interface.Model, images: Sequence[np.ndarray], batch_size: int
) -> jax.Array:
  batch = np.zeros((batch_size, *model.config.data.image_size, 3), np.uint8)
  batch[: len(images)] = images
  return jax.device_put(batch, model.sharding)
