"""Table and figure of the study of networks, from the counts of its trainings.

Writes `networks.csv`, `networks.md` and `networks.png`.
"""

import csv
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.figure
import measured
import numpy as np

from skinseg_jax.metrics import bootstrap

_SCORES = ('pooled_dice', 'mean_dice', 'threshold_jaccard')
_COLOURS = {
  'scratch': '#0072b2', 'pretrained': '#d55e00', 'classical': '#555555'
}  # fmt: skip


class View(NamedTuple):
  """Rows that belong together, and the network they are compared with."""

  names: Sequence[str]
  reference: str


def write(
  folder: pathlib.Path,
  views: Mapping[str, View],
  seeds: Sequence[int],
  lesions: Sequence[str],
) -> None:
  """Writes the results of what was measured.

  Args:
    folder: Holds the counts; the results are written beside them.
    views: Networks and classical methods by view.
    seeds: Of the trainings. Counts are summed over them, scores of an image are
      averaged.
    lesions: Lesion of each scored image, in the order of the counts.
  """
  resampling = bootstrap.resample(lesions)
  rows = [
    row
    for name, view in views.items()
    for row in _rows(folder, name, view, seeds, resampling)
  ]
  columns = list(dict.fromkeys(name for row in rows for name in row))
  with (folder / 'networks.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, columns, restval='', lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  (folder / 'networks.md').write_text(_markdown(views, rows), encoding='utf-8')
  _figure(folder / 'networks.png', [row for row in rows if 'mean_dice' in row])


def _rows(folder, view_name, view, seeds, resampling) -> list[dict[str, Any]]:
  reference = _files(folder, view.reference, seeds)
  rows = []
  for name in view.names:
    row: dict[str, Any] = {'name': name, 'view': view_name}
    if (failed := folder / f'{name}.failed').exists():
      rows.append({**row, 'failure': failed.read_text().strip()})
      continue
    if not (files := _files(folder, name, seeds)):
      continue
    about = json.loads((folder / f'{name}.json').read_text())
    if 'learning_rate' in about:
      row['learning_rate'] = about['learning_rate']
      row |= _of_trainings(files)
    row['predict_ms'] = about['predict_ms']
    found = measured.read(files)
    row |= _cells(_intervals(resampling, *found), '{:.4f}')
    if reference and name != view.reference:
      differences = _differences(resampling, found, measured.read(reference))
      row |= _cells(differences, '{:+.4f}', 'difference_of_')
    rows.append(row)
  return rows


def _files(
  folder: pathlib.Path, name: str, seeds: Sequence[int]
) -> list[pathlib.Path]:
  """Counts of a classical method, or of all seeds; none before the end."""
  if not (folder / f'{name}.json').exists():
    return []
  if (alone := folder / f'{name}.npz').exists():
    return [alone]
  files = [folder / f'{name}_seed{seed}.npz' for seed in seeds]
  return files if all(file.exists() for file in files) else []


def _of_trainings(files: Sequence[pathlib.Path]) -> dict[str, Any]:
  each = [float(measured.read([path])[1]['dice'].mean()) for path in files]
  return {
    'seeds': len(files),
    'cpu_minutes': f'{_cpu_minutes(files):.1f}',
    'mean_dice_worst_seed': f'{min(each):.4f}',
    'mean_dice_best_seed': f'{max(each):.4f}',
  }


def _cpu_minutes(paths: Sequence[pathlib.Path]) -> float:
  """Processor time of a training, in the mean over seeds."""
  seconds = []
  for path in paths:
    with np.load(path) as arrays:
      seconds.append(float(arrays['cpu_seconds']))
  return float(np.mean(seconds)) / 60


def _intervals(resampling, counts, scores) -> dict[str, bootstrap.Interval]:
  means = bootstrap.means(resampling, scores)
  pooled = bootstrap.pooled(resampling, counts)['dice']
  return dict(
    zip(
      _SCORES,
      (pooled, means['dice'], means['threshold_jaccard']),
      strict=True,
    )
  )


def _differences(resampling, ours, theirs) -> dict[str, bootstrap.Difference]:
  means = bootstrap.mean_difference(resampling, ours[1], theirs[1])
  pooled = bootstrap.pooled_difference(resampling, ours[0], theirs[0])['dice']
  return dict(
    zip(
      _SCORES,
      (pooled, means['dice'], means['threshold_jaccard']),
      strict=True,
    )
  )


def _cells(found, style: str, prefix: str = '') -> dict[str, str]:
  return {
    f'{prefix}{name}{suffix}': style.format(value)
    for name, interval in found.items()
    for suffix, value in (
      ('', interval.value), ('_low', interval.low), ('_high', interval.high)
    )
  }  # fmt: skip


def _markdown(
  views: Mapping[str, View], rows: Sequence[Mapping[str, Any]]
) -> str:
  """A table for each view."""
  tables = []
  for name, view in views.items():
    lines = [
      f'| {name} | pooled Dice | Dice per image |'
      f' difference to `{view.reference}` | worst and best seed |'
      ' training, prediction |',
      '|---|---|---|---|---|---|',
      *(_line(row) for row in rows if row['view'] == name),
    ]
    tables.append('\n'.join(lines) + '\n')
  return '\n'.join(tables)


def _line(row: Mapping[str, Any]) -> str:
  if 'failure' in row:
    return f'| `{row["name"]}` | failed: {row["failure"]} | | | | |'
  cells = [f'`{row["name"]}`']
  for score in ('pooled_dice', 'mean_dice', 'difference_of_mean_dice'):
    ends = [row.get(f'{score}{end}') for end in ('', '_low', '_high')]
    cells.append('{} ({} to {})'.format(*ends) if ends[0] else '')
  seeds, cost = '', f'{row["predict_ms"]:.1f} ms'
  if 'seeds' in row:
    seeds = f'{row["mean_dice_worst_seed"]}, {row["mean_dice_best_seed"]}'
    cost = f'{row["cpu_minutes"]} min, {cost}'
  return f'| {" | ".join([*cells, seeds, cost])} |'


def _figure(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Dice per image against the cost of training and of prediction."""
  figure = matplotlib.figure.Figure(figsize=(12, 5.5), layout='constrained')
  left, right = figure.subplots(1, 2)
  networks = [row for row in rows if 'cpu_minutes' in row]
  _scatter(left, 'cpu_minutes', networks)
  _scatter(right, 'predict_ms', rows)
  left.set(
    title='networks',
    xlabel='processor time of a training, minutes',
    ylabel='Dice per image, with 95 % interval',
  )
  right.set(
    title='networks and classical methods',
    xlabel='time of a prediction, milliseconds per image',
  )
  figure.savefig(path, dpi=100)


def _scatter(axes, cost: str, rows: Sequence[Mapping[str, Any]]) -> None:
  if not rows:
    return
  for view, colour in _COLOURS.items():
    those = [row for row in rows if row['view'] == view]
    if not those:
      continue
    number = lambda name, those=those: np.array(
      [float(row[name]) for row in those]
    )
    x, y = number(cost), number('mean_dice')
    ends = [y - number('mean_dice_low'), number('mean_dice_high') - y]
    axes.errorbar(x, y, ends, fmt='o', color=colour, capsize=3, label=view)
    for row, *place in zip(those, x, y, strict=True):
      axes.annotate(
        row['name'].removesuffix('_scratch').removesuffix('_lite0'),
        place,
        xytext=(5, 4),
        textcoords='offset points',
        fontsize=8,
      )
  axes.set(xscale='log')
  axes.grid(alpha=0.3)
  axes.legend(title='view')
