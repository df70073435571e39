"""Sets runs side by side, with intervals of their differences.

python -m skinseg_jax.compare RUN RUN [RUN ...] [--split validation]

A difference whose interval holds 0 may well be chance: of the images, that is;
what another seed of training would change is not in it.
"""

import argparse
import pathlib
import sys

from skinseg_jax.runtime import errors


def main(argv: list[str]) -> None:
  """Parses the command line, compares and prints."""
  parser = argparse.ArgumentParser(
    prog='python -m skinseg_jax.compare',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    'runs', nargs='+', type=pathlib.Path, metavar='RUN', help='folder of a run'
  )
  parser.add_argument(
    '--split',
    default='validation',
    help='name of the evaluation: validation, train or that of other data',
  )
  args = parser.parse_args(argv[1:])
  if len(args.runs) < 2:
    raise errors.InputError('name two or more run folders to compare.')
  # Imported after the flags are known to be right: it takes seconds.
  from skinseg_jax.evaluation import comparison

  rows = comparison.compare(args.runs, args.split)
  print(comparison.table([str(run) for run in args.runs], rows))


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
