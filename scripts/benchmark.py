"""Compares the speed of JAX and PyTorch on this machine and the same images.

python scripts/benchmark.py --output FILE.json [--raw_dir DIR] [--quick]

Modes:
  input       only the input pipeline, from files or cache to the device
  compute     one training step on a batch that is already on the device; the
              JAX step includes augmentation, PyTorch's batch is augmented
              before
  end_to_end  from files or cache to updated weights
  predict     from bytes on the host to probabilities on the host
  host        only JAX: the training loop without the step's work on the device

PyTorch is measured with channels-last tensors, eager and with torch.compile.
Each case runs in its own process; compared cases take turns on one device.
FILE.json is rewritten after each group of cases. The table FILE.md and the
chart FILE.png are written next to it at the end. `--raw_dir` is the folder of
the raw files of HAM10000; without it, images are generated. Needs the extra
`torch`.
"""

import argparse
import csv
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm
from benchmarks import cases
from benchmarks import report as benchmark_report

from skinseg_jax.data.sources import ham10000_files, synthetic
from skinseg_jax.runtime import errors

MODES = ('input', 'compute', 'end_to_end', 'predict', 'host')
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'grain', 'numpy', 'torch')
# Cases of `--quick`, for two cores: mode, width, image size, batch size. They
# use float32 and not torch.compile, which would take longer to compile than
# everything else together.
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
# Defaults of the options that `--quick` fixes, and the values that it changes.
_FULL = {
  'modes': MODES,
  'widths': [64],
  'image_sizes': [224],
  'precisions': ('float32', 'bfloat16'),
  'batch_size': 32,
  'no_compile': False,
  'repetitions': 10,
  'seconds': 3.0,
  'matrix_size': 8192,
}
_QUICK_OPTIONS = {
  'precisions': ('float32',),
  'repetitions': 5,
  'seconds': 0.7,
  'matrix_size': 2048,
}
_GENERATED_SIZE = (450, 600)


def ratios(
  results: Sequence[tuple[dict[str, Any], np.ndarray, str]],
) -> list[dict[str, Any]]:
  """Ratios of images per second, JAX over PyTorch, computed turn by turn."""
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
  """Groups of cases; the cases of a group are compared with each other."""
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
    make = functools.partial(
      cases.Case,
      mode=mode,
      precision=precision,
      width=width,
      image_size=size,
      batch_size=batch,
    )
    group = [make(framework='jax', compiled=mode != 'input')]
    if mode != 'host':
      group += [make(framework='torch', compiled=c) for c in compilers]
    groups.append(group)
  return groups


def matrix_group(precision: str, size: int) -> list[cases.Case]:
  """A large matrix product by both frameworks."""
  return [
    cases.Case(f, 'matrix', precision, f == 'jax', None, size, 1)
    for f in ('jax', 'torch')
  ]


def write_generated(raw_dir: pathlib.Path, num_images: int) -> None:
  """Writes generated lesions in the layout of the files of HAM10000."""
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
  with (raw_dir / ham10000_files.METADATA_NAME).open('w', newline='') as file:
    writer = csv.DictWriter(file, ham10000_files.COLUMNS, extrasaction='ignore')
    writer.writeheader()
    # Readers require a diagnosis; any one will do.
    writer.writerows(
      {**row, 'dx': row['dx'] or 'nv'} for row in source.metadata
    )


def environment(args: argparse.Namespace) -> dict[str, Any]:
  """Describes what is measured, and on which machine."""
  return {
    'command': args.command,
    'commit': _commit(),
    'python': platform.python_version(),
    'packages': {name: importlib.metadata.version(name) for name in _PACKAGES},
    'platform': platform.platform(),
    'processor': _processor(),
    'cores': len(os.sched_getaffinity(0)),
    'data': 'HAM10000' if args.raw_dir else 'generated',
    'loader_workers': args.workers,
    'repetitions': args.repetitions,
    'seconds_per_turn': args.seconds,
    'torch_memory_format': 'channels_last',
    'tf32': True,
  }


def _commit() -> str | None:
  """The commit of the code, with '+changes' if files differ from it."""
  root = pathlib.Path(__file__).parents[1]
  command = ['git', '-C', root, '--git-dir=.git', 'describe', '--always']
  command += ['--exclude=*', '--abbrev=40', '--dirty=+changes']
  try:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
  except (OSError, subprocess.CalledProcessError):
    return None
  return done.stdout.strip()


def _processor() -> str:
  cpuinfo = pathlib.Path('/proc/cpuinfo')
  if cpuinfo.exists():
    for line in cpuinfo.read_text().splitlines():
      if line.startswith('model name'):
        return line.partition(':')[2].strip()
  return platform.processor()


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
  """Reads the command line; adds `command`, the command line to publish.

  Raises:
    InputError: If a value does not fit, or PyTorch or OpenCV is missing.
  """
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    argument_default=argparse.SUPPRESS,
  )
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--raw_dir', type=pathlib.Path)
  parser.add_argument('--quick', action='store_true', help='for two cores')
  parser.add_argument('--modes', nargs='+', choices=MODES)
  parser.add_argument('--widths', nargs='+', type=int)
  parser.add_argument('--image_sizes', nargs='+', type=int)
  parser.add_argument('--precisions', nargs='+', choices=_FULL['precisions'])
  parser.add_argument('--batch_size', type=int)
  parser.add_argument('--no_compile', action='store_true')
  parser.add_argument('--num_images', type=int)
  parser.add_argument('--repetitions', type=int)
  parser.add_argument('--seconds', type=float)
  parser.add_argument('--matrix_size', type=int)
  parser.add_argument('--workers', type=int)
  given = vars(parser.parse_args(argv))
  quick = 'quick' in given
  if quick and (clashing := given.keys() & _FULL.keys()):
    raise errors.InputError(
      f'--quick fixes {", ".join(f"--{name}" for name in sorted(clashing))};'
      ' remove --quick or these options.'
    )
  args = argparse.Namespace(
    **{
      **{'raw_dir': None, 'quick': quick, 'num_images': 512},
      **{'workers': os.cpu_count(), 'command': _command(given)},
      **(_FULL | _QUICK_OPTIONS if quick else _FULL),
      **given,
    }
  )
  _check(args)
  return args


def _command(given: dict[str, Any]) -> list[str]:
  """The command for publication, without the folder of the images."""
  command = ['scripts/benchmark.py']
  for name, value in given.items():
    value = 'DIR' if name == 'raw_dir' else value
    values = value if isinstance(value, list) else [value]
    command += [f'--{name}', *(str(v) for v in values if v is not True)]
  return command


def _check(args: argparse.Namespace) -> None:
  if args.output.suffix != '.json':
    raise errors.InputError(
      f'--output {args.output}: the name must end in .json.'
    )
  counts = ('widths', 'image_sizes', 'batch_size', 'num_images', 'repetitions')
  for name in (*counts, 'matrix_size'):
    if np.min(getattr(args, name)) < 1:
      raise errors.InputError(f'--{name}: must be at least 1.')
  if not args.seconds > 0 or args.workers < 0:
    raise errors.InputError(
      '--seconds must be greater than 0, and --workers at least 0.'
    )
  if any(size % 16 for size in args.image_sizes):
    raise errors.InputError('--image_sizes: must be multiples of 16.')
  missing = [n for n in ('torch', 'cv2') if not importlib.util.find_spec(n)]
  if missing:
    raise errors.InputError(
      f'{" and ".join(missing)} missing: pip install "skinseg_jax[torch]"'
    )
  try:
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=args.output.parent):
      pass
  except OSError as error:
    raise errors.InputError(
      f'--output {args.output}: cannot be written ({error.strerror}).'
    ) from error


def measure(
  args: argparse.Namespace, directory: pathlib.Path
) -> dict[str, Any]:
  """Measures all cases; lists those that fail in `failures`.

  Raises:
    InputError: If all cases fail.
  """
  began = time.perf_counter()
  env = environment(args)
  if args.raw_dir is None:
    raw_dir = directory / 'raw'
    write_generated(raw_dir, args.num_images)
  else:
    raw_dir = args.raw_dir.resolve()
  data = cases.Data(raw_dir, directory, args.num_images, args.workers)
  groups = plan(args)
  sizes = {group[0].image_size for group in groups}
  caching_began = time.perf_counter()
  cached = [cases.open_data(data, size) for size in sorted(sizes)]
  seconds = time.perf_counter() - caching_began
  env['num_images'] = len(cached[0].image_ids)  # Can be less than requested.
  env['cache_images_per_second'] = env['num_images'] * len(sizes) / seconds
  env['matrix_flops_per_second'], env['failures'] = {}, []
  report = {'environment': env, 'rows': [], 'ratios': []}
  matrices = [matrix_group(p, args.matrix_size) for p in args.precisions]
  for number, group in enumerate(matrices + groups, 1):
    print(
      f'{time.perf_counter() - began:.0f} s: {number} of'
      f' {len(matrices + groups)}, {group[0]}',
      flush=True,
    )
    try:
      results = cases.run_group(
        group, data, repetitions=args.repetitions, seconds=args.seconds
      )
    except RuntimeError as error:
      env['failures'].append(str(error).replace(str(raw_dir), 'DIR'))
      print(f'skipped: {error}', file=sys.stderr)
      continue
    add(report, results)
    save(report, args.output)
  print(f'{time.perf_counter() - began:.0f} s in total', flush=True)
  if not report['rows']:
    raise errors.InputError(
      'every case failed, for the reasons above; nothing was measured.'
    )
  return report


def add(
  report: dict[str, Any],
  results: Sequence[tuple[dict[str, Any], np.ndarray, str]],
) -> None:
  """Adds the results of `run_group` to a report."""
  rows = [row for row, _, _ in results]
  report['environment']['device'] = results[0][2]
  if rows[0]['mode'] == 'matrix':
    fastest = max(row['images_per_second'] for row in rows)
    rates = report['environment']['matrix_flops_per_second']
    rates[rows[0]['precision']] = 2 * rows[0]['image_size'] ** 3 * fastest
  else:
    report['rows'] += rows
    report['ratios'] += ratios(results)


def save(report: dict[str, Any], path: pathlib.Path) -> None:
  """Writes the report atomically."""
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
  temporary.replace(path)


def use_one_gpu() -> None:
  """Hides all GPUs but the first: JAX would use all, PyTorch only one."""
  visible = os.environ.get('CUDA_VISIBLE_DEVICES', '0')
  os.environ['CUDA_VISIBLE_DEVICES'] = visible.split(',')[0]


def main(argv: list[str]) -> None:
  """Measures, then writes JSON, table and chart."""
  args = parse_arguments(argv[1:])
  use_one_gpu()
  with tempfile.TemporaryDirectory() as directory:
    report = measure(args, pathlib.Path(directory))
  save(report, args.output)
  text = benchmark_report.table(report)
  args.output.with_suffix('.md').write_text(text, encoding='utf-8')
  benchmark_report.chart(report, args.output.with_suffix('.png'))
  print(text)


if __name__ == '__main__':
  # Exit in order: without this, paused processes would stay behind forever.
  for _number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, lambda number, _: sys.exit(128 + number))
  errors.exit_with_message(main, sys.argv)
