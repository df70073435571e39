"""Table and figure of the study of networks, from the counts of its trainings.

Writes `networks.csv`, `networks.md` and `networks.png`.
"""

import csv
import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.axes
import matplotlib.figure
import measured
import numpy as np
from matplotlib import ticker
from scipy import special

from skinseg_jax.metrics import bootstrap

_UPPER = (1 + bootstrap.CONFIDENCE) / 2
_NOT_MEASURED = 'not measured'
_BRACKETS = """\
- Differences are of Dice per image, on the same images.
- Round brackets hold 95 % intervals for other images (bootstrap of lesions).
- Square brackets hold 95 % intervals for other images and other seeds.
"""
_SCORES = ('pooled_dice', 'mean_dice', 'threshold_jaccard')
_COLOURS = {
  'scratch': '#0072b2', 'pretrained': '#d55e00', 'classical': '#555555',
}  # fmt: skip


class View(NamedTuple):
  """Rows that belong together, and the network they are compared with."""

  names: Sequence[str]
  reference: str


class _Basis(NamedTuple):
  """What all rows share.

  Attributes:
    resampling: Draws of the lesions of the images that were scored.
    unseen: Whether training shows no picture of the lesion, bool [N].
    seed_variance: How much Dice per image of a network varies with the seed.
      All networks are taken to have the same variance, because two seeds alone
      say little of it. It is nan if no network has two.
    seed_degrees: Degrees of freedom of this variance.
  """

  resampling: bootstrap.Resampling
  unseen: np.ndarray
  seed_variance: float
  seed_degrees: int


def write(
  folder: pathlib.Path,
  views: Mapping[str, View],
  lesions: Sequence[str],
  trained: Collection[str],
  *,
  in_wall_time: bool,
) -> None:
  """Writes the results of what was measured.

  Counts are summed over seeds, and the scores of an image averaged. Intervals
  resample lesions, so they say how much other images would change a score. A
  difference of Dice per image has a second interval, and a p-value, for other
  images and other seeds: they add both variances (Welch's t-test, with
  Satterthwaite's degrees of freedom).

  Args:
    folder: Holds the counts; the results are written beside them.
    views: Networks and classical methods by view.
    lesions: Lesion of each scored image, in the order of the counts.
    trained: Lesions of the training images.
    in_wall_time: Whether a training's cost is its wall time; otherwise it is
      processor time.
  """
  basis = _Basis(
    bootstrap.resample(lesions),
    np.array([lesion not in trained for lesion in lesions]),
    *_spread(folder, [name for view in views.values() for name in view.names]),
  )
  rows = [
    row
    for name, view in views.items()
    for row in _rows(folder, name, view, basis)
  ]
  _correct(rows)
  columns = list(dict.fromkeys(name for row in rows for name in row))
  with (folder / 'networks.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, columns, restval='', lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  clock = 'minutes' if in_wall_time else 'cpu_minutes'
  text = f'{_markdown(views, rows, clock)}\n{_total(folder, rows)}\n'
  (folder / 'networks.md').write_text(text, encoding='utf-8')
  scored = [row for row in rows if 'mean_dice' in row]
  _figure(folder / 'networks.png', scored, clock)


def _rows(
  folder: pathlib.Path, view_name: str, view: View, basis: _Basis
) -> list[dict[str, Any]]:
  reference = _files(folder, view.reference)
  rows = []
  for name in view.names:
    row: dict[str, Any] = {'name': name, 'view': view_name}
    rows.append(row)
    if not (files := _files(folder, name)):
      failed = folder / f'{name}.failed'
      row['failure'] = _NOT_MEASURED
      if failed.exists():
        lines = failed.read_text(encoding='utf-8').splitlines()
        row['failure'] = f'failed: {lines[0]}'
      continue
    about = json.loads((folder / f'{name}.json').read_text())
    if 'learning_rate' in about:
      row['learning_rate'] = about['learning_rate']
      row['dice_of_rates'] = ', '.join(
        f'{rate}: ' + ('diverged' if dice < 0 else f'{dice:.4f}')
        for rate, dice in about['tried'].items()
      )
      row |= _of_trainings(files)
    row['predict_ms'] = about['predict_ms']
    row |= _of_images(measured.read(files), basis)
    if reference and name != view.reference:
      row |= _compared(files, reference, basis)
  return rows


def _of_images(
  found: tuple[measured.Counts, measured.Scores], basis: _Basis
) -> dict[str, str]:
  """Cells of the scores."""
  counts, scores = found
  pooled = bootstrap.pooled(basis.resampling, counts)
  means = bootstrap.means(basis.resampling, scores)
  dice, area = scores['dice'], counts['tp'] + counts['fn']
  small = area <= np.quantile(area, 0.25)
  return {
    **_cells(pooled, means, '{:.4f}'),
    'mean_dice_unseen_lesions': f'{dice[basis.unseen].mean():.4f}',
    'mean_dice_smallest_quarter': f'{dice[small].mean():.4f}',
  }


def _compared(
  files: Sequence[pathlib.Path],
  reference: Sequence[pathlib.Path],
  basis: _Basis,
) -> dict[str, Any]:
  """Cells of the differences to the reference."""
  draws = basis.resampling
  (counts, scores), (others, other_scores) = map(
    measured.read, (files, reference)
  )
  pooled = bootstrap.pooled_difference(draws, counts, others)
  means = bootstrap.mean_difference(draws, scores, other_scores)
  return {
    **_cells(pooled, means, '{:+.4f}', 'difference_of_'),
    **_with_seeds(means['dice'], basis, files, reference),
  }


def _correct(rows: Sequence[dict[str, Any]]) -> None:
  """Replaces the p-values of differences of Dice per image by Holm's.

  All comparisons are one family (Holm, Scand. J. Stat. 6, 65, 1979).
  """
  name = 'p_value_of_mean_dice'
  tested = [row for row in rows if row.get(name) is not None]
  tested.sort(key=lambda row: row[name])
  largest = 0.0
  for before, row in enumerate(tested):
    largest = max(largest, min(1.0, (len(tested) - before) * row[name]))
    row[name] = f'{largest:.2g}' if largest >= 1e-4 else '<0.0001'


def _files(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
  """Counts of a method or of all seeds of a network.

  Empty if it is not finished or failed.
  """
  failed = (folder / f'{name}.failed').exists()
  if failed or not (folder / f'{name}.json').exists():
    return []
  if (alone := folder / f'{name}.npz').exists():
    return [alone]
  return sorted(folder.glob(f'{name}_seed*.npz'))


def _dice_of_seeds(files: Sequence[pathlib.Path]) -> list[float]:
  return [float(measured.read([path])[1]['dice'].mean()) for path in files]


def _spread(folder: pathlib.Path, names: Sequence[str]) -> tuple[float, int]:
  """Variance of the seeds around the mean of their network, and its degrees."""
  groups = [
    _dice_of_seeds(files) for n in names if (files := _files(folder, n))
  ]
  squares = sum(len(each) * np.var(each) for each in groups)
  degrees = sum(len(each) - 1 for each in groups)
  return squares / degrees if degrees else np.nan, degrees


def _with_seeds(
  difference: bootstrap.Difference,
  basis: _Basis,
  *both: Sequence[pathlib.Path],
) -> dict[str, Any]:
  """Cells for other images and other seeds: the interval and the p-value.

  Args:
    difference: With its interval for other images.
    basis: Has the spread of the seeds.
    *both: Files of the two that are compared.
  """
  if not basis.seed_degrees:
    return {}
  trained = [files for files in both if '_seed' in files[0].stem]
  lesions = basis.resampling.num_clusters - 1
  width = (difference.high - difference.low) / 2
  images = (width / special.stdtrit(lesions, _UPPER)) ** 2
  seeds = basis.seed_variance * sum(1 / len(files) for files in trained)
  degrees = (images + seeds) ** 2 / (
    images**2 / lesions + seeds**2 / basis.seed_degrees
  )
  error = np.sqrt(images + seeds)
  value, far = difference.value, special.stdtrit(degrees, _UPPER) * error
  return {
    'difference_of_mean_dice_with_seeds_low': f'{value - far:+.4f}',
    'difference_of_mean_dice_with_seeds_high': f'{value + far:+.4f}',
    'p_value_of_mean_dice': 2 * special.stdtr(degrees, -abs(value) / error),
  }


def _of_trainings(files: Sequence[pathlib.Path]) -> dict[str, Any]:
  each = _dice_of_seeds(files)
  minutes = lambda clock: f'{np.mean(measured.seconds(files, clock)) / 60:.1f}'
  return {
    'seeds': len(files),
    'cpu_minutes': minutes('cpu_seconds'),
    'minutes': minutes('seconds'),
    'mean_dice_worst_seed': f'{min(each):.4f}',
    'mean_dice_best_seed': f'{max(each):.4f}',
  }


def _total(folder: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> str:
  """Processor time of all trainings of networks in the table."""
  names = [row['name'] for row in rows if row.get('failure') != _NOT_MEASURED]
  rates, seeds = (
    measured.seconds(
      [file for name in names for file in folder.glob(f'{name}_{kind}*.npz')],
      'cpu_seconds',
    )
    for kind in ('rate', 'seed')
  )
  return (
    f'Processor time: {sum(seeds) / 3600:.1f} hours for {len(seeds)} trainings,'
    f' and {sum(rates) / 3600:.1f} hours for {len(rates)} short ones that chose'
    ' the rates.'
  )


def _cells(pooled, means, style: str, prefix: str = '') -> dict[str, str]:
  """Cells of three scores and the ends of their intervals."""
  scores = (pooled['dice'], means['dice'], means['threshold_jaccard'])
  return {
    f'{prefix}{name}{suffix}': style.format(value)
    for name, interval in zip(_SCORES, scores, strict=True)
    for suffix, value in (
      ('', interval.value), ('_low', interval.low), ('_high', interval.high)
    )
  }  # fmt: skip


def _markdown(
  views: Mapping[str, View], rows: Sequence[Mapping[str, Any]], clock: str
) -> str:
  """A table for each view, and what the brackets hold."""
  tables = []
  for name, view in views.items():
    lines = [
      f'| {name} | pooled Dice | Dice per image |'
      f' difference to `{view.reference}` [with seeds] | worst and best seed |'
      ' training, prediction |',
      '|---|---|---|---|---|---|',
      *(_line(row, clock) for row in rows if row['view'] == name),
    ]
    tables.append('\n'.join(lines) + '\n')
  return '\n'.join([*tables, _BRACKETS])


def _line(row: Mapping[str, Any], clock: str) -> str:
  if 'failure' in row:
    why = row['failure'].replace('|', '\\|')
    return f'| `{row["name"]}` | {why} | | | | |'
  cells = [f'`{row["name"]}`']
  for score in ('pooled_dice', 'mean_dice', 'difference_of_mean_dice'):
    ends = [row.get(f'{score}{end}') for end in ('', '_low', '_high')]
    cells.append('{} ({} to {})'.format(*ends) if ends[0] else '')
  with_seeds = 'difference_of_mean_dice_with_seeds'
  if f'{with_seeds}_low' in row:
    cells[-1] += f' [{row[f"{with_seeds}_low"]} to {row[f"{with_seeds}_high"]}]'
  seeds, cost = '', f'{row["predict_ms"]:.1f} ms'
  if 'seeds' in row:
    seeds = f'{row["mean_dice_worst_seed"]}, {row["mean_dice_best_seed"]}'
    cost = f'{row[clock]} min, {cost}'
  return f'| {" | ".join([*cells, seeds, cost])} |'


def _figure(
  path: pathlib.Path, rows: Sequence[Mapping[str, Any]], clock: str
) -> None:
  """Dice per image against the cost of training and of prediction."""
  figure = matplotlib.figure.Figure(figsize=(9, 12), layout='constrained')
  upper, lower = figure.subplots(2, 1)
  figure.draw_without_rendering()  # Makes the axes as large as they will be.
  _scatter(upper, clock, [row for row in rows if clock in row])
  _scatter(lower, 'predict_ms', rows)
  kind = 'wall time' if clock == 'minutes' else 'processor time'
  upper.set(title='networks', xlabel=f'{kind} of a training, minutes')
  lower.set(
    title='networks and classical methods',
    xlabel='time of a prediction, milliseconds per image',
  )
  figure.supylabel('Dice per image, with 95 % interval for other images')
  figure.savefig(path, dpi=100)


def _scatter(
  axes: matplotlib.axes.Axes, cost: str, rows: Sequence[Mapping[str, Any]]
) -> None:
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
    axes.errorbar(
      x, y, ends, fmt='o', color=colour, capsize=2, lw=0.8, label=view
    )
  axes.set_xscale('log')
  # Half the error is the same distance up, wherever a point is.
  axes.set_yscale('function', functions=(_height, lambda y: 1 - np.exp(-y)))
  axes.margins(x=0.1, y=0.08)
  axes.set_xlim(right=1.6 * axes.get_xlim()[1])  # So that names fit.
  axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
  axes.xaxis.set_minor_locator(ticker.NullLocator())
  axes.grid(alpha=0.3)
  axes.legend(title='view')
  _label(axes, cost, rows)


def _height(dice: np.ndarray) -> np.ndarray:
  return -np.log(np.maximum(1 - dice, 1e-6))


def _label(
  axes: matplotlib.axes.Axes, cost: str, rows: Sequence[Mapping[str, Any]]
) -> None:
  """Writes names beside points, from low to high; none covers another."""
  height, letter = 10, 4.6  # Of a name, in points.
  taken: list[tuple[float, float, float]] = []
  scale = 72 / axes.figure.dpi
  for row in sorted(rows, key=lambda row: float(row['mean_dice'])):
    place = float(row[cost]), float(row['mean_dice'])
    x, y = axes.transData.transform(place) * scale
    end, up = x + letter * len(row['name']), 2.0
    while any(
      x < other_end and other < end and abs(y + up - level) < height
      for other, other_end, level in taken
    ):
      up += 1
    taken.append((x, end, y + up))
    axes.annotate(
      row['name'],
      place,
      xytext=(5, up),
      textcoords='offset points',
      fontsize=8,
      color=_COLOURS[row['view']],
    )
