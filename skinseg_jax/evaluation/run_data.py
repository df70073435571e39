"""Opens the images of a run from its folder."""

import dataclasses
import pathlib

from skinseg_jax.data import cache, splits
from skinseg_jax.data.sources import catalog, interface
from skinseg_jax.inference import trained_model
from skinseg_jax.run import run_folder


@dataclasses.dataclass(frozen=True, eq=False)
class RunData:
  """A run's images at their original size and at the model's, and the split."""

  source: interface.Source
  data: cache.CachedData
  split: splits.Split


def open_run_data(
  workdir: pathlib.Path, model: trained_model.TrainedModel
) -> RunData:
  """Opens the images that a run was trained and validated on.

  Raises:
    InputError: If they are missing or have changed since training.
  """
  config = model.config.data
  split = splits.read_split(workdir / 'split.csv')
  # A relative data_dir may point elsewhere now, so nothing is downloaded.
  source = catalog.open_source(config, download=False)
  run_folder.check_data(workdir, source)
  data = cache.open_cache(
    source, config.image_size, pathlib.Path(config.data_dir)
  )
  return RunData(source, data, split)
