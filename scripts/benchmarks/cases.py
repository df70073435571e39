"""What scripts/benchmark.py measures, each case in a process of its own.

A case is set up and warmed up once; after that it is measured whenever the
other side of a pipe asks for it, and stands still in between.
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

# Steps of 'host', in one call: an epoch of the paper's.
EPOCH_STEPS = 250

# Slow steps are warm after the first and one more.
_WARM_UP_STEPS, _WARM_UP_SECONDS = 10, 1.0
# Within a turn the device is waited for about this often, in seconds: the clock
# is true to it, and a GPU idles for a thousandth of it.
_WAIT_EVERY = 0.1
# Batches that may lie ready after a pause, of any loader.
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
  """How to make a step.

  Attributes:
    draw: Gives the next batch.
    step: Works on a batch and gives what to wait for; that of 'predict' waits
      itself, for its result is on the host.
    wait: Waits for what `draw` or `step` gave, and for all before it.
    device: Its name.
    peak_memory: Gives the most bytes that were in use.
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
  # Workers start as they do in any program, not as this process did.
  multiprocessing.set_start_method(None, force=True)
  if case.mode in ('input', 'end_to_end'):
    # Before torch is imported; see torch_reference. Where no loader's workers
    # need the cores, PyTorch's threads wait as PyTorch has them wait.
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
  try:
    # Imported here, because neither framework may be loaded with the other.
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
  # Whatever a framework raises, such as a lack of memory; the reference ends by
  # SystemExit where the files do not suit it.
  except (Exception, SystemExit):
    connection.send(traceback.format_exc())


def warm_up(work: Work) -> float:
  """Makes steps until they take what they take; returns their mean seconds."""
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
  """Makes steps until time is up, one at least.

  Args:
    work: What to measure.
    seconds: How long.
    step_seconds: About how long a step takes.
    read_ahead: How many batches a loader may have read while this process stood
      still; they are drawn first and thrown away.
    each: Whether steps wait themselves.

  Returns:
    Seconds per step: of each where it waits itself, else their mean.
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
  """A case in its process, which stands still unless it is measured."""

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
    """Gives it the machine for about that long."""
    self.seconds_per_step.append(self._ask(seconds))
    self._signal(signal.SIGSTOP)

  def finish(self) -> int:
    """Returns the peak of its memory in bytes; then there is only `kill`.

    To end by itself takes a framework seconds.
    """
    return self._ask(None)

  def kill(self) -> None:
    """Ends it and its workers, wherever they are."""
    self._signal(signal.SIGKILL)
    self._process.kill()
    self._process.join()

  def _signal(self, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # It may be dead by now.
      os.killpg(self._process.pid, number)

  def _ask(self, question: float | None) -> Any:
    self._signal(signal.SIGCONT)
    with contextlib.suppress(OSError):  # Then there is no answer either.
      self._connection.send(question)
    return self._receive()

  def _receive(self) -> Any:
    try:
      answer = self._connection.recv()
    except (EOFError, OSError):
      answer = 'the process ended, perhaps for lack of memory'
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
  """Measures cases that are compared, in turn.

  Returns:
    For each the row of the table, images per second of each turn, and the
    device.
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
  """The most memory that this process has held, in bytes."""
  status = pathlib.Path('/proc/self/status')
  if status.exists():
    # `ru_maxrss` would begin with what the parent held when it started this.
    found = re.search(r'VmHWM:\s*(\d+) kB', status.read_text())
    if found:
      return 1024 * int(found[1])
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
