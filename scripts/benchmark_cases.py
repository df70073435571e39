"""What scripts/benchmark.py measures, each case in a process of its own.

A case is set up and warmed up once; after that it is measured whenever the
other side of a pipe asks for it, and stands still in between.
"""

import dataclasses
import importlib
import os
import pathlib
import resource
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from skinseg_jax.data import cache, preprocessing, raw_files, sources

_WARM_UP_STEPS, _WARM_UP_SECONDS = 10, 3.0
_READ_AHEAD = 16


@dataclasses.dataclass(frozen=True)
class Case:
  """One line of the table.

  Attributes:
    framework: 'jax' or 'torch'.
    mode: One of benchmark.py's, or 'matrix', a product of two square
      matrices.
    precision: 'float32' or 'bfloat16'; 'uint8' for 'input'.
    compiled: Whether a compiler is at work: jax, or torch.compile.
    width: Of the U-Net; None for 'input' and 'matrix'.
    image_size: Height and width, or the size of a matrix.
    batch_size: Images a step; 1 for 'matrix'.
  """

  framework: str
  mode: str
  precision: str
  compiled: bool
  width: int | None
  image_size: int
  batch_size: int


@dataclasses.dataclass(frozen=True)
class Data:
  """The images that are used: the first ones, and where their cache is."""

  raw_dir: pathlib.Path
  cache_dir: pathlib.Path
  num_images: int
  workers: int


@dataclasses.dataclass
class Work:
  """How to make a step and how to wait for all that were made.

  `step` of 'predict' waits itself: its result is on the host.
  """

  step: Callable[[], Any]
  wait: Callable[[], Any]
  device: str
  peak_memory: Callable[[], int]


class RawSource:
  """The first images of a folder of raw files; see `sources.Source`."""

  name = 'benchmark'

  def __init__(self, raw_dir: pathlib.Path, num_images: int):
    self._raw = raw_files.list_files(raw_files.find(raw_dir))
    self.image_ids = sorted(self._raw.images)[:num_images]
    self.metadata = [self._raw.rows[name] for name in self.image_ids]
    self.fingerprint = raw_files.digest(
      [name, self._raw.images[name].size] for name in self.image_ids
    )

  def __len__(self) -> int:
    return len(self.image_ids)

  def __getitem__(self, index: int) -> sources.Example:
    name = self.image_ids[index]
    image, mask = self._raw.images[name], self._raw.masks[name]
    return {
      'image_id': name,
      'image': preprocessing.decode_image(image.read(), name),
      'mask': preprocessing.decode_mask(mask.read(), name),
    }


def open_data(data: Data, image_size: int) -> cache.CachedData:
  """Opens the cache of the images at a size, building it where it must be."""
  source = RawSource(data.raw_dir, data.num_images)
  return cache.open_cache(source, (image_size, image_size), data.cache_dir)


def serve(case: Case, data: Data, connection: Connection) -> None:
  """Sets a case up, then measures it whenever asked.

  Sends `{'compile_seconds', 'device'}`; then for each number of seconds that
  comes, a list of seconds per step; for None, the peak of memory in bytes, and
  ends. Sends a string instead, the traceback, where something fails.
  """
  os.setsid()  # With its own workers it can be stopped and continued as one.
  try:
    # Imported here, for neither framework may see the other.
    framework = importlib.import_module(f'benchmark_{case.framework}')
    work = framework.set_up(case, data)
    began = time.perf_counter()
    work.step()
    work.wait()
    first = time.perf_counter() - began
    step_seconds = _warm_up(work)
    compile_seconds = max(0.0, first - step_seconds)
    connection.send({'compile_seconds': compile_seconds, 'device': work.device})
    while (seconds := connection.recv()) is not None:
      connection.send(
        _measure(case, work, max(1, round(seconds / step_seconds)))
      )
    connection.send(work.peak_memory())
  except Exception:  # Whatever a framework raises, such as a lack of memory.
    connection.send(traceback.format_exc())


def _warm_up(work: Work) -> float:
  """Makes steps until they take what they take; returns seconds per step."""
  began, steps = time.perf_counter(), 0
  while steps < _WARM_UP_STEPS:
    last = time.perf_counter()
    work.step()
    work.wait()
    steps += 1
    if time.perf_counter() - began > _WARM_UP_SECONDS:
      break
  return time.perf_counter() - last


def _measure(case: Case, work: Work, steps: int) -> list[float]:
  """Seconds per step: of each step where it waits itself, else their mean."""
  if case.mode in ('input', 'host'):
    # What was read ahead before this process stood still is used up first.
    for _ in range(_READ_AHEAD):
      work.step()
    work.wait()
  times = [time.perf_counter()]
  for _ in range(steps):
    work.step()
    if case.mode == 'predict':
      times.append(time.perf_counter())
  if case.mode == 'predict':
    return np.diff(times).tolist()
  work.wait()
  return [(time.perf_counter() - times[0]) / steps]


def resident_peak() -> int:
  """The most memory that this process has held, in bytes."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else 1024 * peak


def matrices(size: int) -> np.ndarray:
  """Two square matrices, float32 [2, size, size]."""
  # Random: a chip may draw less power on constants, and so run faster.
  rng = np.random.default_rng(0)
  return rng.standard_normal((2, size, size), np.float32)


def noise(case: Case) -> np.ndarray:
  """A batch of images, uint8 [B, H, W, 3]."""
  shape = (case.batch_size, case.image_size, case.image_size, 3)
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
