"""Predicts a mask for each image.

python -m skinseg_jax.predict --input FILE|DIR ... --output DIR [--workdir DIR]
python -m skinseg_jax.predict --input FILE|DIR ... --output DIR --method NAME

The mask of a file x.jpg is DIR/x.png; it has the size of its image. Folders are
searched with all folders below them, and their tree is kept: the mask of
p0/x.jpg is DIR/p0/x.png.

Without --workdir, the model that comes with skinseg_jax is used. With --method,
a classical method takes its place, which needs no training. The config of
the model says how images are prepared. Files that cannot be read are
listed on stderr and skipped; the exit code is then 1. The EXIF orientation is
applied, so a mask fits its image as viewers show it. No EXIF data is copied.
"""

import argparse
import sys
from typing import Any

from skinseg_jax import config as config_lib
from skinseg_jax.classical import catalog, parameters
from skinseg_jax.inference import predictions
from skinseg_jax.runtime import errors, paths
from skinseg_jax.weights import shared_model


def main(argv: list[str]) -> None:
  """Parses the command line and predicts."""
  args = _parse(argv)
  outputs = predictions.Outputs(
    masks=args.output,
    overlays=args.output / 'overlay' if args.overlay else None,
    probabilities=args.output / 'probability' if args.probability else None,
  )
  inputs, notes = predictions.find_images(args.input, leave_out=args.output)
  predictions.check_outputs(inputs, outputs, args.overwrite)
  model = _model(args)
  try:
    problems, several = predictions.predict(model, inputs, outputs)
  except OSError as error:
    raise errors.InputError(
      f'cannot write to {args.output}: {error.strerror}; choose another'
      ' --output.'
    ) from error
  if several:
    notes.append(
      f'{len(several)} files hold several pictures; the first is used:\n'
      + errors.listing(several)
    )
  for note in notes:
    print(note)
  by = args.method or f'checkpoint of step {model.step}'
  print(f'wrote {len(inputs) - len(problems)} masks to {args.output} ({by})')
  if problems:
    print(
      f'skipped {len(problems)} of {len(inputs)} files:\n'
      + errors.listing(problems, most=len(problems)),
      file=sys.stderr,
    )
    sys.exit(1)


def _model(args: argparse.Namespace):
  """The model or the method that the flags name."""
  if args.method is None:
    workdir = shared_model.chosen(args.workdir)
    config_lib.load(workdir / 'config.json')  # Is it a run?
  # Imported after the flags are checked, because the import takes seconds.
  from skinseg_jax.inference import classical_model, trained_model
  from skinseg_jax.runtime import devices

  devices.use('auto')
  if args.method is not None:
    return classical_model.load(args.method, config_lib.Config())
  return trained_model.load(workdir, args.checkpoint or 'last')


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m skinseg_jax.predict',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  path: dict[str, Any] = {'type': paths.user_path, 'required': True}
  add = parser.add_argument
  add(
    '--workdir',
    metavar='DIR',
    type=paths.user_path,
    help='folder of a run or of a shared model; default: the model that comes'
    ' with skinseg_jax',
  )
  add(
    '--method',
    metavar='NAME',
    help='classical method in place of a model: '
    + ', '.join(parameters.METHODS),
  )
  add(
    '--input',
    nargs='+',
    metavar='PATH',
    help='image files or folders of images',
    **path,
  )
  add('--output', metavar='DIR', help='folder to write masks to', **path)
  add(
    '--checkpoint',
    help='best (by validation Dice), last or a step number; default: last',
  )
  add(
    '--overlay',
    action='store_true',
    help='also write the images with their masks to overlay/',
  )
  add(
    '--probability',
    action='store_true',
    help='also write probability maps to probability/: 0 to 255 for a'
    ' probability of lesion from 0 to 1',
  )
  add(
    '--overwrite',
    action='store_true',
    help='write over masks that are there already',
  )
  args = parser.parse_args(argv[1:])
  if args.method is not None:
    catalog.find(args.method)
    if args.workdir is not None or args.checkpoint is not None:
      raise errors.InputError(
        f'--method {args.method} uses no trained model; leave --workdir and'
        ' --checkpoint out.'
      )
  return args


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
