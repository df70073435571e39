"""Compares the speed of exported files with JAX and PyTorch, in turns.

  python -m skinseg_jax.export --format onnx --output exported/onnx
  python scripts/benchmarks/exported.py exported/onnx --output speed.json

Each folder is one that `export` wrote for the model of --workdir, by default
the one that comes with the package. A prediction takes one picture, uint8, to
probabilities on the host. PyTorch runs the network's twin eagerly, in float32,
channels last; it needs what tests/requirements-twins.txt names. Each side runs
in a process of its own, and only one of them runs at a time. Prints the median,
the least and the greatest time of a prediction, in milliseconds.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import signal
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from skinseg_jax.weights import shared_model

_Predict = Callable[[np.ndarray], np.ndarray]
# Seconds that a side has the machine to itself in each turn.
_TURN = 2.0
_HELPERS = pathlib.Path(__file__).parents[2] / 'tests' / 'helpers'


def main() -> None:
  """Measures, prints a table and writes it."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('folders', nargs='+', type=pathlib.Path, help='what `export` wrote')
  add('--workdir', type=pathlib.Path, default=shared_model.SHIPPED)
  add('--turns', type=int, default=8)
  add('--output', type=pathlib.Path, help='JSON to write')
  args = parser.parse_args()
  sides = ['jax', 'torch', *map(str, args.folders)]
  context = multiprocessing.get_context('spawn')
  pipes, processes = {}, {}
  times: dict[str, list[float]] = {side: [] for side in sides}
  try:
    for side in sides:
      pipes[side], theirs = context.Pipe()
      processes[side] = context.Process(
        target=_serve, args=(side, args.workdir, theirs), daemon=True
      )
      processes[side].start()
      theirs.close()  # Or `recv` would wait for a process that has ended.
      _receive(side, pipes[side])  # It is warm.
      # Stopped between its turns: its waiting threads would spin.
      os.kill(processes[side].pid, signal.SIGSTOP)
    for _ in range(args.turns):
      for side, pipe in pipes.items():
        os.kill(processes[side].pid, signal.SIGCONT)
        pipe.send(None)
        times[side].append(1e3 * _receive(side, pipe))
        os.kill(processes[side].pid, signal.SIGSTOP)
  finally:
    for process in processes.values():
      process.kill()
  for side, taken in times.items():
    median = statistics.median(taken)
    print(f'{side:24} {median:8.1f} ({min(taken):.1f} to {max(taken):.1f})')
  if args.output:
    cores = len(os.sched_getaffinity(0))
    result = {'milliseconds': times, 'batch': 1, 'cores': cores}
    args.output.write_text(json.dumps(result, indent=2) + '\n')


def _receive(side: str, pipe: Connection) -> float | None:
  try:
    return pipe.recv()
  except EOFError:
    sys.exit(f'error: {side} failed; its message is above')


def _serve(side: str, workdir: pathlib.Path, pipe: Connection) -> None:
  from skinseg_jax import config as config_lib

  config = config_lib.load(workdir / 'config.json')
  shape = (1, *config.data.image_size, 3)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  if side == 'jax':
    predict = _jax(workdir)
  elif side == 'torch':
    predict = _torch(config.model)
  else:
    predict = _exported(pathlib.Path(side))
  for _ in range(5):
    predict(images)
  pipe.send(None)
  while True:
    pipe.recv()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < _TURN:
      predict(images)
      count += 1
    pipe.send((time.perf_counter() - began) / count)


def _exported(folder: pathlib.Path) -> _Predict:
  # As its own program uses it.
  sys.path.insert(0, str(folder))
  import example

  return example.load()[1]


def _jax(workdir: pathlib.Path) -> _Predict:
  import jax

  from skinseg_jax.exporting import program
  from skinseg_jax.inference import trained_model

  model = trained_model.load(workdir, 'last')
  predict = jax.jit(program.build_program(model.config.model))
  return lambda images: np.asarray(predict(model.state, images))


def _torch(config) -> _Predict:
  sys.path += map(str, (_HELPERS.parents[1] / 'scripts', _HELPERS / 'pytorch'))
  import twins

  torch = twins.torch
  model = twins.build(config.architecture, config.encoder, config.width).eval()
  model = model.to(memory_format=torch.channels_last)

  def predict(images):
    with torch.inference_mode():
      # A view: the pictures are in PyTorch's channels-last order already.
      pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
      return torch.sigmoid(model(pixels))[:, 0].numpy()

  return predict


if __name__ == '__main__':
  main()
