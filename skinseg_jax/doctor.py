"""Checks whether this machine is ready for training and suggests fixes.

python -m skinseg_jax.doctor [--data_dir DIR] [--raw_dir DIR]
python -m skinseg_jax.doctor --images DIR --masks DIR [--output FILE]

Takes about ten seconds and downloads nothing. With --images it checks the masks
of a folder instead: whether they are empty, inverted, flipped, turned or belong
to other images. The exit code is 1 if something is broken, looks wrong or is
missing from a folder named here, otherwise 0.
"""

import argparse
import pathlib
import sys

from skinseg_jax import config as config_lib
from skinseg_jax.runtime import errors, flags, paths


def main(argv: list[str]) -> None:
  """Parses the command line and prints the findings.

  Raises:
    InputError: If flags contradict each other, or images and masks do not
      match.
  """
  args = _parse(argv)
  bad = _machine(args) if args.images is None else _folder(args)
  if bad:
    sys.exit(1)


def _machine(args: argparse.Namespace) -> bool:
  from skinseg_jax.diagnostics import machine

  bad = False
  for level, what, remedy in machine.examine(args.data_dir, args.raw_dir):
    print(f'{level:5}{what}', flush=True)
    if remedy:
      print(f'     -> {remedy}', flush=True)
    bad |= level == 'BAD'
  return bad


def _folder(args: argparse.Namespace) -> bool:
  from skinseg_jax.data import remedies
  from skinseg_jax.data.sources import folder
  from skinseg_jax.diagnostics import folder_check

  folder_check.check_output(args.output, [args.images, args.masks])
  source = folder.FolderSource(
    images_dir=args.images,
    masks_dir=args.masks,
    metadata_csv=None,
    mask_threshold=args.mask_threshold,
    mask_invert=args.mask_invert,
    mask_suffixes=args.mask_suffixes.split(','),
    remedies=remedies.FLAGS,
  )
  found = folder_check.check(source, args.output)
  print(folder_check.describe(found))
  print(f'images with the outlines of their masks: {args.output}')
  return bool(found.findings)


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = flags.parser('doctor', __doc__)
  for name, text in (
    ('--data_dir', 'folder of prepared data sets; default: data'),
    ('--raw_dir', 'folder of raw HAM10000 files to check; default: no check'),
    ('--images', 'folder of images whose masks to check'),
    ('--masks', 'folder of masks; required with --images'),
  ):
    parser.add_argument(name, type=paths.user_path, metavar='DIR', help=text)
  parser.add_argument(
    '--mask_threshold',
    type=int,
    default=0,
    help='grey value, 0 to 254: mask pixels above it are lesion; default: 0,'
    ' strict',
  )
  parser.add_argument(
    '--mask_invert', action='store_true', help='swap lesion and skin'
  )
  parser.add_argument(
    '--mask_suffixes',
    metavar='ENDINGS',
    default=config_lib.DataConfig().mask_suffixes,
    help='endings of mask names, such as _mask,_gt',
  )
  parser.add_argument(
    '--output',
    type=paths.user_path,
    default=pathlib.Path('mask_check.png'),
    metavar='FILE',
    help='picture of images and outlines to write, outside of the folders of'
    ' images and masks; default: mask_check.png',
  )
  args = parser.parse_args(argv[1:])
  if (args.images is None) != (args.masks is None):
    raise errors.InputError('--images and --masks must be given together.')
  if args.images is not None:
    for name in ('data_dir', 'raw_dir'):
      if getattr(args, name) is not None:
        raise errors.InputError(
          f'--{name} is for the check of the machine, not for --images.'
        )
  if not 0 <= args.mask_threshold < 255:
    raise errors.InputError('--mask_threshold must be 0 (strict) to 254.')
  return args


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
