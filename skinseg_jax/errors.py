"""A user's mistake, told in one message; no traceback, exit code 2."""

import sys
from collections.abc import Callable, Sequence

EXIT_CODE = 2


class InputError(ValueError):
  """Something the user gave does not fit; the message names the remedy."""


def listing(items: Sequence[str], *, most: int = 20) -> str:
  """Formats offenders one a line, indented; counts those beyond `most`."""
  lines = [f'  {item}' for item in items[:most]]
  if len(items) > most:
    lines.append(f'  ... and {len(items) - most} more')
  return '\n'.join(lines)


def exit_with_message(main: Callable[[list[str]], None], argv: list[str]):
  """Runs `main(argv)`; an `InputError` becomes one message and exit code 2."""
  try:
    main(argv)
  except InputError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(EXIT_CODE)
