"""Coordinates several processes of one run: joining, ordering and failures.

The processes exchange messages through JAX's coordination service, not through
collectives on the devices: building a data set may take an hour, and
collectives time out sooner.
"""

import contextlib
import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import jax

# The service's keys and barriers have no public name.
from jax._src import distributed as jax_distributed

from skinseg_jax.runtime import errors

_T = TypeVar('_T')
# Always ask JAX itself, even where this module recognises no cluster.
AUTO = 'auto'
# Missing heartbeats reveal a dead process long before this timeout.
_PATIENCE_MS = 24 * 3600 * 1000
_stages = itertools.count()


@contextlib.contextmanager
def joined(
  coordinator: str, num_processes: int | None, process_id: int | None
) -> Iterator[None]:
  """Joins the other processes of the run, if any, and leaves at the end.

  Enter it before JAX touches a device. Only process 0 prints to stdout.

  Args:
    coordinator: 'HOST:PORT' where process 0 can be reached. With 'auto', JAX
      detects everything. With '', joins only if the environment describes a
      cluster.
    num_processes: Number of processes; with HOST:PORT only.
    process_id: 0 to `num_processes` - 1; with HOST:PORT only.

  Raises:
    InputError: If the arguments do not go together, or the processes cannot
      connect.
  """
  _check(coordinator, num_processes, process_id)
  if not coordinator and not _cluster(os.environ):
    yield
    return
  if coordinator in ('', AUTO):
    _initialize()
  else:
    _initialize(
      coordinator_address=coordinator,
      num_processes=num_processes,
      process_id=process_id,
      cluster_detection_method='deactivate',
    )
  with contextlib.ExitStack() as stack:
    if not is_primary():
      null = stack.enter_context(open(os.devnull, 'w', encoding='utf-8'))
      stack.enter_context(contextlib.redirect_stdout(null))
    try:
      yield
    except errors.StoppedError:  # All processes stopped at the same step.
      _leave()
      raise
  # Not reached after any other failure, which needs no waiting: the other
  # processes fail as well, or notice that this one is gone.
  _leave()


def _leave() -> None:
  _barrier('end')
  jax.distributed.shutdown()


def is_primary() -> bool:
  """Returns whether this is process 0, the only one that writes and prints."""
  return jax_distributed.global_state.process_id == 0


def process() -> tuple[int, int]:
  """Number of this process, from 0, and the number of all."""
  state = jax_distributed.global_state
  return state.process_id, state.num_processes


def primary_first(function: Callable[[], _T]) -> _T:
  """Calls `function` in process 0, then in all others at once.

  The others find the files that process 0 has prepared. All processes must
  make the same calls in the same order.

  Args:
    function: Its result may differ from process to process.

  Raises:
    InputError: In every process, if `function` raised it in any of them.
  """
  state = jax_distributed.global_state
  if state.num_processes == 1:
    return function()
  stage = f'skinseg_jax/{next(_stages)}'
  if not is_primary():
    _barrier(f'{stage}/primary')
  result = None
  if not _problems(stage):
    try:
      result = function()
    except errors.InputError as error:
      key = f'{stage}/problem/{state.process_id}'
      _client().key_value_set(key, str(error))
  if is_primary():
    _barrier(f'{stage}/primary')
  _barrier(f'{stage}/all')
  if problem := _problems(stage):
    raise errors.InputError('\n'.join(problem))
  return cast(_T, result)


def _problems(stage: str) -> list[str]:
  """Lists each error message once, with the processes that raised it."""
  entries = _client().key_value_dir_get(f'{stage}/problem/')
  by_message: dict[str, list[str]] = {}
  for key, message in sorted(entries):
    by_message.setdefault(message, []).append(key.rpartition('/')[2])
  return [
    f'{message} (process {", ".join(processes)})'
    for message, processes in by_message.items()
  ]


def _barrier(name: str) -> None:
  _client().wait_at_barrier(name, _PATIENCE_MS)


def _client() -> Any:
  """The connection to the coordination service of a joined run."""
  return jax_distributed.global_state.client


def _check(
  coordinator: str, num_processes: int | None, process_id: int | None
) -> None:
  """Rejects flags that do not go together."""
  explicit = coordinator not in ('', AUTO)
  if explicit != (num_processes is not None) or explicit != (
    process_id is not None
  ):
    raise errors.InputError(
      f'--coordinator {coordinator!r}, --num_processes {num_processes} and'
      f' --process_id {process_id} do not go together: give all three, such as'
      ' --coordinator 10.0.0.1:1234 --num_processes 2 --process_id 0, or'
      ' --coordinator auto alone.'
    )
  if num_processes is None or process_id is None:
    return
  if not re.fullmatch(r'.+:\d{1,5}', coordinator):
    raise errors.InputError(
      f'--coordinator {coordinator}: allowed is HOST:PORT, where all processes'
      ' can reach process 0, such as 10.0.0.1:1234.'
    )
  if num_processes < 1 or not 0 <= process_id < num_processes:
    raise errors.InputError(
      f'--process_id {process_id} of --num_processes {num_processes}: allowed'
      f' is 0 to {max(num_processes, 1) - 1}, each once.'
    )


def _cluster(environ: Mapping[str, str]) -> str:
  """Returns the cluster that started several processes, '' if there is none.

  Reads the variables that JAX's own detection uses (jax/_src/clusters) and
  those that hold the number of processes. A single process keeps all its
  devices and has nothing to join.
  """
  number = lambda name: int(environ.get(name, '1'))
  if 'SLURM_STEP_TASKS_PER_NODE' in environ and number('SLURM_NTASKS') > 1:
    _check_slurm(environ)
    return 'SLURM'
  if 'OMPI_MCA_orte_hnp_uri' in environ and number('OMPI_COMM_WORLD_SIZE') > 1:
    return 'Open MPI'
  tpu_hosts = environ.get('TPU_WORKER_HOSTNAMES', '')
  if ',' in tpu_hosts or 'MEGASCALE_COORDINATOR_ADDRESS' in environ:
    return 'TPU'
  if {'KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'} <= environ.keys():
    if importlib.util.find_spec('kubernetes'):
      return 'Kubernetes'
    print(
      'This process is part of an indexed Kubernetes job, but trains alone: to'
      ' join the others, pip install "jax[k8s]", or give --coordinator,'
      ' --num_processes and --process_id.',
      file=sys.stderr,
    )
  return ''


def _check_slurm(environ: Mapping[str, str]) -> None:
  """Rejects a job with unused GPUs: JAX gives each task only one."""
  # '4', or '4(x2),3' on several nodes.
  tasks = int(re.split(r'\D', environ['SLURM_STEP_TASKS_PER_NODE'])[0])
  gpus = int(environ.get('SLURM_GPUS_ON_NODE', '0'))
  if gpus > tasks and 'JAX_LOCAL_DEVICE_IDS' not in environ:
    raise errors.InputError(
      f'SLURM gave this node {gpus} GPUs and {tasks} tasks, and each task uses'
      f' one GPU; start one task per GPU: srun --ntasks-per-node={gpus}, or'
      ' name the GPUs: export JAX_LOCAL_DEVICE_IDS='
      + ','.join(map(str, range(gpus)))
    )


def _initialize(**arguments) -> None:
  try:
    jax.distributed.initialize(**arguments)
  except (RuntimeError, ValueError, OSError) as error:
    raise errors.InputError(
      f'the processes of this run could not connect: {error}\nGive every'
      ' process the same --coordinator HOST:PORT, where process 0 can be'
      ' reached and the port is free, the same --num_processes, and a different'
      ' --process_id.'
    ) from error
