"""How far the features of a picture are from those of known pictures.

The features of a picture are the means of the network's deepest feature maps.
Most of their variance lies in few directions, the principal components. Each
of these counts by its own variance; the rest counts by its mean variance. This
is the Mahalanobis distance of probabilistic principal component analysis
(Tipping and Bishop, J. R. Stat. Soc. B 61, 611, 1999).
"""

import dataclasses
import math

import numpy as np

_COMPONENTS = 16
# With fewer pictures the limit is a matter of chance.
LEAST = 20 * _COMPONENTS
_FOLDS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
  """The features of known pictures.

  Attributes:
    mean: Their mean, [C].
    components: Directions of the largest variance, orthonormal, [K, C].
    variances: Variance along each of them, above 0, [K].
    rest: Mean variance along all other directions, above 0.
    far: Distance above which a picture is unlike the known ones.
  """

  mean: np.ndarray
  components: np.ndarray
  variances: np.ndarray
  rest: float
  far: float

  def distances(self, features: np.ndarray) -> np.ndarray:
    """Distance of each of N pictures, at least 0: [N, C] to [N]."""
    away = features - self.mean[None]
    along = away @ self.components.T
    outside = away - along @ self.components
    squares = (along**2 / self.variances[None]).sum(axis=1)
    return np.sqrt(squares + (outside**2).sum(axis=1) / self.rest)


def learn(features: np.ndarray, extreme: float) -> Known | None:
  """Learns from known pictures.

  Args:
    features: Of N pictures, [N, C].
    extreme: Share of pictures that may be far although they are no different.
      The limit comes from five fits, each without the pictures whose distances
      it gives.

  Returns:
    None if there are fewer than `LEAST` pictures.
  """
  if len(features) < LEAST:
    return None
  features = features.astype(np.float64)
  folds = np.arange(len(features)) % _FOLDS
  distances = [
    _fit(features[folds != fold]).distances(features[folds == fold])
    for fold in range(_FOLDS)
  ]
  far = float(np.quantile(np.concatenate(distances), 1 - extreme))
  return dataclasses.replace(_fit(features), far=far)


def _fit(features: np.ndarray) -> Known:
  mean = features.mean(axis=0)
  _, lengths, directions = np.linalg.svd(
    features - mean[None], full_matrices=False
  )
  variances = lengths**2 / len(features)
  # A channel that never varies gets a small variance, so that a change in it
  # counts but is not infinite.
  least = 1e-6 * variances.sum() / len(mean) + 1e-12
  count = min(_COMPONENTS, len(variances))
  others = len(mean) - count
  rest = variances[count:].sum() / others if others else 0.0
  return Known(
    mean=mean,
    components=directions[:count],
    variances=np.maximum(variances[:count], least),
    rest=max(float(rest), least),
    far=math.inf,
  )
