"""Paths as users type them."""

import os
import pathlib


def user_path(text: str) -> pathlib.Path:
  """A path whose leading `~` or `~user` is a home directory.

  A shell expands it only at the start of a word, so not in `--flag=~/x`.
  """
  return pathlib.Path(os.path.expanduser(text))
