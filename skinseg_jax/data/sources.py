"""The one interface that every source of images has, and the choice of one."""

import pathlib
from typing import Protocol, TypedDict

import numpy as np

from skinseg_jax import config as config_lib


class Example(TypedDict):
  """One image at its own size.

  `image` is uint8 [height, width, 3], RGB; `mask` is uint8 [height, width]
  with 1 for lesion and 0 for skin.
  """

  image_id: str
  image: np.ndarray
  mask: np.ndarray


class Source(Protocol):
  """Images with masks, in a fixed order; safe to read from many threads.

  Attributes:
    name: Short name of the data, such as 'ham10000'.
    fingerprint: SHA-256, in hex, of everything that shapes the examples; two
      sources with one fingerprint deal out the same arrays.
    image_ids: One per example, sorted, each once.
    metadata: One row per example, all with the same columns; '' where a value
      is unknown. Every row has `image_id`, `lesion_id` and `dx`.
  """

  name: str
  fingerprint: str
  image_ids: list[str]
  metadata: list[dict[str, str]]

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...


def open_source(
  config: config_lib.DataConfig, *, download: bool = True
) -> Source:
  """Opens the source that the config names, preparing it where it must be.

  Args:
    config: Which source, and where it is.
    download: Whether it may be fetched if it is nowhere on this machine.

  Raises:
    InputError: If its files are missing or unfit.
  """
  # Imported where chosen: TFDS alone takes a second to import.
  match config.source:
    case 'ham10000':
      from skinseg_jax.data import ham10000

      return ham10000.Ham10000Source.prepare(
        data_dir=pathlib.Path(config.data_dir),
        raw_dir=pathlib.Path(config.raw_dir) if config.raw_dir else None,
        mask_threshold=config.mask_threshold,
        download=download,
      )
    case 'folder':
      from skinseg_jax.data import folder

      return folder.FolderSource(
        images_dir=pathlib.Path(config.images_dir),
        masks_dir=pathlib.Path(config.masks_dir),
        metadata_csv=pathlib.Path(config.metadata_csv)
        if config.metadata_csv
        else None,
        mask_threshold=config.mask_threshold,
      )
    case 'synthetic':
      from skinseg_jax.data import synthetic

      return synthetic.SyntheticSource(
        num_images=config.num_synthetic,
        size=config.image_size,
        seed=config.seed,
      )
  raise ValueError(f'unknown source {config.source!r}')
