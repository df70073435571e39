"""JAX and PyTorch in turn, on this machine and the same images.

python scripts/benchmark.py --output FILE.json [--raw_dir DIR] [--quick]

Modes: `input` (the pipeline alone, files or cache to the device), `compute`
(one training step on a batch that is on the device; ours augments in it,
PyTorch's batch is augmented already), `end_to_end` (files or cache to updated
weights), `predict` (bytes on the host to probabilities on the host), `host`
(ours alone: the training loop with the step's work left out). PyTorch is
channels-last, eager and by torch.compile. Every case runs in a process of
its own; those that are compared take turns, the others standing still.

Beside FILE.json it writes the table FILE.md and the chart FILE.png. Without
`--raw_dir`, the Dataverse files of HAM10000, images are generated. Needs the
extra `torch`.
"""

import argparse
import contextlib
import csv
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import pathlib
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import benchmark_cases as cases
import benchmark_report
import numpy as np
import tqdm

from skinseg_jax import errors
from skinseg_jax.data import raw_files, synthetic

MODES = ('input', 'compute', 'end_to_end', 'predict', 'host')
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'grain', 'numpy', 'torch')
# For two cores: mode, width, image size, batch size; in float32, without
# torch.compile, whose compiler alone would take longer than all the rest.
_QUICK = (
  ('input', None, 112, 32),
  ('input', None, 224, 32),
  ('compute', 16, 112, 32),
  ('compute', 16, 224, 8),
  ('compute', 64, 112, 8),
  ('compute', 64, 224, 2),
  ('end_to_end', 16, 112, 32),
  ('end_to_end', 16, 224, 8),
  ('predict', 16, 112, 1),
  ('predict', 16, 112, 32),
  ('predict', 16, 224, 1),
  ('predict', 64, 112, 1),
  ('predict', 64, 224, 1),
  ('host', 64, 224, 2),
)
_GENERATED_SIZE = (450, 600)


class _Process:
  """A case in its process, which stands still unless it is measured."""

  def __init__(self, case: cases.Case, data: cases.Data):
    context = multiprocessing.get_context('spawn')
    self.case = case
    self.seconds_per_step: list[list[float]] = []
    self._connection, theirs = context.Pipe()
    self._process = context.Process(
      target=cases.serve, args=(case, data, theirs)
    )
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
    self._signal(signal.SIGCONT)
    self._connection.send(seconds)
    self.seconds_per_step.append(self._receive())
    self._signal(signal.SIGSTOP)

  def finish(self) -> int:
    """Ends it; returns the peak of its memory in bytes."""
    self._signal(signal.SIGCONT)
    self._connection.send(None)
    peak = self._receive()
    self._process.join(timeout=30)
    return peak

  def kill(self) -> None:
    """Ends it and its workers, wherever they are."""
    with contextlib.suppress(ProcessLookupError):
      self._signal(signal.SIGKILL)
    self._process.kill()
    self._process.join()

  def _signal(self, number: int) -> None:
    os.killpg(self._process.pid, number)

  def _receive(self) -> Any:
    try:
      answer = self._connection.recv()
    except EOFError:
      answer = 'the process ended, perhaps for lack of memory'
    if isinstance(answer, str):
      raise RuntimeError(f'{self.case}: {answer}')
    return answer


def run_group(
  group: Sequence[cases.Case],
  data: cases.Data,
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
      processes.append(_Process(case, data))
      stack.callback(processes[-1].kill)
    for _ in range(repetitions):
      for process in processes:
        process.measure(seconds)
    return [_result(process) for process in processes]


def _result(process: _Process) -> tuple[dict[str, Any], np.ndarray, str]:
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


def ratios(
  results: Sequence[tuple[dict[str, Any], np.ndarray, str]],
) -> list[dict[str, Any]]:
  """JAX's images per second over PyTorch's, turn by turn."""
  ours = [
    (row, turns) for row, turns, _ in results if row['framework'] == 'jax'
  ]
  compared = []
  for row, turns, _ in results:
    if row['framework'] == 'torch' and ours:
      p10, median, p90 = np.percentile(ours[0][1] / turns, [10, 50, 90])
      compared.append(
        {
          **{name: row[name] for name in benchmark_report.SAME},
          'compiled': row['compiled'],
          'ratio': median,
          'p10': p10,
          'p90': p90,
        }
      )
  return compared


def plan(args: argparse.Namespace) -> list[list[cases.Case]]:
  """Groups of cases that are compared."""
  if args.quick:
    wanted = [(m, 'float32', w, s, b) for m, w, s, b in _QUICK]
  else:
    wanted = [
      (mode, precision, width, size, batch)
      for mode in args.modes
      for size in args.image_sizes
      for width in (args.widths if mode != 'input' else [None])
      for precision in (args.precisions if mode != 'input' else ['uint8'])
      for batch in ((1, 32) if mode == 'predict' else (args.batch_size,))
    ]
  groups = []
  for mode, precision, width, size, batch in wanted:
    if mode == 'input':
      precision, compilers = 'uint8', (False,)
    else:
      compilers = (False,) if args.quick or args.no_compile else (False, True)
    make = lambda f, c, *rest: cases.Case(f, rest[0], rest[1], c, *rest[2:])
    rest = (mode, precision, width, size, batch)
    group = [make('jax', mode != 'input', *rest)]
    if mode != 'host':
      group += [make('torch', compiled, *rest) for compiled in compilers]
    groups.append(group)
  return groups


def matrix_rates(
  data: cases.Data, precisions: Sequence[str], *, size: int, seconds: float
) -> dict[str, float]:
  """Operations a second of a large matrix product, the better framework's."""
  rates = {}
  for precision in precisions:
    group = [
      cases.Case(f, 'matrix', precision, f == 'jax', None, size, 1)
      for f in ('jax', 'torch')
    ]
    results = run_group(group, data, repetitions=5, seconds=seconds)
    fastest = max(row['images_per_second'] for row, _, _ in results)
    rates[precision] = 2 * size**3 * fastest
  return rates


def write_generated(raw_dir: pathlib.Path, num_images: int) -> None:
  """Writes generated lesions, laid out as the files of HAM10000 are."""
  import cv2

  source = synthetic.SyntheticSource(
    num_images=num_images, size=_GENERATED_SIZE, seed=0
  )
  images = raw_dir / 'HAM10000_images_part_1'
  masks = raw_dir / 'HAM10000_segmentations_lesion_tschandl'
  images.mkdir(parents=True)
  masks.mkdir()
  for i in tqdm.trange(len(source), desc='generating images', disable=None):
    example = source[i]
    name = example['image_id']
    cv2.imwrite(str(images / f'{name}.jpg'), example['image'][..., ::-1])
    mask = 255 * example['mask']
    cv2.imwrite(str(masks / f'{name}_segmentation.png'), mask)
  with (raw_dir / raw_files.METADATA_NAME).open('w', newline='') as file:
    writer = csv.DictWriter(file, raw_files.COLUMNS, extrasaction='ignore')
    writer.writeheader()
    # Required by readers, whatever it is.
    writer.writerows(
      {**row, 'dx': row['dx'] or 'nv'} for row in source.metadata
    )


def environment(args: argparse.Namespace) -> dict[str, Any]:
  """What was measured, and where."""
  return {
    # Where the images lie is nobody else's business.
    'command': ['DIR' if a == str(args.raw_dir) else a for a in sys.argv],
    'python': platform.python_version(),
    'packages': {name: importlib.metadata.version(name) for name in _PACKAGES},
    'platform': platform.platform(),
    'processor': _processor(),
    'cores': len(os.sched_getaffinity(0)),
    'data': 'HAM10000' if args.raw_dir else 'generated',
    'num_images': args.num_images,
    'loader_workers': args.workers,
    'repetitions': args.repetitions,
    'seconds_per_turn': args.seconds,
    'torch_memory_format': 'channels_last',
    'tf32': True,
  }


def _processor() -> str:
  cpuinfo = pathlib.Path('/proc/cpuinfo')
  if cpuinfo.exists():
    for line in cpuinfo.read_text().splitlines():
      if line.startswith('model name'):
        return line.partition(':')[2].strip()
  return platform.processor()


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
  """Reads the command line.

  Raises:
    InputError: If a value does not fit, or PyTorch or OpenCV is missing.
  """
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--raw_dir', type=pathlib.Path)
  parser.add_argument('--quick', action='store_true', help='for two cores')
  parser.add_argument('--modes', nargs='+', choices=MODES, default=MODES)
  parser.add_argument('--widths', nargs='+', type=int, default=[64])
  parser.add_argument('--image_sizes', nargs='+', type=int, default=[224])
  precisions = ('float32', 'bfloat16')
  parser.add_argument(
    '--precisions', nargs='+', choices=precisions, default=precisions
  )
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument('--no_compile', action='store_true')
  parser.add_argument('--num_images', type=int, default=512)
  parser.add_argument('--repetitions', type=int, default=10)
  parser.add_argument('--seconds', type=float, default=3.0)
  parser.add_argument('--matrix_size', type=int, default=8192)
  parser.add_argument('--workers', type=int, default=os.cpu_count())
  args = parser.parse_args(argv)
  if args.quick:
    args.precisions, args.matrix_size = ['float32'], 2048
    args.repetitions, args.seconds = 5, 0.7
  if args.output.suffix != '.json':
    raise errors.InputError(f'--output {args.output}: must end in .json.')
  missing = [n for n in ('torch', 'cv2') if not importlib.util.find_spec(n)]
  if missing:
    raise errors.InputError(
      f'{" and ".join(missing)} missing: pip install "skinseg_jax[torch]"'
    )
  return args


def measure(
  args: argparse.Namespace, directory: pathlib.Path
) -> dict[str, Any]:
  """Measures all cases; what fails is left out and named in `failures`."""
  raw_dir = args.raw_dir
  if raw_dir is None:
    raw_dir = directory / 'raw'
    write_generated(raw_dir, args.num_images)
  data = cases.Data(raw_dir, directory, args.num_images, args.workers)
  report = {'environment': environment(args), 'rows': [], 'ratios': []}
  env = report['environment']
  groups = plan(args)
  began = time.perf_counter()
  sizes = {group[0].image_size for group in groups}
  for size in sorted(sizes):
    cases.open_data(data, size)
  env['cache_images_per_second'] = (
    args.num_images * len(sizes) / (time.perf_counter() - began)
  )
  env['matrix_flops_per_second'] = matrix_rates(
    data, args.precisions, size=args.matrix_size, seconds=args.seconds
  )
  env['failures'] = []
  for group in tqdm.tqdm(groups, desc='cases', disable=None):
    try:
      results = run_group(
        group, data, repetitions=args.repetitions, seconds=args.seconds
      )
    except RuntimeError as error:
      env['failures'].append(str(error))
      print(f'left out: {error}', file=sys.stderr)
      continue
    report['rows'] += [row for row, _, _ in results]
    report['ratios'] += ratios(results)
    env['device'] = results[0][2]
  return report


def main(argv: list[str]) -> None:
  """Measures, then writes JSON, table and chart."""
  args = parse_arguments(argv[1:])
  with tempfile.TemporaryDirectory() as directory:
    report = measure(args, pathlib.Path(directory))
  args.output.parent.mkdir(parents=True, exist_ok=True)
  args.output.write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
  text = benchmark_report.table(report)
  args.output.with_suffix('.md').write_text(text, encoding='utf-8')
  benchmark_report.chart(report, args.output.with_suffix('.png'))
  print(text)


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
