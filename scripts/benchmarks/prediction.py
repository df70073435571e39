"""Measures the command predict beside its forward passes, and its memory.

python scripts/benchmarks/prediction.py --workdir DIR --input DIR [--number N]

Predicts the first N images of a folder as `python -m skinseg_jax.predict` does,
with masks and table, and the same number of black images by forward passes
alone. They take turns in one process, after a pass that compiles.
"""

import argparse
import json
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Sequence

import jax
import numpy as np

from skinseg_jax.inference import (
  inputs,
  outputs,
  postprocessing,
  predictions,
  predictor,
  table,
  trained_model,
)
from skinseg_jax.runtime import errors


def forward_alone(
  model: trained_model.TrainedModel, number: int, batch_size: int
) -> None:
  """Predicts images of the model's size that need no reading."""
  images = np.zeros((batch_size, *model.config.data.image_size, 3), np.uint8)
  for _ in range(-(-number // batch_size)):
    predictor.answers(model, [[image] for image in images], batch_size)


def full(
  model: trained_model.TrainedModel, paths: Sequence[pathlib.Path]
) -> int:
  """Predicts files as the command does; returns the number of masks."""
  with tempfile.TemporaryDirectory() as directory:
    places = outputs.Outputs(pathlib.Path(directory), None, None)
    done = table.Done(places)
    files = inputs.scan(paths, places, done, overwrite=False)
    options = predictions.Options(postprocessing.Steps(), tile=None)
    summary = predictions.predict(model, files, places, done, options)
    return summary.predicted


def main(argv: Sequence[str]) -> None:
  """Measures both in turn and prints JSON."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--input', type=pathlib.Path, required=True)
  parser.add_argument('--number', type=int, help='images; default: all')
  parser.add_argument('--repetitions', type=int, default=2)
  args = parser.parse_args(argv[1:])
  model = trained_model.load(args.workdir, 'last')
  paths: list[pathlib.Path] = [args.input]
  if args.number:
    paths = sorted(p for p in args.input.rglob('*') if p.is_file())
    paths = paths[: args.number]
  number = full(model, paths)  # Compiles, and reads the files once.
  batch_size = predictor.whole_batch(model, min(32, number))
  rates: dict[str, list[float]] = {'forward': [], 'command': []}
  for _ in range(args.repetitions):
    for name, work in (
      ('forward', lambda: forward_alone(model, number, batch_size)),
      ('command', lambda: full(model, paths)),
    ):
      began = time.perf_counter()
      work()
      rates[name].append(number / (time.perf_counter() - began))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  result = {
    'num_images': number,
    'image_size': model.config.data.image_size,
    'architecture': model.config.model.architecture,
    'width': model.config.model.width,
    'views': model.config.evaluation.test_time_augmentation,
    'device': jax.devices()[0].device_kind,
    'forward_images_per_second': rates['forward'],
    'command_images_per_second': rates['command'],
    'ratios': [
      command / forward
      for command, forward in zip(
        rates['command'], rates['forward'], strict=True
      )
    ],
    'peak_memory_gb': peak * 1024 / 1e9,
  }
  print(json.dumps(result, indent=2))


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
