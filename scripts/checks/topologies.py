"""Trains and scores the same model on several sets of devices, and compares.

python scripts/checks/topologies.py --config configs/ham10000_small.py

Simulates devices and processes on the CPU: '4' is one process with 4 devices,
'2x2' is two processes with 2 devices each. Every topology makes the same
updates and saves a checkpoint. Then every topology restores the checkpoints of
all topologies and scores the validation images with the first checkpoint. The
exit code is 1 if a difference is too large to be rounding.
"""

import functools
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any

import jax
import numpy as np
from absl import flags, logging

from skinseg_jax import config as config_lib
from skinseg_jax import main
from skinseg_jax.data import cache, input_pipeline, splits
from skinseg_jax.data.sources import catalog
from skinseg_jax.evaluation import scoring
from skinseg_jax.run import checkpointing
from skinseg_jax.runtime import distributed, errors
from skinseg_jax.training import train_state, train_step

_TOPOLOGIES = flags.DEFINE_list(
  'topologies',
  ['1', '2', '4', '8', '2x2'],
  'Number of devices, or processes x devices.',
)
_PRECISIONS = flags.DEFINE_list(
  'precisions',
  ['float32', 'float64'],
  'Precisions of weights, statistics and losses.',
)
_STEPS = flags.DEFINE_integer('steps', 20, 'Updates to make.')
_TASK = flags.DEFINE_string(
  'task', '', 'Internal: task of a process that this script starts.'
)

# Largest difference of a loss, relative to the loss on the first topology.
_LIMITS = {'float32': 1e-4, 'float64': 1e-9}


def run(argv: list[str]) -> None:
  """Runs the task of one process, or starts all processes and compares."""
  config, workdir = main.parse(argv)
  logging.set_verbosity(logging.ERROR)
  if not _TASK.value:
    _compare_all(argv, workdir)
    return
  task, precision, topology = _TASK.value.split()
  values = flags.FLAGS
  with distributed.joined(
    values.coordinator, values.num_processes, values.process_id
  ):
    config.model.compute_dtype = precision
    job = _Job(config, workdir / precision)
    result = job.train(topology) if task == 'train' else job.restore()
    if distributed.is_primary():
      path = workdir / precision / topology / f'{task}.json'
      path.write_text(json.dumps(result), encoding='utf-8')


class _Job:
  """Data, model and devices of one process."""

  def __init__(self, config: config_lib.Config, workdir: pathlib.Path):
    self._config, self._workdir = config, workdir
    source = catalog.open_source(config.data)
    self._split = splits.make_split(config.data, source.metadata)
    self._data = cache.open_cache(
      source, config.data.image_size, pathlib.Path(config.data.data_dir)
    )
    self._sharding = input_pipeline.data_sharding()
    self._static = train_state.create(config, self._sharding, num_updates=1)

  def train(self, topology: str) -> dict[str, Any]:
    """Trains and saves; returns all losses and the hash of the state."""
    batches = iter(
      input_pipeline.training_batches(
        self._data,
        input_pipeline.select(self._data, self._split.train),
        batch_size=self._config.train.batch_size,
        seed=self._config.train.seed,
        sharding=self._sharding,
      )
    )
    state, losses = self._state(), []
    for _ in range(_STEPS.value):
      state, metrics = train_step.train_step(
        self._static.graphdef, state, next(batches), config=self._config
      )
      losses.append(float(metrics['loss']))
    checkpoints = self._checkpoints(topology)
    checkpoints.save(
      _STEPS.value,
      checkpointing.Checkpoint(
        state[0], state[1], batches.get_state(), {'steps': _STEPS.value}
      ),
      None,
    )
    checkpoints.close()
    batches.close()
    return {'losses': losses, 'hash': _hash(state)}

  def restore(self) -> dict[str, Any]:
    """Returns the hashes of all checkpoints and the counts of the first one."""
    hashes, counts = {}, None
    for topology in _TOPOLOGIES.value:
      checkpoints = self._checkpoints(topology)
      state = self._state()
      _, found = checkpoints.restore_latest(
        checkpointing.Checkpoint(state[0], state[1], None, None)
      )
      checkpoints.close()
      hashes[topology] = _hash((found.model, found.optimizer))
      counts = counts or self._count(found.model)
    return {'hashes': hashes, 'counts': counts}

  def _count(self, model_state: Any) -> dict[str, list[int]]:
    """Counts of all validation images, in order."""
    scored = scoring.score(
      self._static.eval_graphdef,
      model_state,
      input_pipeline.evaluation_batches(
        self._data,
        input_pipeline.select(self._data, self._split.validation),
        batch_size=self._config.evaluation.batch_size,
        sharding=self._sharding,
      ),
      threshold=self._config.evaluation.threshold,
      views='off',
    )
    return {name: scored[name].tolist() for name in ('tp', 'fp', 'fn', 'tn')}

  def _state(self) -> Any:
    """A copy of the state of step 0, in the precision of the config."""
    precision = self._config.model.compute_dtype

    def cast(leaf):
      is_float = leaf.dtype == np.float32
      # Copied, because a training step reuses its input buffers.
      return leaf.astype(precision if is_float else leaf.dtype, copy=True)

    return jax.tree.map(cast, self._static.state)

  def _checkpoints(self, topology: str) -> checkpointing.Checkpoints:
    return checkpointing.Checkpoints(self._workdir / topology / 'checkpoints')


def _hash(state: Any) -> str:
  """SHA-256 of all arrays, in hexadecimal."""
  sha256 = hashlib.sha256()
  for leaf in jax.tree.leaves(state):
    sha256.update(np.asarray(leaf).tobytes())
  return sha256.hexdigest()


def _compare_all(argv: list[str], workdir: pathlib.Path) -> None:
  """Runs every task on every topology, then prints the differences."""
  failed = False
  for precision in _PRECISIONS.value:
    for task in ('train', 'restore'):
      for topology in _TOPOLOGIES.value:
        (workdir / precision / topology).mkdir(parents=True, exist_ok=True)
        _start([*argv, f'--workdir={workdir}'], task, precision, topology)
    failed |= not _compare(workdir / precision, _LIMITS[precision])
  sys.exit(failed)


def _start(argv: list[str], task: str, precision: str, topology: str) -> None:
  """Runs the processes of one topology to their end."""
  *processes, devices = topology.split('x')
  number = int(processes[0]) if processes else 1
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'JAX_NUM_CPU_DEVICES': devices,
    'JAX_ENABLE_X64': str(int(precision == 'float64')),
  }
  command = [sys.executable, *argv, f'--task={task} {precision} {topology}']
  if number > 1:
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      address = f'127.0.0.1:{free.getsockname()[1]}'
    command += [f'--coordinator={address}', f'--num_processes={number}']
  started = [
    subprocess.Popen(
      [*command, f'--process_id={index}'] if number > 1 else command,
      env=environment,
    )
    for index in range(number)
  ]
  if any([process.wait() for process in started]):
    raise errors.InputError(f'{task} on {topology} in {precision} failed.')


def _compare(directory: pathlib.Path, limit: float) -> bool:
  """Prints a line per topology; returns whether all agree with the first."""
  read = functools.cache(
    lambda topology, task: json.loads(
      (directory / topology / f'{task}.json').read_text('utf-8')
    )
  )
  topologies = _TOPOLOGIES.value
  first, good = topologies[0], True
  saved = {name: read(name, 'train')['hash'] for name in topologies}
  for name in topologies:
    losses, expected = (
      np.array(read(n, 'train')['losses']) for n in (name, first)
    )
    worst = float(np.max(np.abs(losses / expected - 1)))
    restored = read(name, 'restore')['hashes'] == saved
    counts = read(name, 'restore')['counts']
    same = counts == read(first, 'restore')['counts']
    good &= worst <= limit and restored and same
    print(
      f'{directory.name} {name:>4}: losses of {len(losses)} updates within'
      f' {worst:.1e} of those on {first}; counts of {len(counts["tp"])} images'
      f' {"equal" if same else "DIFFER"}; checkpoints of all topologies'
      f' {"restored" if restored else "NOT RESTORED"}',
      flush=True,
    )
  return good


if __name__ == '__main__':
  errors.exit_with_message(run, sys.argv)
