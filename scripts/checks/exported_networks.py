"""Compares exported files of every architecture with Flax on real pictures.

python scripts/checks/exported_networks.py --data_dir data --output FILE

Small networks with random weights are written in each format whose packages are
installed. 50 images of HAM10000 are predicted 1, 7 and 32 at a time. Writes,
for each file, the largest difference to Flax in a probability, its bytes, and
the nodes of an ONNX graph, or why the network cannot be written; exit code 1 if
a file is missing or differs by more than 0.0001. Started again at the same
commit, it resumes where it stopped. It needs git and a checkout without
changes.
"""

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile

import export_cases
import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, preprocessing
from skinseg_jax.data.sources import catalog
from skinseg_jax.exporting import portable
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
  formats = [kind for kind in portable.FORMATS if not portable.lacking(kind)]
  commit = _commit()
  found = json.loads(args.output.read_text()) if args.output.exists() else []
  rows = []
  for architecture, encoder, width, size in export_cases.NETWORKS:
    key = {
      'architecture': architecture, 'encoder': encoder, 'width': width,
      'pixels': size, 'commit': commit,
    }  # fmt: skip
    same = [
      row for row in found
      if key.items() <= row.items() and list(row['formats']) == formats
    ]  # fmt: skip
    if same:
      rows += same
      continue
    config = config_lib.Config()
    config.model = config_lib.ModelConfig(
      architecture=architecture, encoder=encoder, width=width
    )
    config.data.image_size = (size, size)
    images = _images(args.data_dir, size)
    state, expected = export_cases.trained_like(config.model, images)
    model = trained_model.TrainedModel(config, None, state, 0, None)
    rows.append(
      {
        **key,
        'spread': float(expected.std()),
        'formats': {
          kind: _check(kind, model, images, expected) for kind in formats
        },
      }
    )
    print(rows[-1], flush=True)
    args.output.write_text(json.dumps(rows, indent=2) + '\n')
  checked = [checked for row in rows for checked in row['formats'].values()]
  written = [found for found in checked if 'error' not in found]
  # Not `max`, which can lose what is not a number.
  largest = np.max(
    [
      value
      for found in written
      for value in found['largest_difference'].values()
    ],
    initial=0,
  )
  missing = len(checked) - len(written)
  print(f'largest difference: {largest:.2g}; files not written: {missing}')
  sys.exit(missing > 0 or not largest <= portable.TOLERANCE)


def _commit() -> str:
  """The version of the code."""
  git = ['git', '-C', str(pathlib.Path(__file__).parent)]
  run = lambda *words: subprocess.check_output([*git, *words], text=True)
  if run('status', '--porcelain', '--untracked-files=no'):
    raise errors.InputError(
      'the code has changes that are not committed; commit or stash them, so'
      ' that the result names the code it is of'
    )
  return run('rev-parse', 'HEAD').strip()


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
    try:
      portable.write(folder, kind, model, {})
    except errors.InputError as error:
      return {'error': str(error)}
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
    files = [folder / about['file']]
    if kind == 'savedmodel':  # Its weights are in other files.
      own = ('model.json', 'example.py')
      files = [
        path for path in folder.rglob('*')
        if path.is_file() and path.name not in own
        and '__pycache__' not in path.parts
      ]  # fmt: skip
    return {
      'largest_difference': found,
      'bytes': sum(path.stat().st_size for path in files),
      **{key: about[key] for key in ('nodes',) if key in about},
    }


def _difference(run, images, expected, size: int) -> float:
  """Largest difference over all images, `size` at a time."""
  # The last ones reach back, so that all have the same size.
  starts = [*range(0, len(images) - size, size), len(images) - size]
  return float(
    np.max(
      [
        np.abs(run(images[i : i + size]) - expected[i : i + size]).max()
        for i in starts
      ]
    )
  )


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
