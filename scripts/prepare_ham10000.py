"""Builds the HAM10000 data set and its cache; run it once.

From local files, zipped or unpacked (Dataverse or Kaggle layout):
  python scripts/prepare_ham10000.py --raw_dir DIR
From Dataverse (downloads 2.8 GB; licence CC BY-NC 4.0):
  python scripts/prepare_ham10000.py
"""

import pathlib
import resource
import sys
import time

from absl import app, flags, logging

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.data import cache, remedies
from skinseg_jax.data.sources import ham10000
from skinseg_jax.runtime import errors, paths

_RAW_DIR = flags.DEFINE_string(
  'raw_dir', '', 'Folder of the raw files; if empty, they are downloaded.'
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', 'data', 'Folder for the data set and the cache.'
)
_IMAGE_SIZE = flags.DEFINE_integer(
  'image_size', 224, 'Height and width of cached images, in pixels.'
)
_MASK_THRESHOLD = flags.DEFINE_integer(
  'mask_threshold',
  0,
  'Grey value above which a mask pixel is lesion; 0 requires binary masks.',
)


def main(argv: list[str]) -> None:
  """Prepares what is missing and prints a summary."""
  if len(argv) > 1:
    raise errors.InputError(
      f'unknown arguments: {" ".join(argv[1:])}; --help lists the flags.'
    )
  logging.set_verbosity(logging.WARNING)  # TFDS logs every step.
  config = config_lib.Config()
  config.data.image_size = (_IMAGE_SIZE.value, _IMAGE_SIZE.value)
  config.data.mask_threshold = _MASK_THRESHOLD.value
  config_rules.validate(config)
  start = time.perf_counter()
  data_dir = paths.user_path(_DATA_DIR.value)
  source = ham10000.Ham10000Source.prepare(
    data_dir=data_dir,
    raw_dir=paths.user_path(_RAW_DIR.value) if _RAW_DIR.value else None,
    mask_threshold=_MASK_THRESHOLD.value,
    remedies=remedies.FLAGS,
  )
  built = time.perf_counter()
  image_size = config.data.image_size
  cache.open_cache(
    source, image_size, data_dir, elsewhere=remedies.NEW_DATA_DIR_OF_COMMAND
  )
  cached = time.perf_counter()
  height, width = image_size
  print(
    f'images: {len(source)}\n'
    f'fingerprint: {source.fingerprint}\n'
    f'data set: {_gigabytes(data_dir / source.name)} GB in'
    f' {data_dir / source.name}, {built - start:.1f} s\n'
    f'cache: {height} x {width} pixels, {cached - built:.1f} s\n'
    f'peak memory: {_peak_memory():.2f} GB'
  )


def _gigabytes(directory: pathlib.Path) -> str:
  sizes = (f.stat().st_size for f in directory.rglob('*') if f.is_file())
  return f'{sum(sizes) / 1e9:.2f}'


def _peak_memory() -> float:
  """Largest resident set of this process so far, in GB."""
  # Linux counts in KiB, macOS in bytes.
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == '__main__':
  app.run(lambda argv: errors.exit_with_message(main, argv))
