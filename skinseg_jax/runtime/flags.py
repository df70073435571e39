"""Command-line flags that several commands have, each with one text."""

import argparse
import math

from skinseg_jax.runtime import paths


def parser(command: str, description: str | None) -> argparse.ArgumentParser:
  """A parser that shows the description as it is.

  Args:
    command: Name of the command, such as 'predict'.
    description: Docstring of its module.
  """
  return argparse.ArgumentParser(
    prog=f'python -m skinseg_jax.{command}',
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )


def add_workdir(to: argparse.ArgumentParser, *, several: bool = False) -> None:
  """Adds --workdir to a command that uses a model and may do without a run.

  Args:
    to: The parser.
    several: Whether several folders are an ensemble; it holds a list then.
  """
  to.add_argument(
    '--workdir',
    nargs='+' if several else None,
    metavar='DIR',
    type=paths.user_path,
    help='folder of a run or of a shared model'
    + (', several for the mean of their probabilities' if several else '')
    + '; default: the model that comes with skinseg_jax',
  )


def add_checkpoint(to: argparse.ArgumentParser) -> None:
  """Adds --checkpoint: 'best', 'last' or a step, as text."""
  to.add_argument(
    '--checkpoint',
    default='last',
    help='best (by validation Dice), last or a step number; default: last',
  )


def millimetres(text: str) -> float:
  """Reads a distance above 0.

  Raises:
    ArgumentTypeError: If it is none.
  """
  try:
    distance = float(text)
  except ValueError:
    distance = 0.0
  if not 0 < distance < math.inf:
    raise argparse.ArgumentTypeError(
      f'{text} is no distance; give millimetres above 0, such as 0.02'
    )
  return distance
