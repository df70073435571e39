"""Cleans a predicted mask: holes, small pieces, all pieces but one.

Pixels that touch at a side or at a corner belong to one piece. A hole is skin
that no path over the sides of pixels connects with the border of the picture.
"""

import dataclasses
import math

import numpy as np

# Pixels that touch at a corner are neighbours.
_NEIGHBOURS = np.ones((3, 3), bool)


@dataclasses.dataclass(frozen=True)
class Steps:
  """What is done to a mask, in this order; nothing by default.

  Attributes:
    fill_holes: Skin that is enclosed by lesion becomes lesion.
    min_area: Pieces that cover less than this share of the picture become skin;
      0 to below 1.
    largest_component: All pieces but the largest become skin. Of two of the
      same size, the one that begins further up remains.
  """

  fill_holes: bool = False
  min_area: float = 0.0
  largest_component: bool = False


def clean(mask: np.ndarray, steps: Steps) -> np.ndarray:
  """Applies the steps to one mask.

  Args:
    mask: Whether a pixel is lesion, bool [height, width].
    steps: What to do.

  Returns:
    A mask of the same shape; an empty one may be the result of `min_area`.

  Raises:
    ValueError: If the mask is not bool [height, width].
  """
  if mask.dtype != bool or mask.ndim != 2:
    raise ValueError(
      f'mask is {mask.dtype} {list(mask.shape)}; give bool [height, width],'
      ' such as probability > 0.5.'
    )
  from scipy import ndimage  # Most predictions need no cleaning.

  if steps.fill_holes:
    mask = ndimage.binary_fill_holes(mask)
  if not (steps.min_area or steps.largest_component):
    return mask
  labels, _ = ndimage.label(mask, structure=_NEIGHBOURS)
  areas = np.bincount(labels.ravel())
  areas[0] = 0  # Skin.
  # The rounding of a share of pixels must not remove a piece of that share.
  kept = areas >= max(1, math.ceil(steps.min_area * mask.size - 1e-6))
  if steps.largest_component:
    kept &= np.arange(len(areas)) == areas.argmax()
  return kept[labels]
