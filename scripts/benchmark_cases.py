"""What scripts/benchmark.py measures, each case in a process of its own.

A case is set up and warmed up once; after that it is measured whenever the
other side of a pipe asks for it, and stands still in between.
"""

import dataclasses
import functools
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

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, preprocessing, raw_files, sources

_WARM_UP_STEPS, _WARM_UP_SECONDS = 10, 3.0
_READ_AHEAD = 16
# So often the images are given to a DataLoader, lest one of its epochs, with
# the pause that follows it, be shorter than a real one.
_REPEATS = 100


@dataclasses.dataclass(frozen=True)
class Case:
  """One line of the table.

  Attributes:
    framework: 'jax' or 'torch'.
    mode: 'input', 'compute', 'end_to_end', 'predict', or 'matrix', a product
      of two square matrices.
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
    work = _SET_UPS[case.framework](case, data)
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
  if case.mode == 'input':
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


def _resident_peak() -> int:
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else 1024 * peak


def _jax(case: Case, data: Data) -> Work:
  os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
  import jax
  import jax.numpy as jnp
  from flax import nnx

  from skinseg_jax import compilation, train_state, train_step
  from skinseg_jax.data import input_pipeline

  device = jax.local_devices()[0]
  on_gpu = device.platform == 'gpu'
  if on_gpu:  # What PyTorch is given too.
    jax.config.update('jax_default_matmul_precision', 'tensorfloat32')
  results = []  # Of the last step.

  def make(step):
    def keep():
      results[:] = [step()]

    return Work(
      keep,
      lambda: jax.block_until_ready(results),
      device.device_kind,
      lambda: (
        device.memory_stats()['peak_bytes_in_use']
        if on_gpu
        else _resident_peak()
      ),
    )

  if case.mode == 'matrix':
    a = jnp.ones((case.image_size, case.image_size), case.precision)
    product = jax.jit(jnp.dot)
    return make(lambda: product(a, a))

  sharding = input_pipeline.data_sharding()
  if case.mode != 'predict':
    cached = open_data(data, case.image_size)
    batches = iter(
      input_pipeline.training_batches(
        cached,
        np.arange(len(cached.image_ids)),
        batch_size=case.batch_size,
        seed=0,
        sharding=sharding,
      )
    )
    if case.mode == 'input':
      return make(lambda: next(batches))

  config = config_lib.Config()
  config.data.image_size = (case.image_size, case.image_size)
  config.model.width = case.width
  config.model.compute_dtype = case.precision
  config.train.batch_size = case.batch_size
  static = train_state.create(config, sharding, num_updates=1)
  if case.mode == 'predict':
    images = _noise(case)

    @jax.jit
    def predict(model_state, images):
      model = nnx.merge(static.eval_graphdef, model_state)
      return jax.nn.sigmoid(model(images.astype(jnp.float32) / 255))

    return make(lambda: np.asarray(predict(static.state[0], images)))

  state = [static.state]
  if case.mode == 'compute':
    only = next(batches)
    batches.close()
    following = lambda: only
  else:
    following = functools.partial(next, batches)

  @functools.cache  # Within the first step, whose time counts as compilation.
  def compiled():
    return compilation.compile_step(
      train_step.train_step,
      static.graphdef,
      state[0],
      following(),
      xla_options=config.train.xla_options,
      config=config,
    )

  def step():
    state[0], step_metrics = compiled()(static.graphdef, state[0], following())
    return step_metrics

  return make(step)


def _torch(case: Case, data: Data) -> Work:
  import torch_reference as reference  # Before torch, whose threads it sets.
  import torch  # isort: skip

  on_gpu = torch.cuda.is_available()
  device = torch.device('cuda' if on_gpu else 'cpu')
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')  # TF32, as in convolutions.
  name = torch.cuda.get_device_name() if on_gpu else 'cpu'

  def make(step):
    return Work(
      step,
      torch.cuda.synchronize if on_gpu else lambda: None,
      name,
      torch.cuda.max_memory_allocated if on_gpu else _resident_peak,
    )

  if case.mode == 'matrix':
    n, dtype = case.image_size, getattr(torch, case.precision)
    a = torch.ones((n, n), dtype=dtype, device=device)
    return make(lambda: a @ a)

  def forever():
    examples = reference.list_examples(data.raw_dir)[: data.num_images]
    size = (case.image_size, case.image_size)
    loader = reference.make_loader(
      reference.SkinLesionDataset(examples * _REPEATS, size, augment=True),
      batch_size=case.batch_size,
      training=True,
      workers=data.workers,
    )
    while True:
      for batch in loader:
        yield reference.to_device(batch, device)

  if case.mode == 'input':
    batches = forever()
    return make(lambda: next(batches))

  model = reference.make_model(case.width, device)
  run = torch.compile(model) if case.compiled else model
  if case.mode == 'predict':
    model.eval()
    images = torch.from_numpy(_noise(case))
    masks = torch.zeros(images.shape[:3], dtype=torch.uint8)

    @torch.inference_mode()
    def predict():
      with reference.autocast(device, case.precision):
        logits = run(reference.to_device((images, masks[:, :1]), device)[0])
      return torch.sigmoid(logits.float()).cpu().numpy()

    return make(predict)

  optimizer = reference.make_optimizer(model, 1e-3)
  batches = forever()
  if case.mode == 'compute':
    only = next(batches)
    batches.close()
    following = lambda: only
  else:
    following = functools.partial(next, batches)
  return make(
    lambda: reference.train_step(
      run, optimizer, *following(), precision=case.precision
    )
  )


_SET_UPS = {'jax': _jax, 'torch': _torch}


def _noise(case: Case) -> np.ndarray:
  shape = (case.batch_size, case.image_size, case.image_size, 3)
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
