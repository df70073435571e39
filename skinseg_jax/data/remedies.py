"""How a user names the settings of a data set, for messages that propose one.

The same folder can be read for a config, where the user types
`--config.data.mask_threshold=127`, or for a command with flags of its own,
where it is `--mask_threshold 127`, or for a run, whose config.json the user
edits. Whoever opens a source passes the words.
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
    raw_dir: The folder of the raw files of HAM10000.
    data_dir: Where prepared data sets are kept.
    no_data: What to do if no data set is prepared there, as a sentence.
  """

  images: str
  masks: str
  metadata: str
  mask_threshold: str
  mask_invert: str
  mask_suffixes: str
  raw_dir: str
  data_dir: str
  no_data: str = (
    'start from the folder that the run was trained in, or set data.data_dir in'
    ' its config.json'
  )


CONFIG = Remedies(
  images='--config.data.images_dir=',
  masks='--config.data.masks_dir=',
  metadata='--config.data.metadata_csv=',
  mask_threshold='--config.data.mask_threshold=',
  mask_invert='--config.data.mask_invert=True',
  mask_suffixes='--config.data.mask_suffixes=',
  raw_dir='--config.data.raw_dir=',
  data_dir='--config.data.data_dir=',
)

FLAGS = Remedies(
  images='--images ',
  masks='--masks ',
  metadata='--metadata ',
  mask_threshold='--mask_threshold ',
  mask_invert='--mask_invert',
  mask_suffixes='--mask_suffixes ',
  raw_dir='--raw_dir ',
  data_dir='--data_dir ',
  no_data='prepare it with scripts/prepare_ham10000.py, or give the folder'
  ' where it is as --data_dir',
)


def _of_run(field: str) -> str:
  return f"data.{field} in the run's config.json set to "


RUN = Remedies(
  images=_of_run('images_dir'),
  masks=_of_run('masks_dir'),
  metadata=_of_run('metadata_csv'),
  mask_threshold=_of_run('mask_threshold'),
  mask_invert=_of_run('mask_invert') + 'true',
  mask_suffixes=_of_run('mask_suffixes'),
  raw_dir=_of_run('raw_dir'),
  data_dir=_of_run('data_dir'),
)

# Where prepared data may be kept instead, by what the user typed.
NEW_DATA_DIR = f'choose another folder: {CONFIG.data_dir}DIR'
NEW_DATA_DIR_OF_COMMAND = f'choose another folder: {FLAGS.data_dir}DIR'
NEW_DATA_DIR_OF_RUN = "set data_dir in the run's config.json to another folder"


def name(remedy: str) -> str:
  """The flag or field alone, such as 'data.images_dir' or '--images'."""
  return remedy.removeprefix('--config.').removesuffix(' set to ').rstrip('= ')
