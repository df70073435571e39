"""Opens the source of images that a config names."""

import pathlib

from skinseg_jax import config as config_lib
from skinseg_jax.data import remedies as remedies_lib
from skinseg_jax.data.sources import interface
from skinseg_jax.runtime import errors


def open_source(
  config: config_lib.DataConfig,
  *,
  download: bool = True,
  remedies: remedies_lib.Remedies = remedies_lib.CONFIG,
) -> interface.Source:
  """Opens the source that the config names, preparing it where it must be.

  Args:
    config: Which source, and where it is.
    download: Whether it may be fetched if it is nowhere on this machine.
    remedies: What the user types to change a setting.

  Raises:
    InputError: If its files are missing or unfit.
  """
  # Imported where chosen: TFDS alone takes a second to import.
  match config.source:
    case 'ham10000':
      try:
        from skinseg_jax.data.sources import ham10000
      except ModuleNotFoundError as error:
        raise errors.InputError(
          f"data.source 'ham10000' needs the package {error.name}. Type:"
          ' pip install "skinseg_jax[train]"'
        ) from error

      return ham10000.Ham10000Source.prepare(
        data_dir=pathlib.Path(config.data_dir),
        raw_dir=pathlib.Path(config.raw_dir) if config.raw_dir else None,
        mask_threshold=config.mask_threshold,
        mask_invert=config.mask_invert,
        download=download,
        remedies=remedies,
      )
    case 'folder':
      from skinseg_jax.data.sources import folder

      return folder.FolderSource(
        images_dir=pathlib.Path(config.images_dir),
        masks_dir=pathlib.Path(config.masks_dir),
        metadata_csv=pathlib.Path(config.metadata_csv)
        if config.metadata_csv
        else None,
        mask_threshold=config.mask_threshold,
        mask_invert=config.mask_invert,
        mask_suffixes=config.mask_suffixes.split(','),
        remedies=remedies,
      )
    case 'synthetic':
      from skinseg_jax.data.sources import synthetic

      return synthetic.SyntheticSource(
        num_images=config.num_synthetic,
        size=config.image_size,
        seed=config.seed,
      )
  raise ValueError(f'unknown source {config.source!r}')
