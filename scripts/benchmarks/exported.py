"""Compares the speed of an ONNX file with JAX and PyTorch, in turns.

python scripts/benchmarks/exported.py [--width 16] [--size 112] [--turns 8]

The network is the paper's U-Net with fresh weights. A prediction takes one
picture, uint8, to probabilities on the host, in float32. PyTorch runs eagerly,
channels last. Each side runs in a process of its own, and only one of them runs
at a time. Prints the median, the least and the greatest time of a prediction.
"""

import argparse
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

_Predict = Callable[[np.ndarray], np.ndarray]
# Seconds that a side has the machine to itself in each turn.
_TURN = 2.0


def main() -> None:
  """Measures and prints a table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name, default in (('width', 16), ('size', 112), ('turns', 8)):
    parser.add_argument(f'--{name}', type=int, default=default)
  args = parser.parse_args()
  context = multiprocessing.get_context('spawn')
  pipes, processes = {}, {}
  for side in _SIDES:
    pipes[side], theirs = context.Pipe()
    processes[side] = context.Process(
      target=_serve, args=(side, args.width, args.size, theirs), daemon=True
    )
    processes[side].start()
    pipes[side].recv()  # It is warm.
    # Stopped between its turns: its waiting threads would spin.
    os.kill(processes[side].pid, signal.SIGSTOP)
  seconds: dict[str, list[float]] = {side: [] for side in _SIDES}
  for _ in range(args.turns):
    for side, pipe in pipes.items():
      os.kill(processes[side].pid, signal.SIGCONT)
      pipe.send(None)
      seconds[side].append(pipe.recv())
      os.kill(processes[side].pid, signal.SIGSTOP)
  print(f'U-Net, width {args.width}, {args.size} px, batch 1: milliseconds')
  for side, times in seconds.items():
    row = [1e3 * f(times) for f in (statistics.median, min, max)]
    print(f'{side:12} {row[0]:8.1f} ({row[1]:.1f} to {row[2]:.1f})')
  for process in processes.values():
    process.kill()


def _serve(side: str, width: int, size: int, pipe: Connection) -> None:
  predict = _SIDES[side](width, size)
  images = np.random.default_rng(0).integers(
    0, 256, (1, size, size, 3), np.uint8
  )
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


def _network(width: int):
  import jax
  from flax import nnx

  from skinseg_jax import config as config_lib
  from skinseg_jax.exporting import program
  from skinseg_jax.models import build

  config = config_lib.ModelConfig(width=width)
  state = jax.jit(lambda: nnx.state(build.create(config, seed=0)))()
  return program.build_program(config), state


def _jax(width: int, size: int) -> _Predict:
  del size
  import jax

  predict, state = _network(width)
  jitted = jax.jit(predict)
  return lambda images: np.asarray(jitted(state, images))


def _onnxruntime(width: int, size: int) -> _Predict:
  import onnxruntime

  from skinseg_jax.exporting import onnx_file

  model = onnx_file.build(*_network(width), (size, size))
  session = onnxruntime.InferenceSession(
    model.SerializeToString(), providers=['CPUExecutionProvider']
  )
  return lambda images: session.run(None, {'image': images})[0]


def _torch(width: int, size: int) -> _Predict:
  del size
  import torch

  sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
  import torch_reference

  model = torch_reference.UNet(width).eval()
  model = model.to(memory_format=torch.channels_last)

  def predict(images):
    with torch.inference_mode():
      # A view: the pictures are in PyTorch's channels-last order already.
      pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
      return torch.sigmoid(model(pixels))[:, 0].numpy()

  return predict


_SIDES = {'onnxruntime': _onnxruntime, 'jax': _jax, 'torch': _torch}


if __name__ == '__main__':
  main()
