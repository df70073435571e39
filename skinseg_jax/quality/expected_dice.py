"""Expected Dice of a prediction, learned from images with known masks.

A ridge regression turns the signs of the answer into a score. An isotonic
regression turns the score into a Dice, so that an expected Dice of .9 means
that such images had .9 on average. Both are deterministic. Fit them on images
that the model was not trained on: on its training images it is too good.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skinseg_jax.quality import features as features_lib
from skinseg_jax.quality import signs as signs_lib
from skinseg_jax.runtime import errors

NAME = 'review.json'
_VERSION = 3
# Smallest number of images to learn from.
LEAST = 50
# Ridge penalty, in images: signs have unit variance.
_PENALTY = 10.0
# The scores for the isotonic regression come from as many fits, each without
# the images that it scores.
_FOLDS = 5
# Dice values are clipped to this distance from 0 and 1 before the logit.
_MARGIN = 0.01
# Share of the images, those with the lowest scores, that need a review.
_LOW = 0.2
# Share of the images that are the most unlike the others, the darkest, and the
# most blurred; these need a review.
_EXTREME = 0.005
# Share of independent variance that is added to the signs' covariance.
_SHRINKAGE = 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class Scale:
  """What is usual for each sign, in the order of `signs.NAMES`, [signs] each.

  Attributes:
    mean: Its mean.
    sd: Its standard deviation; 1 where it never differs.
    lowest: Its smallest value.
    highest: Its largest value.
  """

  mean: np.ndarray
  sd: np.ndarray
  lowest: np.ndarray
  highest: np.ndarray

  def answers(self, table: np.ndarray) -> np.ndarray:
    """Standardised signs of the answers, [N, signs] to [N, ANSWER].

    Values beyond the known ones are clipped: nothing is extrapolated.
    """
    clipped = np.clip(table, self.lowest[None], self.highest[None])
    return self._scaled(clipped)[:, len(signs_lib.PICTURE) :]

  def pictures(self, table: np.ndarray) -> np.ndarray:
    """Standardised signs of the pictures, [N, signs] to [N, PICTURE]."""
    return self._scaled(table)[:, : len(signs_lib.PICTURE)]

  def _scaled(self, table: np.ndarray) -> np.ndarray:
    return (table - self.mean[None]) / self.sd[None]


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
  """What was learned from images with known masks.

  Attributes:
    model: What it belongs to: `TrainedModel.identity`.
    images: Number of images.
    scale: What is usual for each sign.
    weights: Ridge weights of `Scale.answers`, [ANSWER].
    intercept: Score of an image with the mean signs.
    scores: Scores at which the Dice is known, increasing, [blocks].
    dice: Expected Dice at these scores, never decreasing, in [0, 1], [blocks].
    low: Score below which an image needs a review. Not a Dice: the regression
      can give one Dice to more images than need a review.
    precision: Inverse of the shrunk covariance of `Scale.pictures`, square.
    far: Distance of `Scale.pictures` above which a picture is unlike these
      images.
    features: Those of these images; None if there were too few images.
    dark: Mean grey value below which a picture is too dark.
    blurred: `detail` below which a picture is blurred.
  """

  model: Mapping[str, Any]
  images: int
  scale: Scale
  weights: np.ndarray
  intercept: float
  scores: np.ndarray
  dice: np.ndarray
  low: float
  precision: np.ndarray
  far: float
  features: features_lib.Known | None
  dark: float
  blurred: float

  def expected(self, signs: Mapping[str, float]) -> float:
    """Expected Dice of an image with these signs, in [0, 1]."""
    return float(np.interp(self._score(signs), self.scores, self.dice))

  def is_low(self, signs: Mapping[str, float]) -> bool:
    """Whether the expected Dice is in the lowest fifth of these images."""
    return self._score(signs) < self.low

  def _score(self, signs: Mapping[str, float]) -> float:
    answers = self.scale.answers(_table([signs]))[0]
    return float(answers @ self.weights + self.intercept)

  def is_unlike(
    self, signs: Mapping[str, float], features: np.ndarray | None
  ) -> bool:
    """Whether a picture is far from these images, by signs or by features.

    Args:
      signs: `signs.describe` of the picture.
      features: Of the network for the picture, [C], or None.
    """
    if self.distance(signs) > self.far:
      return True
    if features is None or self.features is None:
      return False
    return bool(self.features.distances(features[None])[0] > self.features.far)

  def distance(self, signs: Mapping[str, float]) -> float:
    """Mahalanobis distance by the picture's signs, at least 0."""
    pictures = self.scale.pictures(_table([signs]))
    return float(_distances(pictures, self.precision)[0])

  def as_dict(self) -> dict[str, Any]:
    """Content of `review.json`."""
    lists = lambda value: (
      value.tolist() if isinstance(value, np.ndarray) else value
    )
    content = {name: lists(value) for name, value in vars(self).items()}
    for name in ('scale', 'features'):
      parts = content[name] and vars(content[name])
      content[name] = parts and {k: lists(value) for k, value in parts.items()}
    return {'version': _VERSION, 'signs': list(signs_lib.NAMES), **content}

  def fingerprint(self) -> str:
    """SHA-256; equal where reviews are."""
    return hashlib.sha256(json.dumps(self.as_dict()).encode()).hexdigest()


def grey(signs: Mapping[str, float]) -> float:
  """Mean grey value of a picture, 0 to 255."""
  return 0.299 * signs['red'] + 0.587 * signs['green'] + 0.114 * signs['blue']


def fit(
  signs: Sequence[Mapping[str, float]],
  dice: Sequence[float],
  features: np.ndarray,
  model: Mapping[str, Any],
) -> Calibration:
  """Learns from images that the model was not trained on.

  Args:
    signs: `signs.describe` of N images.
    dice: Their true Dice, in [0, 1].
    features: Their features, [N, C].
    model: `TrainedModel.identity` of the model that the calibration is for.

  Raises:
    InputError: If there are fewer than 50 images.
  """
  if len(signs) < LEAST:
    raise errors.InputError(
      f'{len(signs)} images are too few to learn from; name runs with'
      f' {LEAST} or more validation images in all.'
    )
  table, known = _table(signs), np.array(dice, np.float64)
  sd = table.std(axis=0)
  scale = Scale(
    mean=table.mean(axis=0),
    sd=np.where(sd > 1e-6, sd, 1.0),
    lowest=table.min(axis=0),
    highest=table.max(axis=0),
  )
  answers = scale.answers(table)
  target = np.clip(known, _MARGIN, 1 - _MARGIN)
  target = np.log(target / (1 - target))
  weights, intercept = _ridge(answers, target)
  scores, expected = _isotonic(_held_out(answers, target), known)
  own = answers @ weights + intercept
  pictures = scale.pictures(table)
  precision = _precision(pictures)
  return Calibration(
    model=model,
    images=len(table),
    scale=scale,
    weights=weights,
    intercept=intercept,
    scores=scores,
    dice=expected,
    low=float(np.quantile(own, _LOW)),
    precision=precision,
    far=float(np.quantile(_distances(pictures, precision), 1 - _EXTREME)),
    features=features_lib.learn(features, _EXTREME),
    dark=float(np.quantile([grey(row) for row in signs], _EXTREME)),
    blurred=float(np.quantile([row['detail'] for row in signs], _EXTREME)),
  )


def _table(signs: Sequence[Mapping[str, float]]) -> np.ndarray:
  return np.array([[row[name] for name in signs_lib.NAMES] for row in signs])


def _ridge(answers: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
  """Weights and intercept; the intercept is not shrunk."""
  centre, level = answers.mean(axis=0), target.mean()
  x = answers - centre[None]
  matrix = x.T @ x + _PENALTY * np.eye(x.shape[1])
  weights = np.linalg.solve(matrix, x.T @ (target - level))
  return weights, float(level - centre @ weights)


def _held_out(answers: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Score of each image by a fit without it."""
  scores = np.empty(len(target))
  for fold in range(_FOLDS):
    out = np.arange(len(target)) % _FOLDS == fold
    weights, intercept = _ridge(answers[~out], target[~out])
    scores[out] = answers[out] @ weights + intercept
  return scores


def _isotonic(
  scores: np.ndarray, dice: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Mean score and mean Dice of each block that the regression pools.

  Between blocks the Dice is interpolated, so images keep their order.
  """
  from scipy import optimize  # Its import takes long; reading needs none.

  order = np.argsort(scores, kind='stable')
  blocks = optimize.isotonic_regression(dice[order]).blocks
  sizes = np.diff(blocks)
  average = lambda values: np.add.reduceat(values, blocks[:-1]) / sizes
  return average(scores[order]), np.clip(average(dice[order]), 0, 1)


def _precision(pictures: np.ndarray) -> np.ndarray:
  covariance = pictures.T @ pictures / len(pictures)
  own = np.eye(len(covariance))
  return np.linalg.inv((1 - _SHRINKAGE) * covariance + _SHRINKAGE * own)


def _distances(pictures: np.ndarray, precision: np.ndarray) -> np.ndarray:
  return np.sqrt(np.einsum('ni,ij,nj->n', pictures, precision, pictures))


class OtherVersionError(ValueError):
  """A `review.json` is of another version: the one found, and ours."""

  def __init__(self, found: int, ours: int):
    super().__init__(f'of version {found}, and this program has {ours}')


def write(folder: pathlib.Path, calibration: Calibration) -> None:
  """Writes `review.json` into a folder, whole or not at all.

  Raises:
    InputError: If the folder cannot be written to.
  """
  path = folder / NAME
  temporary = path.with_suffix('.tmp')
  try:
    lines = [
      f' {json.dumps(name)}: {json.dumps(value)}'
      for name, value in calibration.as_dict().items()
    ]
    text = '{\n' + ',\n'.join(lines) + '\n}\n'
    temporary.write_text(text, encoding='utf-8')
    temporary.replace(path)
  except OSError as error:
    raise errors.InputError(
      f'cannot write {path}: {error.strerror}; make the folder writable, or'
      ' free some space.'
    ) from error


def read(folder: pathlib.Path) -> Calibration | None:
  """Reads the `review.json` of a run or of a model; None if there is none.

  Raises:
    OtherVersionError: If another version of the package wrote the file.
    ValueError: If the file is damaged.
  """
  path = folder / NAME
  if not path.exists():
    return None
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    version = int(content['version'])
    if version != _VERSION:
      raise OtherVersionError(version, _VERSION)
    return _parsed(content)
  except OtherVersionError:
    raise
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ValueError(f'{path} is damaged ({error!r})') from error


def _parsed(content: Any) -> Calibration:
  if content['signs'] != list(signs_lib.NAMES):
    raise ValueError('other signs')
  signs, pictures = len(signs_lib.NAMES), len(signs_lib.PICTURE)
  blocks = len(content['scores'])
  numbers = lambda name, *shape: _numbers(content, name, shape)
  single = lambda name: float(numbers(name))
  names = [field.name for field in dataclasses.fields(Scale)]
  return Calibration(
    model=dict(content['model']),
    images=int(content['images']),
    scale=Scale(
      **{name: _numbers(content['scale'], name, (signs,)) for name in names}
    ),
    weights=numbers('weights', len(signs_lib.ANSWER)),
    intercept=single('intercept'),
    scores=numbers('scores', blocks),
    dice=numbers('dice', blocks),
    low=single('low'),
    precision=numbers('precision', pictures, pictures),
    far=single('far'),
    features=_known(content['features']),
    dark=single('dark'),
    blurred=single('blurred'),
  )


def _known(content: Any) -> features_lib.Known | None:
  if content is None:
    return None
  components, channels = np.shape(content['components'])
  shapes = {
    'mean': (channels,),
    'components': (components, channels),
    'variances': (components,),
  }
  arrays = {name: _numbers(content, name, shapes[name]) for name in shapes}
  rest = float(_numbers(content, 'rest', ()))
  if not (min(arrays['variances'].min(), rest) > 0):
    raise ValueError('a variance is not above 0')
  far = float(_numbers(content, 'far', ()))
  return features_lib.Known(**arrays, rest=rest, far=far)


def _numbers(
  content: Mapping[str, Any], name: str, shape: tuple[int, ...]
) -> np.ndarray:
  values = np.array(content[name], np.float64)
  if values.shape != shape or not np.isfinite(values).all():
    raise ValueError(f'{name} is not {list(shape)} numbers')
  return values
