"""Cuts a large picture into overlapping tiles and blends their predictions.

Each tile overlaps the next by a quarter of its side or a little more. Where
tiles overlap, their probabilities are averaged with weights that fall linearly
to the border of each tile, so there are no seams, and the pixels at a border,
of which the network sees only one side, count least.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from skinseg_jax.data import preprocessing

# Tiles begin at multiples of this, as far as the picture's end allows: networks
# halve a picture up to five times, and round off in the same way only then.
_UNIT = 32


def starts(length: int, side: int) -> list[int]:
  """First pixels of the tiles along one axis.

  Args:
    length: Pixels of the picture.
    side: Pixels of a tile, at most `length`.

  Returns:
    Increasing from 0 to `length - side`.
  """
  step = side * 3 // 4
  if step >= _UNIT:
    step -= step % _UNIT
  number = -(-(length - side) // max(step, 1)) + 1
  return [min(i * step, length - side) for i in range(number)]


def weights(length: int, side: int) -> list[np.ndarray]:
  """Weight of each tile's pixels along one axis.

  Returns:
    For each of `starts`, float32 [side], above 0. At each pixel of the picture
    the weights of all tiles sum to 1.
  """
  positions = np.arange(side) + 0.5
  ramp = np.minimum(positions, side - positions)
  total = np.zeros(length)
  for start in starts(length, side):
    total[start : start + side] += ramp
  return [
    (ramp / total[start : start + side]).astype(np.float32)
    for start in starts(length, side)
  ]


class Blend:
  """The tiles of one picture, and the sum of their predictions.

  Attributes:
    probability: Weighted sum of the predictions that were added, float32
      [height, width]: complete when every tile was added once.
    missing: Number of tiles that were not added yet.
  """

  def __init__(self, size: tuple[int, int], tile: tuple[int, int]):
    """Places the tiles.

    Args:
      size: Height and width of the picture, in pixels.
      tile: Height and width of a tile in pixels of the picture. A tile never
        exceeds the picture.
    """
    sides = [min(*pair) for pair in zip(size, tile, strict=True)]
    axes = [
      list(zip(starts(n, side), weights(n, side), strict=True))
      for n, side in zip(size, sides, strict=True)
    ]
    self._tiles = list(itertools.product(*axes))
    self._sides = (sides[0], sides[1])
    self.probability = np.zeros(size, np.float32)
    self.missing = len(self._tiles)

  def cut(self, image: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the tiles: rows from the top, each from the left.

    Args:
      image: uint8 [height, width, 3].

    Yields:
      uint8 [h, w, 3], of the size of a tile.
    """
    for (top, _), (left, _) in self._tiles:
      tile = image[top : top + self._sides[0], left : left + self._sides[1]]
      yield np.ascontiguousarray(tile)

  def add(self, index: int, probability: np.ndarray) -> None:
    """Adds the prediction of a tile.

    Args:
      index: Position of the tile in the order of `cut`.
      probability: float32 [h, w], of any size.
    """
    (top, down), (left, across) = self._tiles[index]
    own = preprocessing.resize_probability(probability, self._sides)
    own = own * (down[:, None] * across[None])
    height, width = self._sides
    self.probability[top : top + height, left : left + width] += own
    self.missing -= 1
