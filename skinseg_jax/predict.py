"""Predicts a mask for each image, at the image's own size and under its stem.

python -m skinseg_jax.predict --workdir DIR --input FILE|DIR ... --output DIR

How images are prepared comes from the run's config. A file that cannot be read
is named on stderr and skipped; the exit code is then 1. A picture that its EXIF
orientation turns is predicted upright: the mask is that of the picture as
viewers show it. No EXIF data is copied.
"""

import argparse
import pathlib
import sys
from typing import Any

from skinseg_jax.inference import predictions, trained_model
from skinseg_jax.runtime import devices, errors


def main(argv: list[str]) -> None:
  """Parses the command line and predicts."""
  args = _parse(argv)
  paths = predictions.find_images(args.input)
  outputs = predictions.Outputs(
    masks=args.output,
    overlays=args.output / 'overlay' if args.overlay else None,
    probabilities=args.output / 'probability' if args.probability else None,
  )
  predictions.check_outputs(paths, outputs, args.overwrite)
  devices.use('auto')
  model = trained_model.load(args.workdir, args.checkpoint)
  try:
    problems = predictions.predict(model, paths, outputs)
  except OSError as error:
    raise errors.InputError(
      f'cannot write to {args.output}: {error.strerror}; choose another'
      ' --output.'
    ) from error
  print(
    f'{len(paths) - len(problems)} masks in {args.output}, by the checkpoint of'
    f' step {model.step}'
  )
  if problems:
    print(
      f'skipped {len(problems)} of {len(paths)} files:\n'
      + errors.listing(problems, most=len(problems)),
      file=sys.stderr,
    )
    sys.exit(1)


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m skinseg_jax.predict',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  path: dict[str, Any] = {'type': pathlib.Path, 'required': True}
  add = parser.add_argument
  add('--workdir', metavar='DIR', help='folder of a run', **path)
  add(
    '--input',
    nargs='+',
    metavar='PATH',
    help='image files, and folders of them',
    **path,
  )
  add('--output', metavar='DIR', help='folder of the masks', **path)
  add('--checkpoint', default='last', help='best, last or a step')
  add(
    '--overlay',
    action='store_true',
    help='write the images with their masks to overlay/, too',
  )
  add(
    '--probability',
    action='store_true',
    help='write 255 times the probability of lesion to probability/, too',
  )
  add(
    '--overwrite',
    action='store_true',
    help='write over masks that are there already',
  )
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
