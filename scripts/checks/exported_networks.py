"""Compares exported files of every architecture with Flax on real pictures.

python scripts/checks/exported_networks.py --data_dir data --output FILE

Small networks with random weights are written in each format whose packages are
installed. 50 images of HAM10000 are predicted 1, 7 and 32 at a time. Writes,
for each file, the largest difference to Flax in a probability, its bytes, and
the nodes of an ONNX graph; exit code 1 if one differs by more than 0.0001.
Started again, it goes on where it stopped.
"""

import argparse
import importlib.util
import json
import pathlib
import sys
import tempfile

import export_cases
import jax
import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, preprocessing
from skinseg_jax.data.sources import catalog
from skinseg_jax.exporting import portable, program
from skinseg_jax.inference import trained_model
from skinseg_jax.runtime import errors

_BATCH_SIZES = (1, 7, 32)
_NUM_IMAGES = 50


def main(argv: list[str]) -> None:
  """Compares, prints a line for each file, and writes all of them."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--data_dir', type=pathlib.Path, default=pathlib.Path('data'))
  add('--output', type=pathlib.Path, required=True, help='JSON to write')
  args = parser.parse_args(argv[1:])
  rows = json.loads(args.output.read_text()) if args.output.exists() else []
  done = {(row['architecture'], row['encoder']) for row in rows}
  for architecture, encoder, width, size in export_cases.NETWORKS:
    if (architecture, encoder) in done:
      continue
    config = config_lib.Config()
    config.model = config_lib.ModelConfig(
      architecture=architecture, encoder=encoder, width=width
    )
    config.data.image_size = (size, size)
    state = export_cases.random_state(config.model)
    model = trained_model.TrainedModel(config, None, state, 0, None)
    images = _images(args.data_dir, size)
    predict = jax.jit(program.build_program(config.model))
    expected = np.asarray(predict(state, images))
    rows.append({
      'architecture': architecture, 'encoder': encoder, 'width': width,
      'pixels': size, 'spread': float(expected.std()),
      'formats': {
        kind: _check(kind, model, images, expected)
        for kind in portable.FORMATS if not portable.lacking(kind)
      },
    })  # fmt: skip
    print(rows[-1], flush=True)
    args.output.write_text(json.dumps(rows, indent=2) + '\n')
  largest = max(
    value
    for row in rows
    for found in row['formats'].values()
    for value in found['largest_difference'].values()
  )
  print(f'largest difference: {largest:.2g}')
  sys.exit(largest > portable.TOLERANCE)


def _images(data_dir: pathlib.Path, size: int) -> np.ndarray:
  """Images, uint8 [50, size, size, 3], spread over the data set."""
  source = catalog.open_source(config_lib.DataConfig(data_dir=str(data_dir)))
  data = cache.open_cache(source, (128, 128), data_dir)
  chosen = np.linspace(0, len(data.image_ids) - 1, _NUM_IMAGES).astype(int)
  return np.stack(
    [preprocessing.resize_image(data.images[i], (size, size)) for i in chosen]
  )


def _check(kind: str, model, images, expected) -> dict:
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    portable.write(folder, kind, model, {})
    about = json.loads((folder / 'model.json').read_text())
    spec = importlib.util.spec_from_file_location(kind, folder / 'example.py')
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    _, run = example.load()
    fixed = about['input']['shape'][0] == 1
    found = {
      str(size): _difference(run, images, expected, size)
      for size in ((1,) if fixed else _BATCH_SIZES)
    }
    return {
      'largest_difference': found,
      'bytes': (folder / about['file']).stat().st_size,
      **{key: about[key] for key in ('nodes',) if key in about},
    }


def _difference(run, images, expected, size: int) -> float:
  """Largest difference over all images, `size` at a time."""
  # The last ones reach back, so that all have the same size.
  starts = [*range(0, len(images) - size, size), len(images) - size]
  return max(
    float(np.abs(run(images[i : i + size]) - expected[i : i + size]).max())
    for i in starts
  )


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
