"""Opens the images of a run from its folder."""

import dataclasses
import pathlib

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, remedies, splits
from skinseg_jax.data.sources import catalog, interface
from skinseg_jax.run import run_folder


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
  workdir: pathlib.Path, config: config_lib.DataConfig
) -> RunData:
  """Opens the images that a run was trained on; never downloads them.

  Args:
    workdir: Folder of the run.
    config: The run's.

  Raises:
    InputError: If the images are missing or have changed.
  """
  split = splits.read_split(workdir / 'split.csv')
  # Relative paths in a config depend on the working directory, so the data may
  # not be where it was.
  source = catalog.open_source(config, download=False)
  run_folder.check_data(workdir, source)
  data = cache.open_cache(
    source,
    config.image_size,
    pathlib.Path(config.data_dir),
    elsewhere=remedies.NEW_DATA_DIR_OF_RUN,
  )
  return RunData(source, data, split)
