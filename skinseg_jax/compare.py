"""Compares runs on the same images, with intervals of the differences.

python -m skinseg_jax.compare RUN RUN [RUN ...] [--split validation]

If the interval of a difference contains 0, the difference may be due to the
choice of images. The intervals do not include the variation between training
seeds.
"""

import sys

from skinseg_jax.runtime import errors, flags, paths


def main(argv: list[str]) -> None:
  """Parses the command line, compares and prints."""
  parser = flags.parser('compare', __doc__)
  parser.add_argument(
    'runs',
    nargs='+',
    type=paths.user_path,
    metavar='RUN',
    help='run folder; the first one is the reference',
  )
  parser.add_argument(
    '--split',
    default='validation',
    help='name of the evaluation: validation, train or the name given to other'
    ' data; default: validation',
  )
  args = parser.parse_args(argv[1:])
  if len(args.runs) < 2:
    raise errors.InputError('give two or more run folders to compare.')
  # Imported after the flags are checked, because the import takes seconds.
  from skinseg_jax.evaluation import comparison

  rows = comparison.compare(args.runs, args.split)
  print(comparison.table([str(run) for run in args.runs], rows))


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
