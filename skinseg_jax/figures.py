"""Pictures of a run, as PNG files."""

import pathlib
from collections.abc import Mapping, Sequence

from matplotlib import figure

from skinseg_jax import paper

# Okabe and Ito's colours, told apart by colour-blind people.
BLUE, ORANGE, GREY = '#0072B2', '#D55E00', '#666666'


def training_curves(
  records: Sequence[Mapping[str, float]],
  path: pathlib.Path,
  *,
  paper_figures: bool,
) -> None:
  """Draws loss, Dice and accuracy by epoch, training and validation.

  Args:
    records: Lines of `metrics.jsonl`.
    path: PNG to write.
    paper_figures: Whether to draw the paper's final figures too.
  """
  epochs = [record for record in records if 'epoch/number' in record]
  numbers = [record['epoch/number'] for record in epochs]
  reference = paper.final_figures() if paper_figures else {}
  canvas = figure.Figure(figsize=(11, 3.6), layout='constrained')
  for axes, name in zip(
    canvas.subplots(1, 3), ('loss', 'dice', 'accuracy'), strict=True
  ):
    for key, label, colour in (
      ('epoch', 'training (augmented)', BLUE),
      ('validation', 'validation', ORANGE),
    ):
      axes.plot(
        numbers,
        [record[f'{key}/{name}'] for record in epochs],
        marker='o',
        markersize=4,
        color=colour,
        label=label,
      )
    for (what, value), style in zip(
      reference.get(name, {}).items(), ('--', ':'), strict=False
    ):
      axes.axhline(value, color=GREY, linestyle=style, label=f'paper, {what}')
    axes.set(xlabel='epoch', title=name.capitalize())
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
  path.parent.mkdir(parents=True, exist_ok=True)
  canvas.savefig(path, dpi=120)
