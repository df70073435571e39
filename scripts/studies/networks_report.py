"""Table and figure of the study of networks, from the counts of its trainings.

Writes `networks.csv`, `networks.md` and `networks.png`.
"""

import csv
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import measured
import numpy as np

from skinseg_jax.metrics import bootstrap

_SCORES = ('pooled_dice', 'mean_dice', 'threshold_jaccard')
_COLOURS = {'scratch': '#0072b2', 'pretrained': '#d55e00'}


def write(
  folder: pathlib.Path,
  views: Mapping[str, Sequence[str]],
  seeds: Sequence[int],
  lesions: Sequence[str],
) -> None:
  """Writes the results of the networks that were measured.

  Args:
    folder: Holds the counts; the results are written beside them.
    views: Names of networks by view. Others are compared with the first.
    seeds: Of the trainings. Counts are summed over them, scores of an image are
      averaged.
    lesions: Lesion of each scored image, in the order of the counts.
  """
  resampling = bootstrap.resample(lesions)
  rows = [
    row
    for view, names in views.items()
    for row in _rows(folder, view, names, seeds, resampling)
  ]
  if not rows:
    return
  columns = list(dict.fromkeys(name for row in rows for name in row))
  with (folder / 'networks.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, columns, restval='')
    writer.writeheader()
    writer.writerows(rows)
  (folder / 'networks.md').write_text(_markdown(rows), encoding='utf-8')
  _figure(folder / 'networks.png', [row for row in rows if 'mean_dice' in row])


def _rows(folder, view, names, seeds, resampling) -> list[dict[str, Any]]:
  rows, reference = [], None
  for name in names:
    row: dict[str, Any] = {'network': name, 'view': view}
    paths = [folder / f'{name}_seed{seed}.npz' for seed in seeds]
    if (failed := folder / f'{name}.failed').exists():
      rows.append({**row, 'failure': failed.read_text().strip()})
      continue
    if not all(path.exists() for path in paths):
      continue
    about = json.loads((folder / f'{name}.json').read_text())
    counts, scores = measured.read(paths)
    found = _intervals(resampling, counts, scores)
    each = [float(measured.read([path])[1]['dice'].mean()) for path in paths]
    row |= {
      'learning_rate': about['learning_rate'],
      'seeds': len(seeds),
      'cpu_minutes': f'{_cpu_minutes(paths):.1f}',
      **_cells(found, '{:.4f}'),
      'mean_dice_worst_seed': f'{min(each):.4f}',
      'mean_dice_best_seed': f'{max(each):.4f}',
    }
    if reference:
      row |= _cells(
        _differences(resampling, (counts, scores), reference),
        '{:+.4f}',
        'difference_of_',
      )
    elif name == names[0]:
      reference = counts, scores
    rows.append(row)
  return rows


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


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
  lines = [
    '| network | view | rate | CPU minutes | pooled Dice | Dice per image |'
    ' worst and best seed | difference to U-Net |',
    '|---|---|---|---|---|---|---|---|',
  ]
  for row in rows:
    start = f'| `{row["network"]}` | {row["view"]} |'
    if 'failure' in row:
      lines.append(f'{start} failed: {row["failure"]} | | | | | |')
      continue
    cell = lambda name, row=row: (
      f'{row[name]} ({row[f"{name}_low"]} to {row[f"{name}_high"]})'
      if name in row
      else ''
    )
    lines.append(
      f'{start} {row["learning_rate"]:g} | {row["cpu_minutes"]} |'
      f' {cell("pooled_dice")} | {cell("mean_dice")} |'
      f' {row["mean_dice_worst_seed"]}, {row["mean_dice_best_seed"]} |'
      f' {cell("difference_of_mean_dice")} |'
    )
  return '\n'.join(lines) + '\n'


def _figure(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Dice per image against the cost of a training, with intervals."""
  figure = matplotlib.figure.Figure(figsize=(9, 5.5), layout='constrained')
  axes = figure.subplots()
  for view, colour in _COLOURS.items():
    those = [row for row in rows if row['view'] == view]
    number = lambda name, those=those: np.array(
      [float(row[name]) for row in those]
    )
    x, y = number('cpu_minutes'), number('mean_dice')
    ends = [y - number('mean_dice_low'), number('mean_dice_high') - y]
    axes.errorbar(x, y, ends, fmt='o', color=colour, capsize=3, label=view)
    for row, *place in zip(those, x, y, strict=True):
      axes.annotate(
        row['network'].removesuffix('_scratch').removesuffix('_lite0'),
        place,
        xytext=(5, 4),
        textcoords='offset points',
        fontsize=8,
      )
  axes.set(
    xlabel='processor time of a training, minutes',
    ylabel='Dice per image, with 95 % interval',
    xscale='log',
  )
  axes.grid(alpha=0.3)
  axes.legend(title='view')
  figure.savefig(path, dpi=100)
