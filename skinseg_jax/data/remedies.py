"""How a user names the settings of a data set, for messages that propose one.

The same folder can be read for a config, where the user types
`--config.data.mask_threshold=127`, or for a command with flags of its own,
where it is `--mask_threshold 127`. Whoever opens a source passes the words.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Remedies:
  """What to type for each setting; a value follows it directly.

  Attributes:
    images: The folder of images.
    masks: The folder of masks.
    metadata: The table.
    mask_threshold: The grey value above which a mask pixel is lesion.
    mask_invert: Swaps lesion and skin; takes no value.
    mask_suffixes: Endings of the names of masks.
  """

  images: str
  masks: str
  metadata: str
  mask_threshold: str
  mask_invert: str
  mask_suffixes: str


CONFIG = Remedies(
  images='--config.data.images_dir=',
  masks='--config.data.masks_dir=',
  metadata='--config.data.metadata_csv=',
  mask_threshold='--config.data.mask_threshold=',
  mask_invert='--config.data.mask_invert=True',
  mask_suffixes='--config.data.mask_suffixes=',
)

FLAGS = Remedies(
  images='--images ',
  masks='--masks ',
  metadata='--metadata ',
  mask_threshold='--mask_threshold ',
  mask_invert='--mask_invert',
  mask_suffixes='--mask_suffixes ',
)


def name(remedy: str) -> str:
  """The flag or field alone, such as 'data.images_dir' or '--images'."""
  return remedy.removeprefix('--config.').rstrip('= ')
