"""The cases that scripts/benchmark.py measures, each in a separate process.

A case is set up and warmed up once. It is then measured each time the parent
process asks for it through a pipe, and paused in between.
"""

import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import pathlib
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from skinseg_jax.data import cache, preprocessing
from skinseg_jax.data.sources import ham10000_files, interface

# Steps in one call of 'host': an epoch of the paper's recipe.
EPOCH_STEPS = 250

# The warm-up ends at the first of these limits; slow steps need only one more
# step after the one that compiles.
_WARM_UP_STEPS, _WARM_UP_SECONDS = 10, 1.0
# Seconds between two waits for the device within a turn. The measured time is
# exact to about this interval, and a GPU idles for a thousandth of it.
_WAIT_EVERY = 0.1
# Batches that any loader may have ready after a pause.
_READ_AHEAD = 16


@dataclasses.dataclass(frozen=True)
class Case:
  """One line of the table.

  Attributes:
    framework: 'jax' or 'torch'.
    mode: A mode of benchmark.py, or 'matrix', a product of two square matrices.
    precision: 'float32' or 'bfloat16'; 'uint8' for 'input'.
    compiled: Whether a compiler is used: JAX, or torch.compile.
    width: Width of the U-Net; None for 'input' and 'matrix'.
    image_size: Height and width, or the size of a matrix.
    batch_size: Images per step; 1 for 'matrix'.
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
  """The images to use, the first `num_images`, and where their cache is."""

  raw_dir: pathlib.Path
  cache_dir: pathlib.Path
  num_images: int
  workers: int


@dataclasses.dataclass
class Work:
  """How to make a step.

  Attributes:
    draw: Returns the next batch.
    step: Processes a batch and returns a result to wait for. The step of
      'predict' waits itself, because its result is on the host.
    wait: Waits for a result of `draw` or `step`, and for all earlier ones.
    device: Name of the device.
    peak_memory: Returns the peak memory in bytes.
  """

  draw: Callable[[], Any]
  step: Callable[[Any], Any]
  wait: Callable[[Any], Any]
  device: str
  peak_memory: Callable[[], int]


class RawSource:
  """The first images of a folder of raw files; see `sources.Source`."""

  name = 'benchmark'

  def __init__(self, raw_dir: pathlib.Path, num_images: int):
    self._raw = ham10000_files.list_files(ham10000_files.find(raw_dir))
    self.image_ids = sorted(self._raw.images)[:num_images]
    self.metadata = [self._raw.rows[name] for name in self.image_ids]
    self.fingerprint = ham10000_files.digest(
      [name, self._raw.images[name].size] for name in self.image_ids
    )

  def __len__(self) -> int:
    return len(self.image_ids)

  def __getitem__(self, index: int) -> interface.Example:
    name = self.image_ids[index]
    image, mask = self._raw.images[name], self._raw.masks[name]
    return {
      'image_id': name,
      'image': preprocessing.decode_image(image.read(), name),
      'mask': preprocessing.decode_mask(mask.read(), name),
    }


def open_data(data: Data, image_size: int) -> cache.CachedData:
  """Opens the cache of the images at a size; builds it if it is missing."""
  source = RawSource(data.raw_dir, data.num_images)
  return cache.open_cache(source, (image_size, image_size), data.cache_dir)


def serve(case: Case, data: Data, connection: Connection) -> None:
  """Sets a case up, then measures it whenever asked.

  First sends `{'compile_seconds', 'device'}`. For each number of seconds that
  it receives, sends a list of seconds per step. For None, sends the peak memory
  in bytes and ends. On an error, sends the traceback, a string, instead.
  """
  os.setsid()  # One group with its workers: paused and continued together.
  # Workers start by the default method, not by that of this process.
  multiprocessing.set_start_method(None, force=True)
  if case.mode in ('input', 'end_to_end'):
    # Set before torch is imported; see torch_reference. In other modes no
    # loader workers need the cores, so PyTorch's default stays.
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
  try:
    # Imported here, so that only one of the two frameworks is loaded.
    framework = importlib.import_module(f'benchmarks.{case.framework}_side')
    work = framework.set_up(case, data)
    began = time.perf_counter()
    work.wait(work.step(work.draw()))
    first = time.perf_counter() - began
    step_seconds = warm_up(work)
    compile_seconds = max(0.0, first - step_seconds)
    connection.send({'compile_seconds': compile_seconds, 'device': work.device})
    while (seconds := connection.recv()) is not None:
      times = measure(
        work,
        seconds,
        step_seconds=step_seconds,
        read_ahead=max(_READ_AHEAD, 2 * data.workers),
        each=case.mode == 'predict',
      )
      steps = EPOCH_STEPS if case.mode == 'host' else 1
      connection.send([t / steps for t in times])
    connection.send(work.peak_memory())
  # A framework can raise anything, for example if memory runs out. The
  # reference raises SystemExit if the files do not fit.
  except (Exception, SystemExit):
    connection.send(traceback.format_exc())


def warm_up(work: Work) -> float:
  """Makes steps until their time is stable; returns the mean in seconds."""
  began, steps, seconds = time.perf_counter(), 0, 0.0
  while steps < _WARM_UP_STEPS and seconds < _WARM_UP_SECONDS:
    work.wait(work.step(work.draw()))
    steps += 1
    seconds = time.perf_counter() - began
  return seconds / steps


def measure(
  work: Work,
  seconds: float,
  *,
  step_seconds: float,
  read_ahead: int,
  each: bool,
) -> list[float]:
  """Makes steps until time is up, at least one.

  Args:
    work: What to measure.
    seconds: How long to measure.
    step_seconds: Approximate time of a step.
    read_ahead: Number of batches that a loader may have read during the pause.
      They are drawn first and discarded.
    each: Whether steps wait for their own result.

  Returns:
    Seconds of each step if steps wait for their own result; else a list with
    their mean.
  """
  for _ in range(read_ahead):
    batch = work.draw()
  work.wait(batch)
  wait_every = max(1, round(_WAIT_EVERY / step_seconds))
  times = [time.perf_counter()]
  while len(times) == 1 or times[-1] < times[0] + seconds:
    result = work.step(work.draw())
    if len(times) % wait_every == 0:
      work.wait(result)
    times.append(time.perf_counter())
  if each:
    return np.diff(times).tolist()
  work.wait(result)
  return [(time.perf_counter() - times[0]) / (len(times) - 1)]


class Process:
  """A case in its own process, which is paused unless it is measured."""

  def __init__(self, case: Case, data: Data):
    context = multiprocessing.get_context('spawn')
    self.case = case
    self.seconds_per_step: list[list[float]] = []
    self._connection, theirs = context.Pipe()
    self._process = context.Process(target=serve, args=(case, data, theirs))
    self._process.start()
    theirs.close()
    try:
      self.ready = self._receive()
    except BaseException:
      self.kill()
      raise
    self._signal(signal.SIGSTOP)

  def measure(self, seconds: float) -> None:
    """Continues the process, measures for about `seconds`, pauses it again."""
    self.seconds_per_step.append(self._ask(seconds))
    self._signal(signal.SIGSTOP)

  def finish(self) -> int:
    """Returns the peak memory in bytes. Afterwards only `kill` may be called.

    The caller kills the process because a framework takes seconds to exit.
    """
    return self._ask(None)

  def kill(self) -> None:
    """Kills the process and its workers in any state."""
    self._signal(signal.SIGKILL)
    self._process.kill()
    self._process.join()

  def _signal(self, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # It may have ended already.
      os.killpg(self._process.pid, number)

  def _ask(self, question: float | None) -> Any:
    self._signal(signal.SIGCONT)
    with contextlib.suppress(OSError):  # `_receive` then reports the error.
      self._connection.send(question)
    return self._receive()

  def _receive(self) -> Any:
    try:
      answer = self._connection.recv()
    except (EOFError, OSError):
      answer = 'the process ended, perhaps because memory ran out'
    if isinstance(answer, str):
      raise RuntimeError(f'{self.case}: {answer}')
    return answer


def run_group(
  group: Sequence[Case],
  data: Data,
  *,
  repetitions: int,
  seconds: float,
) -> list[tuple[dict[str, Any], np.ndarray, str]]:
  """Measures the cases of a group; they take turns.

  Returns:
    For each case its row of the table, the images per second of each turn, and
    the device.
  """
  with contextlib.ExitStack() as stack:
    processes = []
    for case in group:
      processes.append(Process(case, data))
      stack.callback(processes[-1].kill)
    for _ in range(repetitions):
      for process in processes:
        process.measure(seconds)
    return [_result(process) for process in processes]


def _result(process: Process) -> tuple[dict[str, Any], np.ndarray, str]:
  case = process.case
  turns = [case.batch_size / np.array(t) for t in process.seconds_per_step]
  p10, median, p90 = np.percentile(np.concatenate(turns), [10, 50, 90])
  row = {
    'framework': case.framework,
    'mode': case.mode,
    'precision': case.precision,
    'compiled': case.compiled,
    'width': case.width,
    'image_size': case.image_size,
    'batch_size': case.batch_size,
    'images_per_second': median,
    'p10': p10,
    'p90': p90,
    'compile_seconds': process.ready['compile_seconds'],
    'peak_memory_bytes': process.finish(),
  }
  medians = np.array([np.median(turn) for turn in turns])
  return row, medians, process.ready['device']


def resident_peak() -> int:
  """Peak memory of this process in bytes."""
  status = pathlib.Path('/proc/self/status')
  if status.exists():
    # `ru_maxrss` would include the memory of the parent at the start.
    found = re.search(r'VmHWM:\s*(\d+) kB', status.read_text())
    if found:
      return 1024 * int(found[1])
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else 1024 * peak


def matrices(size: int) -> np.ndarray:
  """Two square matrices, float32 [2, size, size]."""
  # Random values: with constants a chip may use less power and run faster.
  rng = np.random.default_rng(0)
  return rng.standard_normal((2, size, size), np.float32)


def noise(case: Case) -> np.ndarray:
  """A batch of images, uint8 [B, H, W, 3]."""
  shape = (case.batch_size, case.image_size, case.image_size, 3)
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
