"""Draws where the model that comes with the package fails.

python scripts/docs/failure_sketches.py --output docs/pictures/failures.png

The five sketches follow the worst images of the paper's validation set. They
show no patient, and no output of the model.
"""

import argparse
import pathlib
import sys

import matplotlib.axes
import matplotlib.figure
import matplotlib.lines
import matplotlib.patches
import numpy as np

from skinseg_jax.runtime import errors

_SKIN = '#e3b79b'
_EXPERT = {'edgecolor': 'black', 'linestyle': '--'}
_MODEL = {'edgecolor': '#0050d0', 'linestyle': '-'}
# Title, then patches from back to front: width, height, colour, opacity; then
# width and height of the expert's outline and of the model's.
_SKETCHES = (
  ('reddened skin is\nmarked as lesion',
   [(84, 62, '#cf6a5c', 0.45), (40, 30, '#8c2f3c', 0.9)], (40, 30), (82, 60)),
  ('faint pigment\nis left out',
   [(80, 60, '#b98461', 0.45), (38, 30, '#5d3724', 0.95)], (80, 60), (42, 33)),
  ('dark spot on hairy skin:\nthe area around it is marked',
   [(70, 52, '#c99c7e', 0.5), (26, 20, '#4a2c1e', 0.95)], (26, 20), (66, 48)),
  ('scaly skin beside the\nlesion is marked',
   [(84, 50, '#e9cfc0', 0.8), (44, 40, '#a8664a', 0.9)], (44, 40), (80, 50)),
  ('the pale halo of a naevus\nis left out',
   [(70, 60, '#f1d9c8', 0.9), (36, 32, '#6b4128', 0.95)], (70, 60), (38, 34)),
)  # fmt: skip
_HAIRY = 2  # Which of them has hair.


def _ellipse(size: tuple[float, float], **style) -> matplotlib.patches.Ellipse:
  return matplotlib.patches.Ellipse((60, 45), *size, **style)


def _draw(axes: matplotlib.axes.Axes, index: int) -> None:
  title, patches, expert, model = _SKETCHES[index]
  axes.set(xlim=(0, 120), ylim=(0, 90), aspect='equal', facecolor=_SKIN)
  axes.set_xticks([])
  axes.set_yticks([])
  axes.set_title(title, fontsize=9)
  for *size, colour, opacity in patches:
    axes.add_patch(_ellipse(size, color=colour, alpha=opacity, linewidth=0))
  if index == _HAIRY:
    rng = np.random.default_rng(0)
    for start, end in zip(
      rng.uniform((0, 0), (110, 90), (16, 2)),
      rng.uniform((10, 0), (120, 90), (16, 2)),
      strict=True,
    ):
      axes.plot(*zip(start, end, strict=True), color='#2b1c14', linewidth=0.8)
  for size, style in ((expert, _EXPERT), (model, _MODEL)):
    axes.add_patch(_ellipse(size, fill=False, linewidth=1.8, **style))


def main(argv: list[str]) -> None:
  """Draws and writes the picture."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--output', type=pathlib.Path, required=True)
  args = parser.parse_args(argv[1:])
  figure = matplotlib.figure.Figure(figsize=(12, 2.9), layout='constrained')
  for index, axes in enumerate(figure.subplots(1, len(_SKETCHES))):
    _draw(axes, index)
  lines = [
    matplotlib.lines.Line2D(
      [], [], color=style['edgecolor'], linestyle=style['linestyle']
    )
    for style in (_EXPERT, _MODEL)
  ]
  figure.legend(
    lines,
    ["expert's outline", "model's outline"],
    loc='outside lower center',
    ncols=2,
    frameon=False,
  )
  figure.savefig(args.output, dpi=80)


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
