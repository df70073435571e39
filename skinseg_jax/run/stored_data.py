"""Opens the images of a run from its folder."""

import dataclasses
import pathlib
import sys

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, remedies, splits
from skinseg_jax.data.sources import catalog, interface
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import errors
from skinseg_jax.weights import shared_model


@dataclasses.dataclass(frozen=True, eq=False)
class RunData:
  """A run's own images.

  Attributes:
    source: The images at their own size.
    data: The same images, in the same order, at the model's size.
    split: Which of them train and which validate.
  """

  source: interface.Source
  data: cache.CachedData
  split: splits.Split


def open_run_data(
  workdir: pathlib.Path,
  config: config_lib.DataConfig,
  *,
  other_copies: bool = False,
) -> RunData:
  """Opens the images that a run was trained on; never downloads them.

  Args:
    workdir: Folder of the run.
    config: The run's.
    other_copies: Whether the same images as other files will do, such as
      originals in place of compressed copies. A difference is printed.

  Raises:
    InputError: If the images are missing or have changed, or the folder is
      that of a model and has none.
  """
  shared_model.refuse(workdir)
  # The data of a shared model are named by a flag.
  words = remedies.FLAGS if other_copies else remedies.RUN
  split = splits.read_split(workdir / 'split.csv')
  # Relative paths in a config depend on the working directory, so the data may
  # not be where it was.
  try:
    source = catalog.open_source(config, download=False, remedies=words)
  except errors.InputError as error:
    if config.source != 'folder':
      raise
    raise errors.InputError(
      f'{error}\nThe run was trained on these images: restore the folders and'
      ' the table as they were. If they were moved, edit data.images_dir,'
      f' data.masks_dir and data.metadata_csv in {workdir / "config.json"}.'
    ) from error
  try:
    run_folder.check_data(workdir, source)
  except errors.InputError as error:
    if not other_copies or set(split.train + split.validation) - set(
      source.image_ids
    ):
      raise
    print(
      'note: these are not the files that the model was trained on, so its'
      f' scores can differ from those published with it ({error})',
      file=sys.stderr,
    )
  data = cache.open_cache(
    source,
    config.image_size,
    pathlib.Path(config.data_dir),
    elsewhere=remedies.NEW_DATA_DIR_OF_RUN,
  )
  return RunData(source, data, split)
