"""Explains the predictions of one network, picture by picture."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from skinseg_jax.data import preprocessing
from skinseg_jax.explanation import (
  attention,
  grad_cam,
  levels,
  occlusion,
  randomised,
)
from skinseg_jax.inference import forward_pass, predictor, trained_model
from skinseg_jax.quality import signs
from skinseg_jax.runtime import errors

GRAD_CAM, OCCLUSION, ATTENTION = 'Grad-CAM', 'occlusion', 'attention'


class Map(NamedTuple):
  """One map of the network, and the same of a network with random weights.

  Attributes:
    kind: `GRAD_CAM`, `OCCLUSION` or `ATTENTION`.
    name: Of the level or of the gate; '' for occlusion.
    values: float32 [h, w] of its own size. Of Grad-CAM, only what is above 0
      is shown; what is below 0 counts in the correlation.
    random: Likewise, with random weights.
    correlation: Rank correlation of the two; None if one is flat.
  """

  kind: str
  name: str
  values: np.ndarray
  random: np.ndarray
  correlation: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
  """What there is to see about one prediction.

  Attributes:
    image: The picture at the size of the network's input, uint8 [H, W, 3].
    size: Height and width of the picture itself.
    probability: Probability of lesion, float32 [H, W], as `predict` finds it.
    mask: Whether a pixel is lesion, bool [H, W].
    entropy: Of the probability, float32 [H, W], in bits.
    spread: Standard deviation of the probability over views of the picture,
      float32 [H, W], 0 to .5: those of the mask, or if it has only one, as many
      as the network's input allows.
    of_lesion: Whether the maps are about the pixels of the mask; otherwise they
      are about all pixels.
    maps: Grad-CAM by level, occlusion, attention by gate.
  """

  image: np.ndarray
  size: tuple[int, int]
  probability: np.ndarray
  mask: np.ndarray
  entropy: np.ndarray
  spread: np.ndarray
  of_lesion: bool
  maps: list[Map]


class Explainer:
  """A network that is ready to be explained.

  Attributes:
    levels: All levels of the network, in the order of computation.
    shown: Those with a Grad-CAM.
    gates: Names of the gates with an attention map.
    patch: Height and width of the patches of occlusion, in pixels of the input.
  """

  def __init__(
    self,
    model: trained_model.TrainedModel,
    names: Sequence[str] | None,
    *,
    patch: int,
    all_pixels: bool,
  ):
    """Finds levels and gates, and makes networks with random weights.

    Args:
      model: The network.
      names: Levels for Grad-CAM; None for the last one of each size.
      patch: Height and width of the patches of occlusion.
      all_pixels: Whether maps are about all pixels, not about the lesion.

    Raises:
      InputError: If the network has no such level.
    """
    self._model, self._all_pixels = model, all_pixels
    size = model.config.data.image_size
    self.levels = levels.find(model.graphdef, model.state, size)
    self.shown = _choose(self.levels, names)
    self.gates = attention.gates(model.graphdef, model.state)
    self.patch = patch
    self._random = itertools.cycle(randomised.states(model))

  def explain(self, image: np.ndarray) -> Explanation:
    """Explains the prediction of one picture.

    Args:
      image: uint8 [height, width, 3].
    """
    model = self._model
    small = preprocessing.resize_image(image, model.config.data.image_size)
    probability, spread = answer(model, small)
    mask = probability > model.config.evaluation.threshold
    of_lesion = bool(mask.any()) and not self._all_pixels
    pixels = mask if of_lesion else np.ones_like(mask)
    return Explanation(
      image=small,
      size=(image.shape[0], image.shape[1]),
      probability=probability,
      mask=mask,
      entropy=signs.entropy(probability),
      spread=spread,
      of_lesion=of_lesion,
      maps=[
        Map(*key, values, random, randomised.rank_correlation(values, random))
        for (key, values), random in zip(
          self._maps(model.state, small, pixels).items(),
          self._maps(next(self._random), small, pixels).values(),
          strict=True,
        )
      ],
    )

  def _maps(
    self, state: Any, image: np.ndarray, pixels: np.ndarray
  ) -> dict[tuple[str, str], np.ndarray]:
    """All maps by kind and name."""
    graphdef = self._model.graphdef
    names = tuple(level.name for level in self.shown)
    found = grad_cam.maps(graphdef, state, image, pixels, names=names)
    maps = {(GRAD_CAM, name): np.asarray(found[name]) for name in names}
    maps[OCCLUSION, ''] = occlusion.sensitivity(
      lambda images: self._logits(state, images), image, pixels, self.patch
    )
    if self.gates:
      found = attention.maps(graphdef, state, image, names=self.gates)
      maps |= {
        (ATTENTION, name): np.asarray(found[name]) for name in self.gates
      }
    return maps

  def _logits(self, state: Any, images: np.ndarray) -> np.ndarray:
    """Logits [N, H, W, 1] of each picture as it is, without other views."""
    batch = np.zeros((occlusion.BATCH_SIZE, *images.shape[1:]), np.uint8)
    batch[: len(images)] = images
    logits = forward_pass.forward(
      self._model.graphdef, state, jnp.asarray(batch), views='off'
    )
    return np.asarray(logits)[: len(images)]


def answer(
  model: trained_model.TrainedModel, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Predicts a picture of the model's size.

  Returns:
    `probability` and `spread`, as in `Explanation`.
  """
  (found,) = predictor.view_probabilities(
    model, [[image]], predictor.whole_batch(model, 1), several=True
  )
  return found.mean, np.std(found.each, axis=0)


def _choose(
  found: Sequence[levels.Level], names: Sequence[str] | None
) -> list[levels.Level]:
  if names is None:
    return levels.last_of_each_size(found)
  by_name = {level.name: level for level in found}
  if unknown := [name for name in names if name not in by_name]:
    known = [f'{x.name}  ({x.height} x {x.width})' for x in found]
    raise errors.InputError(
      f'--levels {" ".join(unknown)}: the network has no such level; give some'
      f' of these:\n{errors.listing(known, most=len(known))}'
    )
  return [by_name[name] for name in dict.fromkeys(names)]
