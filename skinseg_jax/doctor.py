"""Says what this machine has for training, and what to type for the rest.

python -m skinseg_jax.doctor [--data_dir DIR] [--raw_dir DIR]

Takes about ten seconds and downloads nothing. Exit code 1 if something is
broken, or was named and is missing; 0 otherwise.
"""

import argparse
import sys

from skinseg_jax.diagnostics import machine
from skinseg_jax.runtime import errors, paths


def main(argv: list[str]) -> None:
  """Parses the command line and prints what is found."""
  parser = argparse.ArgumentParser(
    prog='python -m skinseg_jax.doctor',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  for name, text in (
    ('--data_dir', 'where prepared data sets are kept; default: data'),
    ('--raw_dir', 'raw files of HAM10000 to look at'),
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
