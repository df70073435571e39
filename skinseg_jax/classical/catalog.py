"""The classical methods by name."""

import difflib
import functools
import importlib.util
from collections.abc import Callable

import numpy as np

from skinseg_jax.classical import parameters
from skinseg_jax.runtime import errors

_PACKAGES = ('cv2', 'skimage')


def find(name: str) -> parameters.Settings:
  """Finds the parameters of a method.

  Raises:
    InputError: If there is no method of this name, or the packages that all
      methods need are not installed.
  """
  known = parameters.METHODS
  if name not in known:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    raise errors.InputError(
      f'--method {name!r} does not exist (nearest: {nearest}); allowed:'
      f' {", ".join(known)}.'
    )
  if not all(map(importlib.util.find_spec, _PACKAGES)):
    raise errors.InputError(
      f'--method {name} needs OpenCV and scikit-image, which are not installed.'
      ' Type: pip install "skinseg_jax[classical]"'
    )
  return known[name]


def segmenter(
  settings: parameters.Settings,
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns the function that finds a lesion with these parameters.

  It turns an image, RGB, uint8 [H, W, 3], into a mask, bool [H, W]. The same
  image always gives the same mask.
  """
  # Imported here, because the packages that they need are optional.
  from skinseg_jax.classical import bee_colony, edges, grabcut, otsu

  segment: dict[type, Callable] = {
    parameters.Otsu: otsu.segment,
    parameters.Edges: edges.segment,
    parameters.GrabCut: grabcut.segment,
    parameters.BeeColony: bee_colony.segment,
  }
  return functools.partial(segment[type(settings)], settings=settings)
