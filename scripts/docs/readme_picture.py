"""Draws the picture for README.md: generated lesions with their outlines.

python -m skinseg_jax.main --config configs/quickstart.py
python scripts/docs/readme_picture.py --workdir runs/quickstart \
  --output docs/pictures/quickstart.png

The cases are spread evenly from the worst to the best IoU of the validation
images. Only runs on generated lesions are accepted, because the images of other
data sets have their own licences.
"""

import argparse
import io
import pathlib
import sys

import matplotlib.figure
import matplotlib.lines
import numpy as np
from PIL import Image

from skinseg_jax import config as config_lib
from skinseg_jax.data.sources import catalog
from skinseg_jax.evaluation import result_files
from skinseg_jax.runtime import errors

_CASES = 4
# Orange and sky blue of Okabe and Ito, which colour-blind people can also tell
# apart. The line styles differ as well.
_TRUE, _PREDICTED = '#e69f00', '#56b4e9'


def draw(workdir: pathlib.Path) -> matplotlib.figure.Figure:
  """Draws the picture from the last evaluation of a run.

  Args:
    workdir: Folder of a run on generated lesions.

  Raises:
    InputError: If the run used other data, or was not evaluated.
  """
  config = config_lib.load(workdir / 'config.json').data
  if config.source != 'synthetic':
    raise errors.InputError(
      f"{workdir}: data.source is '{config.source}', but must be 'synthetic';"
      ' train configs/quickstart.py and give its folder.'
    )
  evaluation = result_files.read(workdir, 'validation')
  source = catalog.open_source(config)
  places = {row['image_id']: i for i, row in enumerate(source.metadata)}
  ranked = evaluation.ranked()
  chosen = [
    ranked[i] for i in np.linspace(0, len(ranked) - 1, _CASES).astype(int)
  ]
  canvas = matplotlib.figure.Figure((2 * _CASES, 4.6), dpi=120)
  grid = canvas.subplots(2, _CASES)
  for column, index in zip(grid.T, chosen, strict=True):
    row = evaluation.rows[index]
    example = source[places[row['image_id']]]
    _draw_case(column, example, evaluation.prediction(index))
    column[1].set_title(f'Dice {float(row["dice"]):.3f}', fontsize=11, pad=4)
  canvas.legend(
    handles=[
      matplotlib.lines.Line2D([], [], color=_TRUE, lw=2, label='true'),
      matplotlib.lines.Line2D(
        [], [], color=_PREDICTED, lw=2, ls='--', label='predicted'
      ),
    ],
    loc='lower center',
    ncols=2,
    frameon=False,
    fontsize=12,
  )
  canvas.subplots_adjust(0.005, 0.09, 0.995, 0.995, wspace=0.03, hspace=0.12)
  return canvas


def _draw_case(axes, example, predicted: np.ndarray) -> None:
  """Draws the image, and below it the image with both outlines."""
  for axis in axes:
    axis.imshow(example['image'])
    axis.axis('off')
  for mask, colour, style in (
    (example['mask'], _TRUE, 'solid'),
    (predicted, _PREDICTED, 'dashed'),
  ):
    axes[1].contour(
      mask, levels=[0.5], colors=colour, linestyles=style, linewidths=2
    )


def main(argv: list[str]) -> None:
  """Parses the command line and draws."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  path = {'type': pathlib.Path, 'required': True}
  parser.add_argument('--workdir', help='folder of a run', **path)
  parser.add_argument('--output', help='png to write', **path)
  args = parser.parse_args(argv[1:])
  buffer = io.BytesIO()
  draw(args.workdir).savefig(buffer)
  # 256 colours: a third of the file size, without a visible difference.
  picture = Image.open(buffer).convert('RGB').quantize(256)
  picture.save(args.output, optimize=True)
  print(f'{_CASES} cases of {args.workdir}: {args.output}')


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
