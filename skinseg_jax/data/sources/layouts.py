"""Folders as data sets are published, so that they can be named as they are.

Known are ISIC 2016, 2017 and 2018 (task 1) and PH2. For each the folder that
holds everything may be named as the folder of images and as that of masks.
"""

import pathlib
import re
from typing import NamedTuple

from skinseg_jax.runtime import errors


class Pair(NamedTuple):
  """An image and its mask."""

  image: pathlib.Path
  mask: pathlib.Path


# Folder of images, and the folder of its masks beside it.
_ISIC = (
  (r'ISBI2016_ISIC_Part1_(\w+)_Data', r'ISBI2016_ISIC_Part1_\1_GroundTruth'),
  (r'ISIC-2017_(\w+)_Data', r'ISIC-2017_\1_Part1_GroundTruth'),
  (r'ISIC2018_Task1-2_(\w+)_Input', r'ISIC2018_Task1_\1_GroundTruth'),
)


def isic(directory: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path] | None:
  """The folders of images and masks of a challenge that lie in `directory`.

  Returns:
    Both folders, or None where there is none of these.

  Raises:
    InputError: If there are several, such as training and test.
  """
  found = []
  for path in sorted(directory.iterdir()):
    for images, masks in _ISIC:
      match = re.fullmatch(images, path.name)
      if match and (directory / match.expand(masks)).is_dir():
        found.append((path, directory / match.expand(masks)))
  if len(found) > 1:
    pairs = [f'{images} with {masks}' for images, masks in found]
    raise errors.InputError(
      f'{directory} holds several sets; name the folder of images and the'
      f' folder of masks of one of them:\n{errors.listing(pairs)}'
    )
  return found[0] if found else None


def ph2(directory: pathlib.Path, problems: list[str]) -> dict[str, Pair] | None:
  """Images and masks of PH2 by id, such as IMD002.

  `x/x_Dermoscopic_Image/x.bmp` has the mask `x/x_lesion/x_lesion.bmp`. The
  regions of interest and the tables are not read.

  Args:
    directory: 'PH2 Dataset images', or the folder that holds it.
    problems: Gets a line for each image or mask that is missing.

  Returns:
    None where it is not PH2.
  """
  if (directory / 'PH2 Dataset images').is_dir():
    directory = directory / 'PH2 Dataset images'
  pairs = {}
  for folder in sorted(directory.glob('*/*_Dermoscopic_Image')):
    name = folder.parent.name
    pair = Pair(
      folder / f'{name}.bmp', folder.parent / f'{name}_lesion/{name}_lesion.bmp'
    )
    missing = [f'{path}: missing' for path in pair if not path.is_file()]
    problems += missing
    pairs[name] = pair
  return pairs or None


def unwrapped(directory: pathlib.Path) -> pathlib.Path:
  """The folder inside, where an archive was extracted into its own name."""
  inside = directory / directory.name
  others = [p for p in directory.iterdir() if not p.name.startswith('.')]
  return inside if others == [inside] and inside.is_dir() else directory
