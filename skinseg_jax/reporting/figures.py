"""Charts of a run and of an evaluation.

Every chart is narrow enough to read on a phone. The colours are Okabe and
Ito's (jfly.uni-koeln.de/color), which colour-blind people can distinguish.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import dates, figure, ticker

from skinseg_jax.evaluation import paper

BLUE, ORANGE, GREY = '#0072B2', '#D55E00', '#666666'
GREEN, PURPLE = '#009E73', '#CC79A7'

# Display names of the scores.
LABELS = {
  'loss': 'Loss',
  'dice': 'Dice (F1)',
  'iou': 'IoU (Jaccard)',
  'jaccard': 'Jaccard (IoU)',
  'accuracy': 'Accuracy',
  'precision': 'Precision',
  'recall': 'Recall (sensitivity)',
  'sensitivity': 'Sensitivity',
  'specificity': 'Specificity',
  'mcc': 'Matthews correlation',
  'threshold_jaccard': 'Thresholded Jaccard',
  'boundary_f1': 'Boundary F1',
  'hd95': '95 % Hausdorff distance',
  'assd': 'Average surface distance',
}
# Scores in pixels; all others have no unit.
DISTANCES = frozenset({'hd95', 'assd'})

_WIDTH = 4.8  # Inches; 10 points are 10 pixels on a phone.
_DPI = 160


def to_png(canvas: figure.Figure) -> bytes:
  """Draws a chart as a PNG file."""
  buffer = io.BytesIO()
  canvas.savefig(buffer, dpi=_DPI, format='png')
  return buffer.getvalue()


def _canvas(height: float, **kwargs) -> tuple[figure.Figure, Any]:
  canvas = figure.Figure(figsize=(_WIDTH, height), layout='constrained')
  axes = canvas.subplots(**kwargs)
  for one in np.ravel(axes):
    one.spines[['top', 'right']].set_visible(False)
    one.grid(alpha=0.3)
    one.set_axisbelow(True)
  return canvas, axes


def training_curve(
  records: Sequence[Mapping[str, float]], name: str, *, paper_figures: bool
) -> figure.Figure:
  """Draws a score by epoch, training and validation.

  Args:
    records: Lines of `metrics.jsonl`.
    name: 'loss', 'dice' or 'accuracy'.
    paper_figures: Whether to also draw the paper's final values.
  """
  epochs = [record for record in records if 'epoch/number' in record]
  numbers = [record['epoch/number'] for record in epochs]
  reference = paper.final_figures()[name] if paper_figures else {}
  canvas, axes = _canvas(3.4)
  for key, label, colour, marker in (
    ('epoch', 'training (augmented)', BLUE, 'o'),
    ('validation', 'validation', ORANGE, 's'),
  ):
    values = [record[f'{key}/{name}'] for record in epochs]
    # Values that were not finite are null in the file.
    values = [np.nan if value is None else value for value in values]
    axes.plot(
      numbers, values, color=colour, label=label, marker=marker, markersize=4
    )
  for (what, value), style in zip(reference.items(), ('--', ':'), strict=False):
    axes.axhline(value, color=GREY, linestyle=style, label=f'paper, {what}')
  axes.set(xlabel='epoch', title=LABELS[name])
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.legend(fontsize=9, loc=f'{"upper" if name == "loss" else "lower"} right')
  return canvas


def confusion_matrix(counts: Mapping[str, int]) -> figure.Figure:
  """Draws pooled counts as a heat map, truth in rows, prediction in columns.

  Args:
    counts: `tp`, `fp`, `fn`, `tn`, pixels of all images.
  """
  table = np.array([
    [counts['tp'], counts['fn']],
    [counts['fp'], counts['tn']],
  ])  # fmt: skip
  share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
  canvas, axes = _canvas(3.9)
  axes.grid(False)
  picture = axes.imshow(share, cmap='Blues', vmin=0, vmax=1, aspect='auto')
  for (row, column), value in np.ndenumerate(share):
    axes.text(
      column,
      row,
      f'{("TP", "FN", "FP", "TN")[2 * row + column]}\n'
      f'{table[row, column]:,}\n{value:.2%} of row',
      ha='center',
      va='center',
      color='white' if value > 0.5 else 'black',
    )
  names = ['lesion', 'skin']
  axes.set_xticks([0, 1], names)
  axes.set_yticks([0, 1], names, rotation=90, va='center')
  axes.set(xlabel='prediction', ylabel='truth', title='Pixels of all images')
  axes.tick_params(length=0)
  bar = canvas.colorbar(picture, ax=axes, label='share of row')
  bar.outline.set_visible(False)
  return canvas


def distribution(
  values: np.ndarray, name: str, *, at: float | None = None
) -> figure.Figure:
  """Draws a histogram of a score over images.

  Args:
    values: One score per image, [N].
    name: Name of the score, a key of `LABELS`.
    at: Limit to draw as a line; None for no line.
  """
  distance = name in DISTANCES
  top = max(values.max(), 1.0) if distance else 1.0
  canvas, axes = _canvas(3.2)
  axes.hist(values, bins=np.linspace(0, top, 41), color=BLUE)
  for value, style, label in (
    (np.mean(values), '-', 'mean'),
    (np.median(values), '--', 'median'),
  ):
    shown = f'{value:.1f} px' if distance else f'{value:.1%}'
    axes.axvline(value, color=ORANGE, ls=style, label=f'{label} {shown}')
  if at is not None:
    below = np.mean(values < at)
    axes.axvline(at, color=GREY, ls=':', label=f'{below:.1%} below {at:g}')
  axes.set(
    xlabel='pixels' if distance else LABELS[name],
    ylabel='images',
    title=f'{LABELS[name]} per image, n = {len(values):,}',
  )
  axes.legend(fontsize=9, loc=f'upper {"right" if distance else "left"}')
  return canvas


def precision_recall(
  curve: Mapping[str, Sequence[float]],
  points: Mapping[str, tuple[float, float]],
  average_precision: float | None,
) -> figure.Figure:
  """Draws precision against recall of all pixels.

  Args:
    curve: `precision` and `recall`, [K] each.
    points: Recall and precision to mark, by label.
    average_precision: Area under the curve; None if there are no lesion pixels.
  """
  canvas, axes = _canvas(3.6)
  area = '' if average_precision is None else f' (area {average_precision:.4f})'
  axes.plot(curve['recall'], curve['precision'], color=BLUE, label='all' + area)
  for (label, point), style in zip(
    points.items(),
    (
      {'marker': 'o', 'ms': 11, 'mew': 2, 'mfc': 'none', 'color': ORANGE},
      {'marker': 's', 'ms': 5, 'color': 'black'},
    ),
    strict=False,
  ):
    axes.plot(*point, label=label, ls='', **style)
  axes.set(
    xlabel=LABELS['recall'],
    ylabel='Precision',
    xlim=(0, 1.02),
    ylim=(0, 1.02),
    title='Precision and recall of pixels',
  )
  axes.legend(fontsize=9, loc='lower left')
  return canvas


def threshold_sweep(
  sweep: Mapping[str, Sequence[float]], marks: Mapping[str, float]
) -> figure.Figure:
  """Draws pooled scores by threshold.

  Args:
    sweep: `threshold`, `dice`, `iou`, `precision`, `recall`, [K] each.
    marks: Thresholds to mark, by label.
  """
  canvas, axes = _canvas(3.8)
  for name, colour, style in (
    ('dice', BLUE, '-'),
    ('iou', PURPLE, '-'),
    ('precision', GREEN, '--'),
    ('recall', ORANGE, '--'),
  ):
    label = LABELS[name].partition(' ')[0]
    axes.plot(sweep['threshold'], sweep[name], style, c=colour, label=label)
  for (label, value), style in zip(marks.items(), ('-', ':'), strict=False):
    axes.axvline(value, color=GREY, ls=style, label=label)
  axes.set(xlabel='threshold', xlim=(0, 1), title='Pooled scores by threshold')
  axes.legend(
    fontsize=9, loc='upper center', bbox_to_anchor=(0.5, -0.2), ncol=2
  )
  return canvas


def reliability(rows: Sequence[Mapping[str, float]]) -> figure.Figure:
  """Draws the share of lesion pixels for each predicted probability.

  Args:
    rows: From `calibration.reliability`.
  """
  canvas, (top, bottom) = _canvas(
    4.4, nrows=2, sharex=True, height_ratios=(3, 1)
  )
  confidence = [row['confidence'] for row in rows]
  top.plot([0, 1], [0, 1], color=GREY, ls='--', label='perfect')
  top.plot(
    confidence,
    [row['frequency'] for row in rows],
    'o-',
    color=BLUE,
    markersize=4,
    label='this run',
  )
  top.set(
    ylabel='share that is lesion', ylim=(0, 1), title='Reliability of pixels'
  )
  top.legend(fontsize=9, loc='upper left')
  total = sum(row['pixels'] for row in rows)
  bottom.bar(
    [row['low'] for row in rows],
    [row['pixels'] / total for row in rows],
    [row['high'] - row['low'] for row in rows],
    align='edge',
    color=BLUE,
    edgecolor='white',
  )
  bottom.set(
    xlabel='predicted probability of lesion',
    ylabel='pixels',
    yscale='log',
    xlim=(0, 1),
  )
  bottom.yaxis.set_major_formatter(ticker.PercentFormatter(1))
  return canvas


def forest(
  rows: Sequence[Mapping[str, Any]],
  overall: float,
  title: str,
  *,
  lowest: float,
) -> figure.Figure:
  """Draws pooled Dice with its interval for each group of an attribute.

  Args:
    rows: From `subgroups.table`, of one attribute.
    overall: Pooled Dice of all images.
    title: Name of the attribute.
    lowest: Lower limit of the axis, the same for all attributes.
  """
  canvas, axes = _canvas(1.2 + 0.34 * len(rows))
  axes.axvline(overall, color=GREY, ls='--', lw=1)
  for y, row in enumerate(rows):
    dice, few = row['dice'], bool(row['warning'])
    colour = GREY if few else BLUE
    if dice['low'] is not None:
      axes.plot([dice['low'], dice['high']], [y] * 2, color=colour, lw=2)
    axes.plot(
      dice['value'], y, 'o', color=colour, mfc='white' if few else colour
    )
  axes.set_yticks(
    range(len(rows)),
    [f'{_short(row["group"])}  (n={row["images"]:,})' for row in rows],
  )
  axes.set(
    xlim=(lowest, 1.0),
    ylim=(len(rows) - 0.5, -0.5),
    xlabel='pooled Dice; dashed: all images',
  )
  canvas.suptitle(title, fontsize=11)
  return canvas


def skin_tone(ita: np.ndarray, dice: np.ndarray) -> figure.Figure:
  """Draws Dice against the typology angle of the skin, a dot per image.

  Args:
    ita: Angle in degrees, [N]; NaN where there is none.
    dice: Dice of the same images, [N].
  """
  known = ~np.isnan(ita)
  canvas, axes = _canvas(3.2)
  axes.plot(ita[known], dice[known], 'o', color=BLUE, ms=3, mew=0, alpha=0.4)
  axes.set(
    xlabel='typology angle of the skin (ITA), degrees; right: lighter',
    ylabel=LABELS['dice'],
    ylim=(-0.02, 1.02),
    title=f'Dice by skin tone, n = {known.sum():,}',
  )
  return canvas


def course(
  values: Sequence[float],
  lows: Sequence[float],
  highs: Sequence[float],
  *,
  where: Sequence[Any],
  marks: Sequence[str],
  usual: tuple[float, float],
  title: str,
  unit: str,
) -> figure.Figure:
  """Draws a measure of one lesion over time.

  Args:
    values: One value per picture, [N].
    lows: Lower ends of the band, [N]; NaN where it is not known.
    highs: Upper ends of the band, [N]; likewise.
    where: Dates, or numbers of the pictures, [N].
    marks: 'usual', 'beyond' or 'cut' (off by the picture's edge), [N].
    usual: Range within which repeated pictures would lie.
    title: Name of the measure.
    unit: Its unit; '' for none.
  """
  canvas, axes = _canvas(2.6)
  axes.axhspan(*usual, color=GREY, alpha=0.15, lw=0)
  axes.fill_between(where, lows, highs, color=BLUE, alpha=0.25, lw=0)
  axes.plot(where, values, color=BLUE)
  # Around the middle of the band: the value may lie outside of it.
  middle, half = np.add(lows, highs) / 2, np.subtract(highs, lows) / 2
  axes.errorbar(where, middle, half, color=BLUE, capsize=3, fmt='none')
  for mark, style in (
    ('usual', {'marker': 'o', 'color': BLUE}),
    ('beyond', {'marker': 'D', 'color': ORANGE}),
    ('cut', {'marker': 'o', 'color': BLUE, 'mfc': 'white'}),
  ):
    chosen = [i for i, one in enumerate(marks) if one == mark]
    axes.plot(
      [where[i] for i in chosen],
      [values[i] for i in chosen],
      ls='',
      ms=7,
      zorder=3,
      **style,
    )
  axes.set(title=title, ylabel=unit)
  if isinstance(where[0], int):
    axes.set_xlabel('picture')
    axes.set_xticks(where)
  else:
    # With 5 ticks at least, some ranges, such as 3 days, have no interval.
    locator = dates.AutoDateLocator(minticks=2, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
  return canvas


def _short(name: str, most: int = 18) -> str:
  name = name if len(name) <= most else name[: most - 1] + '…'
  return name.replace('$', r'\$')  # Matplotlib reads $...$ as a formula.
