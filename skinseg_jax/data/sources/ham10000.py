"""HAM10000 as a TFDS data set, and as a source of examples.

10,015 dermoscopic images with lesion masks and metadata (Tschandl, Rosendahl,
Kittler: Scientific Data 5, 180161, 2018; masks: Tschandl et al., Nature
Medicine 26, 2020). Licence: CC BY-NC 4.0. No part of this needs TensorFlow.
"""

import fcntl
import functools
import hashlib
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager

from skinseg_jax.data import preprocessing
from skinseg_jax.data import remedies as remedies_lib
from skinseg_jax.data.sources import ham10000_checks, ham10000_files, interface
from skinseg_jax.runtime import errors

# By file name, the smallest first, so that a failing download fails early.
# Sizes and checksums are in checksums.tsv, where TFDS looks for them.
_DATAVERSE = 'https://dataverse.harvard.edu/api/access/datafile'
URLS = {
  'HAM10000_metadata.csv': f'{_DATAVERSE}/4338392?format=original',
  'HAM10000_segmentations_lesion_tschandl.zip': f'{_DATAVERSE}/3838943',
  'HAM10000_images_part_1.zip': f'{_DATAVERSE}/3172585',
  'HAM10000_images_part_2.zip': f'{_DATAVERSE}/3172584',
}
_SPLIT = 'full'  # TFDS keeps 'all' for itself.
# A shard is held in memory while it is written: 0.3 GB of original images.
_IMAGES_PER_SHARD = 1000


class Ham10000(tfds.core.ShardBasedBuilder):
  """Writes the original bytes of images and masks, with all metadata as text.

  Records are in the order of image ids. `info.metadata` holds the manifest:
  `files` (bytes by name), `listing_digest`, `content_digest`, `grey_masks`
  (those that need a threshold), the `mask_threshold` that they were read with,
  and all metadata `rows`, so that opening the data set reads no record.
  """

  # Not a GeneratorBasedBuilder: beyond 1 GB that one shuffles on disk, through
  # TensorFlow's file functions.

  VERSION = tfds.core.Version('1.0.0')

  def __init__(
    self,
    *,
    data_dir: pathlib.Path | None = None,
    raw_dir: pathlib.Path | None = None,
    mask_threshold: int = 0,
    remedies: remedies_lib.Remedies = remedies_lib.CONFIG,
  ):
    """Configures the builder.

    Args:
      data_dir: Where TFDS keeps data sets; None is TFDS's default.
      raw_dir: Directory of the raw files; None downloads them.
      mask_threshold: Grey value above which a pixel is lesion; 0 is strict.
      remedies: What the user types to change how masks are read.

    Raises:
      InputError: If files are missing in `raw_dir`.
    """
    self.raw_paths = ham10000_files.find(raw_dir, remedies) if raw_dir else None
    self._raw_dir = raw_dir
    self._mask_threshold = mask_threshold
    self.remedies = remedies
    super().__init__(data_dir=data_dir, file_format='array_record')

  def _info(self) -> tfds.core.DatasetInfo:
    # Bytes, not tfds.features.Image: 402 masks are palette files, which only
    # preprocessing.decode_mask reads right.
    data = functools.partial(tfds.features.Tensor, shape=(), dtype=np.object_)
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      homepage=ham10000_files.WHERE_TO_GET,
      license='CC BY-NC 4.0',
      features=tfds.features.FeaturesDict(
        {
          'image': data(doc='bytes of the JPEG file'),
          'mask': data(doc='bytes of the PNG file'),
          **{name: tfds.features.Text() for name in ham10000_files.COLUMNS},
        }
      ),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _log_download_bytes(self) -> None:
    """Prints what happens next instead of TFDS's line about unknown sizes."""
    if self.raw_paths is None:
      size = sum(self.url_infos[url].size for url in URLS.values())
      print(
        f'Downloading HAM10000 ({size / 1e9:.1f} GB, less what is there'
        f' already) from {ham10000_files.WHERE_TO_GET} to {self.data_dir_root};'
        ' licence CC BY-NC 4.0 (not for commercial use).',
        flush=True,
      )
    else:
      print(f'Building {self.data_dir} from {self._raw_dir}', flush=True)

  def _shard_iterators_per_split(self, dl_manager):
    raw = ham10000_files.list_files(
      self.raw_paths or _download(dl_manager, self.remedies)
    )
    verified = ham10000_checks.verify(
      raw, mask_threshold=self._mask_threshold, remedies=self.remedies
    )
    image_ids = sorted(raw.images)
    self.info.metadata.update(
      files=raw.sizes,
      listing_digest=raw.listing_digest(),
      content_digest=verified.content_digest,
      grey_masks=verified.grey_masks,
      mask_threshold=self._mask_threshold,
      rows=[raw.rows[image_id] for image_id in image_ids],
    )
    return {
      _SPLIT: [
        functools.partial(
          _records, raw, image_ids[start : start + _IMAGES_PER_SHARD]
        )
        for start in range(0, len(image_ids), _IMAGES_PER_SHARD)
      ]
    }


def _records(
  raw: ham10000_files.RawFiles, image_ids: list[str]
) -> Iterator[tuple[str, dict[str, str | bytes]]]:
  for image_id in image_ids:
    yield (
      image_id,
      {
        'image': raw.images[image_id].read(),
        'mask': raw.masks[image_id].read(),
        **raw.rows[image_id],
      },
    )


def _download(
  dl_manager, remedies: remedies_lib.Remedies
) -> ham10000_files.RawPaths:
  """Downloads the missing files, one after the other.

  Raises:
    InputError: If that fails, or a file is not the registered one.
  """
  paths = {}
  for name, url in URLS.items():
    try:
      paths[name] = pathlib.Path(dl_manager.download(url))
    except (
      OSError,  # What requests raises, or a full disk.
      tfds.download.DownloadError,
      download_manager.NonMatchingChecksumError,
    ) as error:
      for partial in dl_manager.download_dir.glob('ham10000/*.tmp.*'):
        shutil.rmtree(partial)
      raise errors.InputError(
        f'{name} could not be downloaded: {error}\nTry again, or get the four'
        f' files from {ham10000_files.WHERE_TO_GET} by hand and name their'
        f' directory: {remedies.raw_dir}DIR.'
      ) from error
  return ham10000_files.RawPaths(
    images={name: paths[name] for name in paths if '_images_' in name},
    masks={name: paths[name] for name in paths if '_segmentations_' in name},
    metadata=paths[ham10000_files.METADATA_NAME],
  )


class Ham10000Source:
  """The prepared data set; see `interface.Source`."""

  name = 'ham10000'

  def __init__(
    self,
    builder: Ham10000,
    mask_threshold: int,
    *,
    mask_invert: bool = False,
    remedies: remedies_lib.Remedies = remedies_lib.CONFIG,
  ):
    """Opens the data set that `builder` has prepared.

    Args:
      builder: Of a data set that is there.
      mask_threshold: Grey value above which a pixel is lesion; 0 is strict.
      mask_invert: Whether to swap lesion and skin in all masks.
      remedies: What the user types to change how masks are read.

    Raises:
      InputError: If files of it are missing or cut short, or masks are grey
        and `mask_threshold` is 0.
    """
    _check_whole(builder)
    manifest = builder.info.metadata
    if manifest['grey_masks'] and mask_threshold == 0:
      raise errors.InputError(_describe_grey(manifest, remedies))
    self._mask_threshold = mask_threshold
    self._mask_invert = mask_invert
    self._remedies = remedies
    self._records = builder.as_data_source(split=_SPLIT)
    self.metadata = manifest['rows']
    self.image_ids = [row['image_id'] for row in self.metadata]
    shaped_by = f'{manifest["content_digest"]} {mask_threshold}'
    if mask_invert:
      shaped_by += ' inverted'
    self.fingerprint = hashlib.sha256(shaped_by.encode()).hexdigest()

  @classmethod
  def prepare(
    cls,
    data_dir: pathlib.Path,
    raw_dir: pathlib.Path | None,
    mask_threshold: int,
    *,
    mask_invert: bool = False,
    download: bool = True,
    remedies: remedies_lib.Remedies = remedies_lib.CONFIG,
  ) -> 'Ham10000Source':
    """Opens the data set in `data_dir`; builds it if it is missing.

    Args:
      data_dir: Where prepared data sets are kept.
      raw_dir: Directory of the raw files, or None: use what is prepared, else
        download 2.8 GB.
      mask_threshold: Grey value above which a pixel is lesion; 0 is strict.
      mask_invert: Whether to swap lesion and skin in all masks.
      download: False refuses to.
      remedies: What the user types to change how masks are read.

    Raises:
      InputError: If raw files are missing or unfit, the data set that is there
        was made from others, or it cannot be written.
    """
    make_builder = functools.partial(
      Ham10000,
      data_dir=data_dir.absolute(),
      raw_dir=raw_dir,
      mask_threshold=mask_threshold,
      remedies=remedies,
    )
    builder = make_builder()
    if not builder.data_path.exists():
      if not (download or raw_dir):
        raise errors.InputError(
          f'no prepared HAM10000 in {data_dir.absolute()}; {remedies.no_data}.'
        )
      _build(builder)
      builder = make_builder()  # Another process may have built it.
    elif not builder.is_prepared():  # TFDS itself would take it for one.
      raise errors.InputError(
        f'{builder.data_dir} is there, but is no whole data set; remove it or'
        f' choose another folder: {remedies.data_dir}DIR.'
      )
    elif builder.raw_paths:
      _check_same(builder)
    return cls(
      builder, mask_threshold, mask_invert=mask_invert, remedies=remedies
    )

  def __len__(self) -> int:
    return len(self.image_ids)

  def __getitem__(self, index: int) -> interface.Example:
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} of {len(self)} examples')
    record = self._records[index]
    image_id = record['image_id'].decode()
    return {
      'image_id': image_id,
      'image': preprocessing.decode_image(record['image'], image_id),
      'mask': preprocessing.decode_mask(
        record['mask'],
        f'{image_id} (mask)',
        threshold=self._mask_threshold,
        invert=self._mask_invert,
        remedies=self._remedies,
      ),
    }


def _describe_grey(manifest, remedies: remedies_lib.Remedies) -> str:
  """Which masks need a threshold, and which one."""
  flag = remedies.mask_threshold
  # Data sets that earlier versions prepared do not state it.
  stored = manifest.get('mask_threshold')
  if stored is None:
    remedy = f'Give the one they were prepared with: {flag}N'
  else:
    remedy = f'Give the one they were prepared with again: {flag}{stored}'
  return (
    f'these masks are not binary, so they need a threshold. {remedy}\n'
    + errors.listing(manifest['grey_masks'])
  )


def _build(builder: Ham10000) -> None:
  """Builds under another name; TFDS renames it when it is complete."""
  parent = pathlib.Path(builder.data_path).parent
  try:
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / '.lock').open('w') as file:
      fcntl.flock(file, fcntl.LOCK_EX)  # Freed even by a crash.
      if builder.data_path.exists():
        return  # Built while we waited.
      for partial in parent.glob('incomplete.*'):
        shutil.rmtree(partial)
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
      )
  except OSError as error:
    raise errors.InputError(
      f'{builder.data_dir} cannot be written ({error}); make room, or choose'
      f' another folder: {builder.remedies.data_dir}DIR.'
    ) from error


def _check_whole(builder: Ham10000) -> None:
  """Refuses a data set whose records were lost or cut after it was built."""
  split = builder.info.splits[_SPLIT]
  found = sum(
    path.stat().st_size
    for path in map(pathlib.Path, split.filepaths)
    if path.exists()
  )
  if found != split.num_bytes:
    raise errors.InputError(
      f'{builder.data_dir} is damaged: its records have {found} bytes, were'
      f' written with {split.num_bytes}; remove it and prepare it again.'
    )


def _check_same(builder: Ham10000) -> None:
  """Refuses raw files other than those the data set was made from."""
  assert builder.raw_paths  # Without raw files there is nothing to compare.
  remedies = builder.remedies
  raw = ham10000_files.list_files(builder.raw_paths)
  manifest = builder.info.metadata
  faults = raw.unreadable + raw.problems
  if not faults and raw.listing_digest() == manifest['listing_digest']:
    return
  describe = lambda sizes: ', '.join(
    f'{name} ({size} bytes)' for name, size in sorted(sizes.items())
  )
  raise errors.InputError(
    f'{builder.data_dir} was made from other files than these:\n'
    + errors.listing(
      [
        f'made from: {describe(manifest["files"])}',
        f'given now: {describe(raw.sizes)}',
        *faults,
      ]
    )
    + f'\nChoose another folder ({remedies.data_dir}DIR), or remove the old'
    f' one; or leave {remedies_lib.name(remedies.raw_dir)} out to use it as it'
    ' is.'
  )
