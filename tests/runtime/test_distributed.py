"""Training and scores do not depend on the number of devices and processes."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import pytest

from skinseg_jax import config as config_lib
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import distributed, errors

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('10.0.0.1:1', None, 0), 'do not go together.*give all three'),
    (('', 2, 0), 'do not go together'),
    (('auto', 2, 0), 'do not go together'),
    (('10.0.0.1', 2, 0), 'allowed is HOST:PORT'),
    (('10.0.0.1:1', 2, 2), '--process_id 2 of.*allowed is 0 to 1'),
    (('10.0.0.1:1', 0, 0), 'allowed is 0 to 0'),
  ],
)
def test_flags_that_do_not_fit(arguments, message):
  with (
    pytest.raises(errors.InputError, match=message),
    distributed.joined(*arguments),
  ):
    pass


# As srun, mpirun, a JobSet and a TPU pod set them.
_SLURM = {
  'SLURM_JOB_ID': '7',
  'SLURM_STEP_NODELIST': 'node[1-2]',
  'SLURM_NTASKS': '8',
  'SLURM_PROCID': '3',
  'SLURM_LOCALID': '3',
  'SLURM_STEP_TASKS_PER_NODE': '4(x2)',
  'SLURM_GPUS_ON_NODE': '4',
}
_MPI = {
  'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1:34911',
  'OMPI_COMM_WORLD_SIZE': '2',
}
_POD = {'KUBERNETES_SERVICE_HOST': '10.0.0.1', 'JOB_COMPLETION_INDEX': '0'}


@pytest.fixture
def initialised(monkeypatch):
  """Arguments of `jax.distributed.initialize`, which then fails."""
  calls = []

  def initialize(**arguments):
    calls.append(arguments)
    raise RuntimeError('nobody there')

  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  return calls


def _join(monkeypatch, environment, coordinator=''):
  for name in {**_SLURM, **_MPI, **_POD}:
    monkeypatch.delenv(name, raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  with distributed.joined(coordinator, None, None):
    pass


@pytest.mark.parametrize(
  'environment', [_SLURM, _MPI, {'TPU_WORKER_HOSTNAMES': 'a,b'}]
)
def test_clusters_are_recognised(monkeypatch, initialised, environment):
  with pytest.raises(
    errors.InputError, match='could not connect: nobody there'
  ):
    _join(monkeypatch, environment)
  assert initialised == [{}]  # JAX detects the rest.


@pytest.mark.parametrize(
  'environment',
  [
    {},
    {**_SLURM, 'SLURM_NTASKS': '1'},
    {**_MPI, 'OMPI_COMM_WORLD_SIZE': '1'},
    {'TPU_WORKER_HOSTNAMES': 'localhost'},
    {'KUBERNETES_SERVICE_HOST': '10.0.0.1'},
  ],
)
def test_one_process_alone_joins_nobody(monkeypatch, initialised, environment):
  _join(monkeypatch, environment)
  assert not initialised


def test_kubernetes_without_its_package_is_said(
  monkeypatch, initialised, capsys
):
  monkeypatch.setattr(distributed.importlib.util, 'find_spec', lambda _: None)
  _join(monkeypatch, _POD)
  assert not initialised
  assert 'pip install "jax[k8s]"' in capsys.readouterr().err


def test_gpus_that_no_slurm_task_would_use_are_refused(
  monkeypatch, initialised
):
  tasks = {**_SLURM, 'SLURM_NTASKS': '2', 'SLURM_STEP_TASKS_PER_NODE': '1(x2)'}
  with pytest.raises(errors.InputError, match='srun --ntasks-per-node=4'):
    _join(monkeypatch, tasks)
  monkeypatch.setenv('JAX_LOCAL_DEVICE_IDS', '0,1,2,3')
  with pytest.raises(errors.InputError, match='could not connect'):
    _join(monkeypatch, tasks)


def test_auto_asks_jax(monkeypatch, initialised):
  with pytest.raises(errors.InputError, match='could not connect'):
    _join(monkeypatch, {}, coordinator='auto')
  assert initialised == [{}]


def test_others_must_see_the_run_of_process_0(
  tiny_run, tiny_config, tmp_path, monkeypatch
):
  workdir, _ = tiny_run
  config = config_lib.from_dict(config_lib.to_dict(tiny_config))
  recorded = json.loads((workdir / 'environment.json').read_text())

  class Source:
    name = 'synthetic'
    fingerprint = recorded['data_fingerprint']

  monkeypatch.setattr(distributed, 'is_primary', lambda: False)
  before = sorted(workdir.iterdir())
  run_folder.begin(workdir, config, Source(), None)
  assert sorted(workdir.iterdir()) == before  # Nothing was written.
  with pytest.raises(errors.InputError, match='that all processes share'):
    run_folder.begin(tmp_path, config, Source(), None)
  config.train.log_every_steps = 1
  with pytest.raises(errors.InputError, match='train.log_every_steps: 3 in'):
    run_folder.begin(workdir, config, Source(), None)
  config.train.log_every_steps = 3
  Source.fingerprint = 'another'
  with pytest.raises(errors.InputError, match='not what'):
    run_folder.begin(workdir, config, Source(), None)


_FLAGS = (
  '--config.data.image_size=(32,32)',
  '--config.data.num_synthetic=28',
  '--config.data.validation_fraction=0.25',
  '--config.model.width=2',
  '--config.train.batch_size=8',
  '--config.evaluation.batch_size=4',
)


def _command(program, tmp_path, *flags):
  return [
    sys.executable,
    *program,
    f'--config={_ROOT}/configs/quickstart.py',
    f'--workdir={tmp_path / "run"}',
    f'--config.data.data_dir={tmp_path / "data"}',
    *_FLAGS,
    *flags,
  ]


def test_topologies_agree_to_rounding_and_share_checkpoints(tmp_path):
  """Losses in float64, counts of 7 images, each checkpoint on each topology.

  If statistics used only the two images of each device, losses would differ by
  1e-2.
  """
  done = subprocess.run(
    _command(
      [_ROOT / 'scripts' / 'checks' / 'topologies.py'],
      tmp_path,
      '--topologies=1,2x2',
      '--precisions=float64',
      '--steps=4',
    ),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  lines = [n for n in done.stdout.splitlines() if n.startswith('float64')]
  assert len(lines) == 2
  assert all('counts of 7 images equal' in line for line in lines)
  assert all('checkpoints of all topologies restored' in line for line in lines)


def _processes(tmp_path, number, *flags):
  """Runs `number` processes; returns exit code, stdout, stderr of each."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  started = [
    subprocess.Popen(
      _command(
        ['-m', 'skinseg_jax.main'],
        tmp_path,
        f'--coordinator=127.0.0.1:{port}',
        f'--num_processes={number}',
        f'--process_id={index}',
        *flags,
      ),
      cwd=_ROOT,
      env={**os.environ, 'JAX_NUM_CPU_DEVICES': '2'},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(number)
  ]
  outputs = [process.communicate() for process in started]
  return [
    (process.returncode, *output)
    for process, output in zip(started, outputs, strict=True)
  ]


def test_a_fault_of_the_data_ends_all_processes(tmp_path):
  ends = _processes(tmp_path, 2, '--config.data.split=nowhere/split.csv')
  for code, _, err in ends:
    assert code == 2
    assert 'Traceback' not in err
    assert 'nowhere/split.csv' in err


@pytest.mark.slow
def test_two_processes_train_one_run(tmp_path):
  (first, out, _), (second, nothing, err) = _processes(
    tmp_path, 2, '--config.train.epochs=1'
  )
  assert (first, second) == (0, 0), err
  assert 'epoch 1: loss' in out
  # Gloo, which connects processes on CPUs, prints its own lines there; its
  # threads may mix them up.
  assert not re.search('epoch|loss|image|Traceback|Error|Warning', nothing), (
    nothing
  )
  run = tmp_path / 'run'
  environment = json.loads((run / 'environment.json').read_text())
  assert environment['num_processes'] == 2
  assert environment['num_devices'] == 4
  summary = json.loads((run / 'evaluation/validation/summary.json').read_text())
  assert summary['num_images'] == 7
  assert not list(run.rglob('*.tmp'))
