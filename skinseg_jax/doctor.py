"""Checks whether this machine is ready for training and suggests fixes.

python -m skinseg_jax.doctor [--data_dir DIR] [--raw_dir DIR]

Takes about ten seconds and downloads nothing. The exit code is 1 if something
is broken or a folder named here lacks its data, otherwise 0.
"""

import argparse
import sys

from skinseg_jax.diagnostics import machine
from skinseg_jax.runtime import errors, paths


def main(argv: list[str]) -> None:
  """Parses the command line and prints the findings."""
  parser = argparse.ArgumentParser(
    prog='python -m skinseg_jax.doctor',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  for name, text in (
    ('--data_dir', 'folder of prepared data sets; default: data'),
    ('--raw_dir', 'folder of raw HAM10000 files to check; default: no check'),
  ):
    parser.add_argument(name, type=paths.user_path, metavar='DIR', help=text)
  args = parser.parse_args(argv[1:])
  bad = 0
  for level, what, remedy in machine.examine(args.data_dir, args.raw_dir):
    print(f'{level:5}{what}', flush=True)
    if remedy:
      print(f'     -> {remedy}', flush=True)
    bad += level == 'BAD'
  if bad:
    sys.exit(1)


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
