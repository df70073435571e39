"""What ends a program with one message and an exit code, no traceback."""

import os
import sys
from collections.abc import Callable, Sequence


class InputError(ValueError):
  """Something the user gave does not fit; the message names the remedy."""

  exit_code = 2


class DivergenceError(ArithmeticError):
  """Training left the finite numbers."""

  exit_code = 3


class StoppedError(BaseException):
  """A signal asked the program to end; the same command goes on."""

  # EX_TEMPFAIL of sysexits.h: what a scheduler may start again.
  exit_code = 75


def listing(items: Sequence[str], *, most: int = 20) -> str:
  """Formats offenders one a line, indented; counts those beyond `most`."""
  lines = [f'  {item}' for item in items[:most]]
  if len(items) > most:
    lines.append(f'  ... and {len(items) - most} more')
  return '\n'.join(lines)


def exit_with_message(main: Callable[[list[str]], None], argv: list[str]):
  """Runs `main(argv)`; our own errors become one message and an exit code."""
  try:
    main(argv)
  except (InputError, DivergenceError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(error.exit_code)
  except StoppedError as stop:
    sys.stdout.flush()
    print(stop, file=sys.stderr, flush=True)
    # All is saved; who sent the signal may not wait for libraries to be torn
    # down, which takes a second or two.
    os._exit(stop.exit_code)
