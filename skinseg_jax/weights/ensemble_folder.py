"""A folder that stands for several models: its `ensemble.json` names them.

Imports nothing slow, so that commands can check their flags first.
"""

import json
import pathlib
from collections.abc import Sequence

from skinseg_jax.runtime import errors

# `members`: folders of models, relative to the folder of this file.
FILE = 'ensemble.json'


def members(
  given: Sequence[pathlib.Path], given_as: str = '--workdir'
) -> list[pathlib.Path]:
  """Folders of single models; a folder with `ensemble.json` is replaced.

  Args:
    given: What was given.
    given_as: Name of the flag or the argument, for messages.

  Raises:
    InputError: If that file is damaged, or a model is named twice.
  """
  found: list[pathlib.Path] = []
  for folder in given:
    found += _named(folder, given_as) if (folder / FILE).is_file() else [folder]
  resolved = [folder.resolve() for folder in found]
  twice = sorted({str(f) for f in resolved if resolved.count(f) > 1})
  if twice:
    raise errors.InputError(
      f'{given_as} names a model twice; give each once:\n'
      + errors.listing(twice)
    )
  return found


def _named(folder: pathlib.Path, given_as: str) -> list[pathlib.Path]:
  path = folder / FILE
  try:
    names = json.loads(path.read_text(encoding='utf-8'))['members']
    if not names or not all(isinstance(name, str) for name in names):
      raise ValueError('members is no list of folders')
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.InputError(
      f'{path} is damaged ({error}); write it again, such as {{"members":'
      f' ["fold_0", "fold_1"]}}, or give the folder of one model as {given_as}.'
    ) from error
  return [folder / name for name in names]
