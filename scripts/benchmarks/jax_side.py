"""The JAX side of scripts/benchmark.py."""

import functools
import itertools
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from benchmarks import cases

# Set before jax is imported. Without preallocation, the peak memory is what is
# in use.
os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.data import input_pipeline, splits
from skinseg_jax.inference import forward_pass
from skinseg_jax.models import build
from skinseg_jax.runtime import compilation, stop_signals
from skinseg_jax.training import progress, train_state, train_step, trainer

# How to get a batch, and what to do with it.
_DrawAndStep = tuple[Callable[[], Any], Callable[[Any], Any]]


def set_up(case: cases.Case, data: cases.Data) -> cases.Work:
  """Creates everything that a case needs; compiles nothing yet."""
  device = jax.local_devices()[0]
  on_gpu = device.platform == 'gpu'
  if on_gpu:  # PyTorch uses TF32 as well.
    jax.config.update('jax_default_matmul_precision', 'tensorfloat32')
  return cases.Work(
    *_SET_UPS[case.mode](case, data),
    jax.block_until_ready,
    device.device_kind,
    lambda: (
      device.memory_stats()['peak_bytes_in_use']
      if on_gpu
      else cases.resident_peak()
    ),
  )


def _matrix(case: cases.Case, _: cases.Data) -> _DrawAndStep:
  pair = [
    jnp.asarray(m, case.precision) for m in cases.matrices(case.image_size)
  ]
  # Compiled with the same options as the training step.
  product = compilation.jit(jnp.matmul, static_argnames='precision')
  return lambda: pair, lambda pair: product(*pair)


def _input(case: cases.Case, data: cases.Data) -> _DrawAndStep:
  return functools.partial(next, _batches(case, data)), lambda x: x


def _batches(case: cases.Case, data: cases.Data) -> Iterator[Any]:
  cached = cases.open_data(data, case.image_size)
  return iter(
    input_pipeline.training_batches(
      cached,
      np.arange(len(cached.image_ids)),
      batch_size=case.batch_size,
      seed=0,
      sharding=input_pipeline.data_sharding(),
    )
  )


def _config(case: cases.Case) -> config_lib.Config:
  config = config_lib.Config()
  config.data.image_size = (case.image_size, case.image_size)
  config.model.width = case.width
  config.model.compute_dtype = case.precision
  config.train.batch_size = case.batch_size
  return config


def _predict(case: cases.Case, _: cases.Data) -> _DrawAndStep:
  config = _config(case)
  # As when a checkpoint is loaded: without arrays for an optimiser.
  static = train_state.abstract(
    config, input_pipeline.data_sharding(), num_updates=1
  )
  model_state = jax.jit(lambda: nnx.state(build.create(config.model, seed=0)))()
  images = cases.noise(case)

  def step(images):
    logits = forward_pass.forward(
      static.eval_graphdef, model_state, images, views='off'
    )
    return np.asarray(forward_pass.probabilities(logits))

  return lambda: images, step


def _compute(case: cases.Case, data: cases.Data) -> _DrawAndStep:
  batches = _batches(case, data)
  only = next(batches)
  batches.close()
  return lambda: only, _training(case)


def _end_to_end(case: cases.Case, data: cases.Data) -> _DrawAndStep:
  return functools.partial(next, _batches(case, data)), _training(case)


def _training(case: cases.Case) -> Callable[[Any], Any]:
  config = _config(case)
  static = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  )
  state, program = static.state, None

  def step(batch):
    nonlocal state, program
    if program is None:  # The first step counts as compilation.
      program = compilation.compile_step(
        train_step.train_step,
        static.graphdef,
        state,
        batch,
        xla_options=config.train.xla_options,
        config=config,
      )
    state, step_metrics = program(static.graphdef, state, batch)
    return step_metrics

  return step


@functools.partial(jax.jit, static_argnames='config', donate_argnames='state')
def _idle_step(graphdef, state, batch, *, config):
  """Replaces `train_step.train_step`: changes nothing."""
  del graphdef, batch, config
  counts = {name: jnp.int32(1) for name in ('tp', 'fp', 'fn', 'tn')}
  return state, {'loss': jnp.float32(0), **counts, 'finite': jnp.bool_(True)}


class _Loop(trainer.Trainer):
  """The training loop without scoring and saving at the end of an epoch."""

  def _finish_epoch(self, epoch: int) -> None:
    self._progress.epoch = progress.Totals()


def _host(case: cases.Case, data: cases.Data) -> _DrawAndStep:
  """An epoch of the training loop, without the step's work on the device."""
  train_step.train_step = _idle_step  # This process needs no other step.
  config, cached = _config(case), cases.open_data(data, case.image_size)
  ids = itertools.islice(
    itertools.cycle(cached.image_ids), cases.EPOCH_STEPS * case.batch_size
  )
  workdir = pathlib.Path(tempfile.mkdtemp(dir=data.cache_dir))
  loop = _Loop(
    config,
    workdir,
    cached,
    splits.Split(train=list(ids), validation=cached.image_ids[:1]),
    {},
    stop_signals.StopSignals(),
  )
  return lambda: None, lambda _: loop.train_epoch()


_SET_UPS = {
  'matrix': _matrix,
  'input': _input,
  'compute': _compute,
  'end_to_end': _end_to_end,
  'predict': _predict,
  'host': _host,
}
