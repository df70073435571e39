"""Finds how one picture of a lesion lies on another, from the skin around it.

The lesion itself may have grown, so it takes no part. OpenCV finds points that
both pictures show (SIFT) and the similarity transform that most of them agree
on (RANSAC): a turn, a shift and one scale.
"""

import dataclasses
import importlib.util
import math
from typing import NamedTuple

import numpy as np

from skinseg_jax.measures import skin
from skinseg_jax.runtime import errors

# Width of the rim around the lesion, and around dark corners, that takes no
# part: shares of the shorter side.
_MARGIN = 0.02
# Largest value of red, green and blue in dark corners. They stay where they are
# when the camera moves.
_DARK = 40
# Points of a picture, and the contrast that makes one.
_MOST_POINTS, _CONTRAST = 2000, 0.02
# A point's nearest counterpart is this much nearer than the second one.
_NEARER = 0.8
# Largest distance of points that agree, as a share of the reference's longer
# side: 3 pixels of 600.
_TOLERANCE = 0.005
# What is needed: points that agree, the range of the scale, and the largest
# standard error of the scale.
_LEAST_POINTS = 8
_SCALES = (0.25, 4.0)
_SCALE_ERROR = 0.01


class RefusedError(ValueError):
  """Two pictures cannot be registered; the message says why."""


class Points(NamedTuple):
  """Points of the skin in one picture.

  Attributes:
    places: Column and row, float32 [K, 2].
    descriptors: What they look like, float32 [K, 128].
    side: The picture's longer side.
  """

  places: np.ndarray
  descriptors: np.ndarray
  side: int


@dataclasses.dataclass(frozen=True, eq=False)
class Similarity:
  """Places of the reference for those of another picture.

  Attributes:
    matrix: Float [2, 3]; (column, row, 1) of the other picture to (column, row)
      of the reference.
    points: Points that agree.
  """

  matrix: np.ndarray
  points: int

  @property
  def scale(self) -> float:
    """Pixels of the reference for one of the other picture."""
    return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

  @property
  def degrees(self) -> float:
    """Turn of the other picture onto the reference, clockwise as seen."""
    return math.degrees(math.atan2(self.matrix[1, 0], self.matrix[0, 0]))


def check_installed() -> None:
  """Checks that OpenCV is installed.

  Raises:
    InputError: Saying what to type.
  """
  if not importlib.util.find_spec('cv2'):
    raise errors.InputError(
      'following lesions needs OpenCV, which is not installed; type\n'
      '  pip install "skinseg_jax[classical]"'
    )


def find_points(image: np.ndarray, lesion: np.ndarray) -> Points:
  """Finds points of the skin: not of the lesion and of dark corners.

  Args:
    image: RGB, uint8, [H, W, 3].
    lesion: bool, [H, W].
  """
  import cv2  # An optional package.

  reach = max(1, round(_MARGIN * min(lesion.shape)))
  dark = image.max(axis=2) < _DARK
  free = ~(skin.grown(lesion, reach) | skin.grown(dark, reach))
  grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  # Skin has little contrast, and lamps differ.
  grey = cv2.createCLAHE(clipLimit=3, tileGridSize=(8, 8)).apply(grey)
  sift = cv2.SIFT_create(  # type: ignore[attr-defined]
    _MOST_POINTS, contrastThreshold=_CONTRAST
  )
  points, descriptors = sift.detectAndCompute(grey, free.view(np.uint8))
  if descriptors is None:
    descriptors = np.zeros((0, 128), np.float32)
  places = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
  return Points(places, descriptors, max(lesion.shape))


def register(reference: Points, other: Points) -> Similarity:
  """Estimates the similarity transform from another picture to the reference.

  Raises:
    RefusedError: If fewer than eight points agree, or the scale is outside 0.25
      to 4 or has a standard error above 1 %.
  """
  import cv2  # An optional package.

  source, target = _matches(reference, other)
  matrix = None
  if len(source) > 1:
    matrix, agree = cv2.estimateAffinePartial2D(
      source,
      target,
      method=cv2.RANSAC,
      ransacReprojThreshold=_TOLERANCE * reference.side,
      maxIters=5000,
      confidence=0.999,
    )
  count = 0 if matrix is None else int(agree.sum())
  if matrix is None or count < _LEAST_POINTS:
    raise RefusedError(
      f'{count} points of the skin agree, and {_LEAST_POINTS} are needed'
    )
  found = Similarity(matrix, count)
  low, high = _SCALES
  if not low <= found.scale <= high:
    raise RefusedError(
      f'the scale is {found.scale:.2f}, and {low:g} to {high:g} is allowed'
    )
  inside = agree.ravel() > 0
  error = _scale_error(found, source[inside], target[inside])
  if error > _SCALE_ERROR:
    raise RefusedError(
      f'the scale is uncertain by {error:.1%}, and at most'
      f' {_SCALE_ERROR:.0%} is allowed'
    )
  return found


def aligned(
  picture: np.ndarray, similarity: Similarity, size: tuple[int, int]
) -> np.ndarray:
  """A picture as it lies on the reference; black where it shows nothing.

  Args:
    picture: uint8 [H, W, 3], or a mask, bool [H, W].
    similarity: From this picture to the reference.
    size: Height and width of the reference.

  Returns:
    The same type, [height, width] or [height, width, 3].
  """
  import cv2  # An optional package.

  is_mask = picture.dtype == bool
  warped = cv2.warpAffine(
    picture.view(np.uint8),
    similarity.matrix,
    size[::-1],
    flags=cv2.INTER_NEAREST if is_mask else cv2.INTER_LINEAR,
  )
  return warped.view(bool) if is_mask else warped


def brought_back(
  mask: np.ndarray, similarity: Similarity, size: tuple[int, int]
) -> np.ndarray:
  """A mask of the reference as it lies on another picture.

  Args:
    mask: bool [H, W].
    similarity: From the other picture to the reference.
    size: Height and width of the other picture.

  Returns:
    bool [height, width].
  """
  import cv2  # An optional package.

  return cv2.warpAffine(
    mask.view(np.uint8),
    similarity.matrix,
    size[::-1],
    flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
  ).view(bool)


def _matches(reference: Points, other: Points) -> tuple[np.ndarray, np.ndarray]:
  """Places of points that are each other's nearest: float32 [M, 2] each."""
  import cv2  # An optional package.

  if min(len(reference.places), len(other.places)) < 2:
    return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
  matcher = cv2.BFMatcher()
  back = {
    match.queryIdx: match.trainIdx
    for match in matcher.match(reference.descriptors, other.descriptors)
  }
  kept = [
    best
    for best, second in matcher.knnMatch(
      other.descriptors, reference.descriptors, k=2
    )
    if best.distance < _NEARER * second.distance
    and back[best.trainIdx] == best.queryIdx
  ]
  return (
    other.places[[match.queryIdx for match in kept]],
    reference.places[[match.trainIdx for match in kept]],
  )


def _scale_error(
  found: Similarity, source: np.ndarray, target: np.ndarray
) -> float:
  """Relative standard error of the scale, by least squares."""
  rest = target - source @ found.matrix[:, :2].T - found.matrix[:, 2]
  away = target - target.mean(axis=0)
  # Two coordinates of each point, less the four parameters.
  variance = float((rest**2).sum()) / (2 * len(target) - 4)
  return math.sqrt(variance / max(float((away**2).sum()), 1e-9))
