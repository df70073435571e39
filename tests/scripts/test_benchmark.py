import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = pytest.mark.torch
pytest.importorskip('torch_models')
benchmark = pytest.importorskip('benchmark')
cases = pytest.importorskip('benchmarks.cases')
report_lib = pytest.importorskip('benchmarks.report')
floor = pytest.importorskip('benchmarks.unet_floor')

from skinseg_jax.runtime import errors  # noqa: E402

_TINY = [
  *['--widths', '1', '--image_sizes', '16', '--precisions', 'float32'],
  *['--no_compile', '--batch_size', '2', '--num_images', '4'],
  *['--repetitions', '2', '--seconds', '0.1'],
  *['--matrix_size', '64', '--workers', '1'],
]
_FIELDS = {
  'framework',
  'mode',
  'precision',
  'compiled',
  'width',
  'image_size',
  'batch_size',
  'images_per_second',
  'p10',
  'p90',
  'compile_seconds',
  'peak_memory_bytes',
}


def _row(framework, images_per_second, *, compiled):
  return {
    'framework': framework,
    'mode': 'compute',
    'precision': 'float32',
    'compiled': compiled,
    'width': 16,
    'image_size': 112,
    'batch_size': 4,
    'images_per_second': images_per_second,
    'p10': 1.0,
    'p90': 9.0,
    'compile_seconds': 2.0,
    'peak_memory_bytes': 3 * 10**9,
  }


def test_operations_of_the_papers_network():
  # 36.9 GMAC forward at 224 px and width 64; about 221 Gflop in training.
  assert floor.training_flops(64, 224) == pytest.approx(221e9, rel=0.01)


def test_operations_by_hand():
  # Width 1 at 16 px, multiply-adds: down, 9 * pixels * (in * out + out * out):
  # 256 * 9 * 4, 64 * 9 * 6, 16 * 9 * 24, 4 * 9 * 96, 1 * 9 * 384; up, with w
  # channels, pixels * (2 w w + 27 w w): 29 * (256 + 64 * 4 + 16 * 16 + 4 * 64);
  # head 256. Three times that, minus 256 * 9 * 3 of the first layer; times two.
  down = 9 * (256 * 4 + 64 * 6 + 16 * 24 + 4 * 96 + 384)
  macs = down + 29 * 4 * 256 + 256
  assert floor.training_flops(1, 16) == 2 * (3 * macs - 256 * 27)


def test_bytes_by_hand():
  # Two images of 16 px at width 1, four bytes per value. The first convolution
  # reads 256 * 3 values per image and writes 256, with 27 weights, for two
  # products; its norm makes five passes over 2 * 256 values.
  first, second, *_ = floor.layers(1, 16)
  expected = 4 * (2 * (2 * (768 + 256) + 27) + 5 * 512)
  assert first.training_bytes(2, 4) == expected
  # The second has three products of 256 values in and out, and 9 weights.
  expected = 4 * (3 * (2 * 512 + 9) + 5 * 512)
  assert second.training_bytes(2, 4) == expected


def test_time_is_of_the_tighter_bound():
  least = lambda flops, moved: floor.step_seconds(
    1,
    16,
    batch_size=2,
    bytes_per_value=4,
    flops_per_second=flops,
    bytes_per_second=moved,
  )
  assert least(1e3, 1e30) == pytest.approx(
    2 * floor.training_flops(1, 16) / 1e3
  )
  moved = sum(n.training_bytes(2, 4) for n in floor.layers(1, 16))
  assert least(1e30, 1e3) == pytest.approx(moved / 1e3)


def test_floor_has_the_weights_of_the_model():
  # 31,037,633 parameters, minus the scales and biases of 18 norms (2 * 5,888)
  # and the biases of transposed convolutions (960) and head (1).
  layers = floor.layers(64, 224)
  assert len(layers) == 18 + 4 + 1
  assert sum(layer.weights for layer in layers) == 31_037_633 - 11_776 - 961


def test_ratios_are_of_turns_taken_together():
  # Both are slower in the third turn; the ratio does not change.
  results = [
    (_row('jax', 20, compiled=True), np.array([20.0, 20, 10]), ''),
    (_row('torch', 10, compiled=False), np.array([10.0, 10, 5]), ''),
    (_row('torch', 16, compiled=True), np.array([16.0, 16, 8]), ''),
  ]
  eager, compiled = benchmark.ratios(results)
  assert (eager['ratio'], eager['p10'], eager['p90']) == (2, 2, 2)
  assert (compiled['ratio'], compiled['compiled']) == (1.25, True)


def test_table_shows_ratio_and_share_of_the_matrix_rate():
  rows = [
    _row('jax', 20.0, compiled=True),
    _row('torch', 10.0, compiled=False),
  ]
  # At 20 images/s the share is 50 % of a rate of 40 images' operations.
  rate = 40 * floor.training_flops(16, 112)
  text = report_lib.table(
    {
      'environment': {
        'device': 'd',
        'processor': 'p',
        'cores': 2,
        'packages': {'jax': '1', 'torch': '2'},
        'num_images': 8,
        'data': 'generated',
        'matrix_flops_per_second': {'float32': rate},
        'repetitions': 5,
        'seconds_per_turn': 0.7,
      },
      'rows': rows,
      'ratios': [
        {**rows[1], 'ratio': 2.0, 'p10': 1.5, 'p90': 2.5},
      ],
    }
  )
  assert 'took 5 turns of 0.7 s each' in text
  ours, theirs = text.splitlines()[4:6]
  assert '| JAX | 20 (1 to 9) |  | 2.0 s | 3.00 GB | 50 % |' in ours
  assert '| PyTorch | 10 (1 to 9) | 2.00 times (1.50 to 2.50) |' in theirs


def test_quick_plan_compares_jax_with_eager_torch_in_float32():
  args = benchmark.parse_arguments(['--output', 'x.json', '--quick'])
  *groups, host = benchmark.plan(args)
  assert [(c.mode, c.framework) for c in host] == [('host', 'jax')]
  assert all([c.framework for c in g] == ['jax', 'torch'] for g in groups)
  precisions = {c.precision for group in groups for c in group}
  assert precisions == {'float32', 'uint8'}
  assert {group[0].mode for group in groups} == {*benchmark.MODES} - {'host'}


def test_full_plan_compares_with_torch_compile_in_both_precisions():
  args = benchmark.parse_arguments(['--output', 'x.json'])
  groups = [g for g in benchmark.plan(args) if g[0].mode == 'compute']
  assert [[c.compiled for c in g] for g in groups] == [[True, False, True]] * 2
  assert [g[0].precision for g in groups] == ['float32', 'bfloat16']


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--output=x.csv'], 'name must end in .json'),
    (['--quick', '--seconds=3', '--modes', 'input'], '--modes, --seconds'),
    (['--repetitions=0'], '--repetitions: must be at least 1'),
    (['--batch_size=0'], '--batch_size: must be at least 1'),
    (['--image_sizes', '96', '100'], 'multiples of 16'),
    (['--seconds=0'], 'greater than 0'),
    (['--output=/proc/x.json'], 'cannot be written'),
  ],
)
def test_what_does_not_fit_is_refused(arguments, message):
  with pytest.raises(errors.InputError, match=message):
    benchmark.parse_arguments(['--output=x.json', *arguments])


@pytest.mark.parametrize('given', [['--raw_dir=/a/b/'], ['--raw', '/a/b']])
def test_recorded_command_does_not_tell_where_images_lie(given):
  args = benchmark.parse_arguments(['--output=x.json', '--quick', *given])
  assert args.command == [
    *['scripts/benchmark.py', '--output', 'x.json', '--quick'],
    *['--raw_dir', 'DIR'],
  ]


@pytest.mark.parametrize(
  ('before', 'after'), [(None, '0'), ('3,4', '3'), ('', '')]
)
def test_one_gpu_is_shown(monkeypatch, before, after):
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', before or '')
  if before is None:
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
  benchmark.use_one_gpu()
  assert os.environ['CUDA_VISIBLE_DEVICES'] == after


def _fake_results(group):
  rows = [
    {**_row(case.framework, 20.0, compiled=case.compiled), 'mode': case.mode}
    for case in group
  ]
  return [(row, np.array([20.0, 30.0]), 'a chip') for row in rows]


def test_results_are_on_disk_after_each_group(tmp_path, monkeypatch):
  output, seen = tmp_path / 'new' / 'x.json', []

  def run_group(group, data, **_):
    seen.append(output.exists() and json.loads(output.read_text())['rows'])
    if group[0].mode == 'compute':
      raise RuntimeError(f'no memory for {data.raw_dir}/x.jpg')
    return _fake_results(group)

  monkeypatch.setattr(cases, 'run_group', run_group)
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
  raw_dir = tmp_path / 'raw'
  benchmark.write_generated(raw_dir, 3)
  argv = [f'--output={output}', f'--raw_dir={raw_dir}', *_TINY]
  benchmark.main(['', *argv, '--modes', 'predict', 'compute', 'host'])
  # After the matrix product: predict at two batch sizes, compute, host.
  assert [len(rows) for rows in seen[1:]] == [0, 2, 4, 4]
  report = json.loads(output.read_text())
  assert report['environment']['failures'] == ['no memory for DIR/x.jpg']
  assert report['environment']['num_images'] == 3  # Only 3 of 4 exist.
  assert str(tmp_path) not in json.dumps(
    {**report['environment'], 'command': report['environment']['command'][3:]}
  )
  commit = report['environment']['commit']  # None outside a repository.
  assert re.fullmatch(r'[0-9a-f]{40}(\+changes)?|None', str(commit))
  assert [path.suffix for path in sorted(output.parent.iterdir())] == [
    *['.json', '.md', '.png']
  ]


def test_no_case_that_succeeds_ends_in_one_message(tmp_path, monkeypatch):
  def run_group(group, data, **_):
    raise RuntimeError('no memory')

  monkeypatch.setattr(cases, 'run_group', run_group)
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
  with pytest.raises(errors.InputError, match='every case failed'):
    benchmark.main(['', f'--output={tmp_path / "x.json"}', *_TINY])
  assert not (tmp_path / 'x.json').exists()


def test_chart_of_no_comparison_is_drawn(tmp_path):
  report_lib.chart({'ratios': []}, tmp_path / 'x.png')
  assert (tmp_path / 'x.png').stat().st_size > 0


@pytest.fixture
def one_core():
  """One core for the processes of a test.

  On more, the threads of PyTorch wait for each other at every operation, and
  beside another test for that test.
  """
  cores = os.sched_getaffinity(0)
  os.sched_setaffinity(0, {min(cores)})
  yield
  os.sched_setaffinity(0, cores)


@pytest.mark.slow
@pytest.mark.usefixtures('one_core')
def test_a_small_run_writes_results_table_and_chart(tmp_path, monkeypatch):
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
  output = tmp_path / 'results' / 'small.json'
  benchmark.main(['benchmark.py', f'--output={output}', *_TINY])
  report = json.loads(output.read_text())
  assert set(report) == {'environment', 'rows', 'ratios'}
  assert report['environment']['failures'] == []
  for row in report['rows']:
    assert set(row) == _FIELDS
    assert row['p10'] <= row['images_per_second'] <= row['p90']
  modes = [row['mode'] for row in report['rows'] if row['framework'] == 'jax']
  assert modes == [
    *['input', 'compute', 'end_to_end', 'predict', 'predict', 'host']
  ]
  frameworks = [row['framework'] for row in report['rows']]
  assert frameworks == ['jax', 'torch'] * 5 + ['jax']
  # The table gives the share of the host in the step.
  assert '% of the step.' in output.with_suffix('.md').read_text()
  assert output.with_suffix('.png').stat().st_size > 0


@pytest.mark.slow
@pytest.mark.usefixtures('one_core')
def test_terminated_it_leaves_nobody_behind(tmp_path):
  output = f'--output={tmp_path / "x.json"}'
  program = subprocess.Popen(
    [sys.executable, benchmark.__file__, output, *_TINY, '--modes', 'host']
  )
  children = f'/proc/{program.pid}/task/{program.pid}/children'
  stopped = []
  while not stopped:  # Until a case is paused.
    assert program.poll() is None
    time.sleep(0.05)
    with open(children) as file:
      pids = file.read().split()
    stopped = [pid for pid in pids if _state(pid) == 'T']
  program.send_signal(signal.SIGTERM)
  assert program.wait(timeout=60) == 128 + signal.SIGTERM
  assert all(_state(pid) in ('', 'Z') for pid in stopped)


def _state(pid):
  """State of a process in /proc; '' if there is no such process."""
  try:
    with open(f'/proc/{pid}/stat') as file:
      return file.read().rpartition(')')[2].split()[0]
  except OSError:
    return ''
