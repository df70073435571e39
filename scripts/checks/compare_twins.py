"""Compares each network with its PyTorch twin on real images.

python scripts/checks/compare_twins.py --data_dir data --output twins.json

Both have the same random weights. Prints the largest difference of the logits
of eight images of HAM10000, as a share of the largest logit, in evaluation and
in training mode (without dropout), in float32. Needs what
tests/requirements-twins.txt names. Started again, it goes on where it stopped.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache
from skinseg_jax.data.sources import catalog
from skinseg_jax.runtime import errors

_ROOT = pathlib.Path(__file__).parents[2]
_HELPERS = _ROOT / 'tests' / 'helpers'
sys.path += map(str, (_ROOT / 'scripts', _HELPERS, _HELPERS / 'pytorch'))
_SIZES = (128, 224)
_NUM_IMAGES = 8


def _images(data_dir: pathlib.Path, size: int) -> np.ndarray:
  """Images [8, size, size, 3] in [0, 1], spread over the data set."""
  source = catalog.open_source(config_lib.DataConfig(data_dir=str(data_dir)))
  data = cache.open_cache(source, (size, size), data_dir)
  chosen = np.linspace(0, len(data.image_ids) - 1, _NUM_IMAGES).astype(int)
  return np.stack([data.images[i] for i in chosen]).astype(np.float32) / 255


def main(argv: list[str]) -> None:
  """Compares, prints a line for each network, and writes all of them."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--data_dir', type=pathlib.Path, default=pathlib.Path('data'))
  add('--output', type=pathlib.Path, required=True, help='JSON to write')
  args = parser.parse_args(argv[1:])
  import twin_pairs

  images = {size: _images(args.data_dir, size) for size in _SIZES}
  rows = json.loads(args.output.read_text()) if args.output.exists() else []
  done = {(row['architecture'], row['variant']) for row in rows}
  for architecture, variant, _ in twin_pairs.NETWORKS:
    if (architecture, variant) in done:
      continue
    pair = twin_pairs.Pair(architecture, variant)
    row = {'architecture': architecture, 'variant': variant}
    for size in _SIZES:
      for training in (False, True):
        ours = pair.ours(images[size], training=training)
        theirs = pair.theirs(images[size], training=training)
        mode = 'training' if training else 'evaluation'
        difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
        row[f'{mode}, {size} px'] = float(difference)
    rows.append(row)
    print(row, flush=True)
    args.output.write_text(json.dumps(rows, indent=2) + '\n')


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
