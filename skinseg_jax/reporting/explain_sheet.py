"""Draws all that there is to see about one prediction on one sheet."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import figure

from skinseg_jax.explanation import explainer

# Maps beside each other; below each is that of the random weights.
_MOST_COLUMNS = 7
_PANEL = 2.3  # Inches.


def draw(found: explainer.Explanation, name: str) -> figure.Figure:
  """Draws a sheet.

  The first row has the picture, the probability and the uncertainty. Below are
  the maps, each above the same map of a network with random weights.

  Args:
    found: The explanation of one picture.
    name: Of the picture, for the title.
  """
  pairs = -(-len(found.maps) // _MOST_COLUMNS)
  # The first row has four panels.
  columns = max(4, -(-len(found.maps) // pairs))
  rows = 1 + 2 * pairs
  shape = min(1.0, found.size[0] / found.size[1])
  canvas = figure.Figure(
    figsize=(columns * _PANEL, rows * (_PANEL * shape + 0.45) + 0.5),
    layout='constrained',
  )
  canvas.suptitle(_title(found, name), fontsize=11, parse_math=False)
  grid = canvas.subplots(rows, columns, squeeze=False)
  for axes in grid.ravel():
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
  _draw_answer(grid[0], found)
  for i, one in enumerate(found.maps):
    row, column = 1 + 2 * (i // columns), i % columns
    _draw_map(grid[row, column], found, one, one.values)
    _draw_map(grid[row + 1, column], found, one, one.random)
    grid[row, column].set_title(_label(one), fontsize=8)
    grid[row + 1, column].set_title(_correlation(one), fontsize=8)
  for row in range(1, rows, 2):
    grid[row, 0].set_ylabel('this network', fontsize=9)
    grid[row + 1, 0].set_ylabel('random weights', fontsize=9)
  return canvas


def _title(found: explainer.Explanation, name: str) -> str:
  share = found.mask.mean()
  text = f'{name}: lesion on {100 * share:.1f} % of the picture'
  if not share:
    text = f'{name}: no lesion found'
  return text + ('' if found.of_lesion else '; maps are about all pixels')


def _label(one: explainer.Map) -> str:
  """Two lines over a map: what it is, and its size or range."""
  size = f'{one.values.shape[0]} x {one.values.shape[1]}'
  if one.kind == explainer.OCCLUSION:
    return f'occlusion\n± {np.abs(one.values).max():.2f} logits'
  # Of a long path, the end says more than the beginning.
  name = one.name if len(one.name) < 24 else f'…{one.name[-22:]}'
  return f'{one.kind} {size}\n{name}'


def _correlation(one: explainer.Map) -> str:
  if one.correlation is None:
    return 'a flat map'
  return f'rank correlation {round(one.correlation, 2) + 0.0:.2f}'


def _draw_answer(row: Any, found: explainer.Explanation) -> None:
  panels: Sequence[tuple[str, np.ndarray, dict[str, float]]] = (
    ('picture, outline of the mask', found.image, {}),
    ('probability, 0 to 1', found.probability, {'vmax': 1.0}),
    ('entropy, 0 to 1 bit', found.entropy, {'vmax': 1.0}),
    ('spread of views, 0 to .5', found.spread, {'vmax': 0.5}),
  )
  for axes, (title, values, limits) in zip(row, panels, strict=False):
    options = {'cmap': 'cividis', 'vmin': 0.0, **limits} if limits else {}
    axes.imshow(values, extent=_extent(found), **options)
    axes.set_title(title, fontsize=8)
    if values is not found.entropy and values is not found.spread:
      _outline(axes, found)  # It would hide what lies along the outline.


def _draw_map(
  axes: Any, found: explainer.Explanation, one: explainer.Map, values: Any
) -> None:
  """A map over the grey picture; each is scaled to its own range."""
  axes.imshow(found.image.mean(axis=2), cmap='gray', extent=_extent(found))
  if one.kind == explainer.GRAD_CAM:
    values = np.maximum(values, 0)
  highest = float(np.abs(values).max()) or 1.0
  options: dict[str, Any] = {'cmap': 'inferno', 'vmin': 0.0, 'vmax': highest}
  if one.kind == explainer.OCCLUSION:
    options = {'cmap': 'PuOr_r', 'vmin': -highest, 'vmax': highest}
  elif one.kind == explainer.ATTENTION:
    options['vmax'] = 1.0
  axes.imshow(
    values,
    extent=_extent(found),
    alpha=0.65,
    interpolation='bilinear',
    **options,
  )
  _outline(axes, found)


def _extent(found: explainer.Explanation) -> tuple[float, float, float, float]:
  """Places arrays of any size on the picture, in its own proportions."""
  height, width = found.size
  return (0, width, height, 0)


def _outline(axes: Any, found: explainer.Explanation) -> None:
  if found.mask.all() or not found.mask.any():
    return  # It has none.
  height, width = found.size
  rows, columns = found.mask.shape
  axes.contour(
    (np.arange(columns) + 0.5) * width / columns,
    (np.arange(rows) + 0.5) * height / rows,
    found.mask,
    levels=[0.5],
    colors='#56B4E9',
    linewidths=1.0,
  )
