"""Errors that end a program with one message and an exit code, no traceback."""

import io
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

# Everything else is done, but some files could not be read.
SKIPPED_FILES = 3
# A shell's exit code for SIGINT.
_INTERRUPTED = 130


class InputError(ValueError):
  """The user's input is invalid; the message says how to fix it."""

  exit_code = 2


class DivergenceError(ArithmeticError):
  """The loss or the weights are no longer finite."""

  exit_code = 3


class StoppedError(BaseException):
  """A signal asked the program to end; the same command resumes it."""

  # EX_TEMPFAIL of sysexits.h: a scheduler may start the program again.
  exit_code = 75


def listing(items: Sequence[str], *, most: int = 20) -> str:
  """Formats items one per line, indented; only counts those beyond `most`."""
  lines = [f'  {item}' for item in items[:most]]
  if len(items) > most:
    lines.append(f'  ... and {len(items) - most} more')
  return '\n'.join(lines)


def of_files(
  error: OSError, output: str | os.PathLike[str], remedy: str
) -> InputError:
  """What to tell of an error while files were read and written.

  Args:
    error: What happened. Its `filename` says where, if the system told.
    output: Folder that is written to.
    remedy: What to do if that failed.
  """
  if error.filename is not None:
    place = pathlib.Path(os.path.abspath(os.fsdecode(error.filename)))
    folder = pathlib.Path(os.path.abspath(output))
    # Folders above may be missing, and are made.
    if not place.is_relative_to(folder) and not folder.is_relative_to(place):
      return InputError(
        f'cannot read {place}: {error.strerror}; make it readable, or leave it'
        ' out of --input.'
      )
  return InputError(f'cannot write to {output}: {error.strerror}; {remedy}')


class Few:
  """The first of many items for a message, and how many there are.

  Attributes:
    count: Number of items that were added.
  """

  def __init__(self, most: int = 20):
    self._first: list[str] = []
    self._most = most
    self.count = 0

  def add(self, item: str) -> None:
    """Counts an item; only the first ones are kept."""
    self.count += 1
    if len(self._first) < self._most:
      self._first.append(item)

  def __str__(self) -> str:
    more = self.count - len(self._first)
    return listing(self._first) + (f'\n  ... and {more} more' if more else '')


def exit_with_message(main: Callable[[list[str]], None], argv: list[str]):
  """Runs `main(argv)`; turns our errors into one message and an exit code."""
  if isinstance(sys.stdout, io.TextIOWrapper):
    # Names of files need not be UTF-8, and are printed all the same.
    sys.stdout.reconfigure(errors='backslashreplace')
  try:
    main(argv)
  except (InputError, DivergenceError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(error.exit_code)
  except KeyboardInterrupt:
    # Of a command that cannot resume.
    print(
      '\nstopped by SIGINT; run the same command again, with --overwrite if it'
      ' has that flag.',
      file=sys.stderr,
    )
    sys.exit(_INTERRUPTED)
  except StoppedError as stop:
    sys.stdout.flush()
    print(stop, file=sys.stderr, flush=True)
    # Everything is saved. Libraries take a second or two to shut down, and the
    # sender of the signal may not wait that long.
    os._exit(stop.exit_code)
