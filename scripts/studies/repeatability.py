"""Measures how much repeated pictures of one unchanged lesion differ.

python scripts/studies/repeatability.py --raw_dir DIR --output DIR
  [--lesions N] [--different N] [--workdir DIR]

Follows lesions of HAM10000 that have several pictures, as `follow` does, in a
random order. The reference of a lesion and each other picture are a pair.
Started again, it goes on where it stopped; pairs.csv holds the pairs.

limits.csv has the 95 % quantile of each measure, over lesions whose pictures
all belong to the training images of the model, and the share of the other pairs
that exceed it. registration.csv says how many pairs could be registered; among
them are pairs of pictures of different lesions, which should not be.
"""

import argparse
import collections
import concurrent.futures
import csv
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from skinseg_jax.data import splits
from skinseg_jax.data.sources import ham10000_files
from skinseg_jax.following import changes, course, registration, series
from skinseg_jax.inference import trained_model
from skinseg_jax.runtime import compilation, errors, paths
from skinseg_jax.weights import shared_model

REPEATED, DIFFERENT = 'repeated', 'different'
_COLUMNS = (
  'kind', 'lesion', 'side', 'first', 'other', 'status', 'scale', 'points',
  'cut', *(what.name for what in changes.MEASURES),
)  # fmt: skip
_QUANTILE = 0.95
_DRAWS = 1000

Row = dict[str, str]


def limits(rows: Sequence[Row]) -> list[dict[str, Any]]:
  """Limits of each measure, from pairs of the training side.

  Args:
    rows: Rows of pairs.csv.

  Returns:
    For each measure: `lesions` and `pairs` with a value; `median` and `limit`,
    the quantile .95 of the differences (of lengths and areas the ratio of the
    larger to the smaller value); `low` and `high`, its 95 % interval from 1,000
    bootstrap draws of lesions; `others`, the number of pairs that are not of
    the training side, and `others_beyond`, the share that exceeds the limit.
  """
  found = []
  for what in changes.MEASURES:
    known = [r for r in rows if r['kind'] == REPEATED and r[what.name]]
    train = [r for r in known if r['side'] == 'train']
    others = [r for r in known if r['side'] != 'train']
    sizes = _sizes(what, train)
    if not len(sizes):
      continue
    limit = np.quantile(sizes, _QUANTILE)
    names, index = np.unique([r['lesion'] for r in train], return_inverse=True)
    low, high = np.quantile(_draws(sizes, index, len(names)), (0.025, 0.975))
    shown = np.exp if what.relative else lambda x: x
    found.append(
      {
        'measure': what.name,
        'lesions': len(names),
        'pairs': len(sizes),
        'median': float(shown(np.median(sizes))),
        'limit': float(shown(limit)),
        'low': float(shown(low)),
        'high': float(shown(high)),
        'others': len(others),
        'others_beyond': float(np.mean(_sizes(what, others) > limit))
        if others
        else '',
      }
    )
  return found


def _sizes(what: changes.Measure, rows: Iterable[Row]) -> np.ndarray:
  """Differences without their direction; of ratios the logarithm."""
  amounts = np.array([float(row[what.name]) for row in rows])
  return np.abs(np.log(amounts) if what.relative else amounts)


def _draws(sizes: np.ndarray, index: np.ndarray, count: int) -> list[float]:
  rng = np.random.default_rng(0)
  by_lesion = [sizes[index == i] for i in range(count)]
  return [
    float(
      np.quantile(
        np.concatenate([by_lesion[i] for i in rng.integers(0, count, count)]),
        _QUANTILE,
      )
    )
    for _ in range(_DRAWS)
  ]


def registered(rows: Sequence[Row]) -> list[dict[str, Any]]:
  """How many pairs could be registered, by kind and side."""
  counts = collections.Counter(
    (row['kind'], row['side'], row['status']) for row in rows
  )
  return [
    {
      'kind': kind,
      'side': side,
      'pairs': total,
      'registered': counts[kind, side, course.REGISTERED],
      'share': counts[kind, side, course.REGISTERED] / total,
    }
    for kind, side in dict.fromkeys((r['kind'], r['side']) for r in rows)
    if (total := sum(n for key, n in counts.items() if key[:2] == (kind, side)))
  ]


def main(argv: list[str]) -> None:
  """Follows the lesions that are missing, and writes the tables."""
  args = _parse(argv)
  registration.check_installed()
  raw = ham10000_files.list_files(ham10000_files.find(args.raw_dir))
  split = splits.read_split(args.workdir / 'split.csv')
  side = dict.fromkeys(split.train, 'train')
  side |= dict.fromkeys(split.validation, 'validation')
  jobs = _jobs(raw, side, args.lesions, args.different)
  args.output.mkdir(parents=True, exist_ok=True)
  path = args.output / 'pairs.csv'
  done = {(row['kind'], row['lesion']) for row in _read(path)}
  compilation.keep_programs()
  model = trained_model.load(args.workdir, 'last')
  with (
    concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    path.open('a', encoding='utf-8', newline='') as file,
  ):
    writer = csv.DictWriter(file, _COLUMNS, lineterminator='\n')
    if not done:
      writer.writeheader()
    left = [job for job in jobs if job[:2] not in done]
    for n, rows in enumerate(pool.map(lambda j: _follow(j, raw, model), left)):
      writer.writerows(rows)
      file.flush()
      if n % 20 == 0:
        print(f'{n} of {len(left)}', flush=True)
  rows = _read(path)
  for name, table in (
    ('limits.csv', limits(rows)),
    ('registration.csv', registered(rows)),
  ):
    _write(args.output / name, table)
    print(*table, sep='\n')


# Kind, lesion, side and image ids.
Job = tuple[str, str, str, list[str]]


def _jobs(
  raw: ham10000_files.RawFiles,
  side: dict[str, str],
  lesions: int | None,
  different: int,
) -> list[Job]:
  by_lesion: dict[str, list[str]] = collections.defaultdict(list)
  for image_id, row in sorted(raw.rows.items()):
    by_lesion[row['lesion_id']].append(image_id)
  several = [name for name, ids in sorted(by_lesion.items()) if len(ids) > 1]
  order = np.random.default_rng(0).permutation(several).tolist()[:lesions]
  jobs: list[Job] = []
  for n, name in enumerate(order):
    sides = {side[image_id] for image_id in by_lesion[name]}
    where = sides.pop() if len(sides) == 1 else 'both'
    jobs.append((REPEATED, name, where, by_lesion[name]))
    if n < different:
      ids = [by_lesion[name][0], by_lesion[order[n - 1]][0]]
      jobs.append((DIFFERENT, name, '', ids))
  return jobs


def _follow(
  job: Job, raw: ham10000_files.RawFiles, model: trained_model.TrainedModel
) -> list[dict[str, Any]]:
  """The rows of one lesion: its reference and each other picture."""
  kind, lesion, side, ids = job
  with tempfile.TemporaryDirectory() as folder:
    entries = []
    for image_id in ids:
      path = pathlib.Path(folder, f'{image_id}.jpg')
      path.write_bytes(raw.images[image_id].read())
      entries.append(series.Entry(path, None))
    visits = course.follow(
      series.Series(lesion, entries), model, None, bands=False
    )
  first = next((v for v in visits if v.status == course.REFERENCE), None)
  return [
    {
      'kind': kind,
      'lesion': lesion,
      'side': side,
      'first': first.entry.path.stem if first else '',
      'other': visit.entry.path.stem,
      'status': visit.status,
      'scale': visit.scale and f'{visit.scale:.4f}',
      'points': visit.points,
      'cut': int(visit.cut or bool(first and first.cut)),
      **{
        name: f'{change.amount:.5f}' for name, change in visit.changed.items()
      },
    }
    for visit in visits
    if visit is not first
  ]


def _read(path: pathlib.Path) -> list[Row]:
  if not path.exists():
    return []
  with path.open(encoding='utf-8', newline='') as file:
    return list(csv.DictReader(file))


def _write(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  with path.open('w', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    for row in rows:
      writer.writerow(
        {k: f'{v:.4f}' if isinstance(v, float) else v for k, v in row.items()}
      )


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--raw_dir', type=paths.user_path, required=True, help='HAM10000')
  add('--output', type=paths.user_path, required=True, help='folder of tables')
  add('--lesions', type=int, help='random lesions to follow; default: all')
  add(
    '--different',
    type=int,
    default=200,
    help='pairs of pictures of different lesions; default: 200',
  )
  add(
    '--workdir',
    type=paths.user_path,
    default=shared_model.SHIPPED,
    help='folder of a model; default: the one that comes with skinseg_jax',
  )
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
