"""How far the features of a picture are from those of known pictures.

Features are what the network's deepest layer sees, averaged over the picture.
Most of their variance lies in few directions, the principal components. The
distance counts each of these by its own variance, and what is outside of them
by the mean variance there: the Mahalanobis distance of probabilistic principal
component analysis (Tipping and Bishop, J. R. Stat. Soc. B 61, 611, 1999).
"""

import dataclasses

import numpy as np

# Components, at most; fewer where there are fewer than 20 pictures for each.
_COMPONENTS, _PICTURES = 16, 20
_FOLDS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
  """The features of known pictures.

  Attributes:
    mean: Their mean, [C].
    components: Directions of the largest variance, orthonormal, [K, C].
    variances: Variance along each of them, above 0, [K].
    rest: Mean variance along all other directions, above 0.
    far: Distance above which a picture is unlike these.
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


def learn(features: np.ndarray, extreme: float) -> Known:
  """Learns from known pictures.

  Args:
    features: Of N pictures, [N, C].
    extreme: Share of the known pictures that are far. Their distances come from
      five fits, each without the pictures whose distances it gives.
  """
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
  # Of a channel that never differs, a difference counts, but is not infinite.
  least = 1e-6 * variances.sum() + 1e-12
  most = max(1, len(features) // _PICTURES)
  count = min(_COMPONENTS, most, len(variances))
  others = features.shape[1] - count
  rest = variances[count:].sum() / others if others else 0.0
  return Known(
    mean=mean,
    components=directions[:count],
    variances=np.maximum(variances[:count], least),
    rest=max(float(rest), least / features.shape[1]),
    far=0.0,
  )
