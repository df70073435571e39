"""Our side of scripts/benchmark.py."""

import functools
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import benchmark_cases as cases
import numpy as np

# Before jax is imported: what is in use is measured, not what is set aside.
os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'

import jax
import jax.numpy as jnp

from skinseg_jax import (
  compilation,
  metric_writer,
  progress,
  scoring,
  train_state,
  train_step,
)
from skinseg_jax import config as config_lib
from skinseg_jax.data import input_pipeline


def set_up(case: cases.Case, data: cases.Data) -> cases.Work:
  """Makes what a case needs; nothing is compiled yet."""
  device = jax.local_devices()[0]
  on_gpu = device.platform == 'gpu'
  if on_gpu:  # What PyTorch is given too.
    jax.config.update('jax_default_matmul_precision', 'tensorfloat32')
  step, last = _SET_UPS[case.mode](case, data), []

  def keep():
    last[:] = [step()]

  return cases.Work(
    keep,
    lambda: jax.block_until_ready(last),
    device.device_kind,
    lambda: (
      device.memory_stats()['peak_bytes_in_use']
      if on_gpu
      else cases.resident_peak()
    ),
  )


def _matrix(case: cases.Case, _: cases.Data) -> Callable[[], Any]:
  a, b = (
    jnp.asarray(m, case.precision) for m in cases.matrices(case.image_size)
  )
  product = jax.jit(jnp.dot)
  return lambda: product(a, b)


def _input(case: cases.Case, data: cases.Data) -> Callable[[], Any]:
  return functools.partial(next, _batches(case, data))


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


def _predict(case: cases.Case, _: cases.Data) -> Callable[[], Any]:
  static = train_state.create(
    _config(case), input_pipeline.data_sharding(), num_updates=1
  )
  images = cases.noise(case)

  def step():
    logits = scoring.forward(
      static.eval_graphdef, static.state[0], images, views='off'
    )
    return np.asarray(scoring.probabilities(logits))

  return step


def _compute(case: cases.Case, data: cases.Data) -> Callable[[], Any]:
  batches = _batches(case, data)
  only = next(batches)
  batches.close()
  return _training(case, lambda: only)


def _end_to_end(case: cases.Case, data: cases.Data) -> Callable[[], Any]:
  return _training(case, functools.partial(next, _batches(case, data)))


def _training(
  case: cases.Case, following: Callable[[], Any]
) -> Callable[[], Any]:
  config = _config(case)
  static = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  )
  state = [static.state]

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

  return step


def _host(case: cases.Case, data: cases.Data) -> Callable[[], Any]:
  """What the training loop does, but for the step's work on the device."""
  config = _config(case)
  static = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  )
  batches, state, pending = _batches(case, data), [static.state], []
  folder = tempfile.mkdtemp(dir=data.cache_dir)
  writer = metric_writer.MetricWriter(pathlib.Path(folder))

  @functools.partial(jax.jit, donate_argnames='state')
  def idle(graphdef, state, batch):
    del graphdef, batch
    return state, {
      'loss': jnp.float32(0),
      **{name: jnp.int32(1) for name in ('tp', 'fp', 'fn', 'tn')},
    }

  compiled = idle.lower(static.graphdef, state[0], next(batches)).compile()

  def step():
    state[0], step_metrics = compiled(static.graphdef, state[0], next(batches))
    pending.append(step_metrics)
    if len(pending) == config.train.log_every_steps:
      totals = progress.Totals()
      for step_metrics in jax.device_get(pending):
        totals.add(step_metrics)
      scores = totals.scores()
      writer.write(
        1, {f'train/{name}': value for name, value in scores.items()}
      )
      pending.clear()
    return step_metrics

  return step


_SET_UPS = {
  'matrix': _matrix,
  'input': _input,
  'compute': _compute,
  'end_to_end': _end_to_end,
  'predict': _predict,
  'host': _host,
}
