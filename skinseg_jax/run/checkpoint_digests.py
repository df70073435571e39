"""SHA-256 of the files of a checkpoint, so that damage to them is noticed.

Orbax notices what it cannot decode; a flipped bit in the values it would load.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence

from skinseg_jax.runtime import errors

_NAME = 'digests.json'


def write(folder: pathlib.Path) -> None:
  """Records the digests of all files in a folder, in a file of its own."""
  found = _digests(folder, [path.name for path in folder.iterdir()])
  temporary = folder / f'{_NAME}.tmp'
  temporary.write_text(json.dumps(found, indent=2) + '\n', encoding='utf-8')
  temporary.replace(folder / _NAME)


def write_missing(folder: pathlib.Path) -> None:
  """Does the same, unless they were recorded before."""
  if not (folder / _NAME).exists():
    write(folder)


def check(folder: pathlib.Path, parts: Sequence[str]) -> None:
  """Compares files with their digests, where these were recorded.

  They are not where the process ended between the last file and its record,
  nor in checkpoints of earlier versions: such a folder passes.

  Args:
    folder: Of a checkpoint.
    parts: Files in it that are compared, and folders, with all in them.

  Raises:
    InputError: If a file is missing, new or differs, or the record is damaged.
  """
  if not (folder / _NAME).exists():
    return
  try:
    recorded = json.loads((folder / _NAME).read_text('utf-8')).items()
    found = _digests(folder, parts)
  except (OSError, ValueError, AttributeError, RecursionError) as error:
    raise _damaged(folder, str(error)) from error
  inside = tuple(f'{part}/' for part in parts)
  wanted = {n: digest for n, digest in recorded if f'{n}/'.startswith(inside)}
  if found != wanted:
    name = next(
      n for n in sorted({*found, *wanted}) if found.get(n) != wanted.get(n)
    )
    raise _damaged(folder, f'{name!r} is not as it was written')


def _damaged(folder: pathlib.Path, why: str) -> errors.InputError:
  return errors.InputError(
    f'the checkpoint {folder} is damaged, or its run is just removing it'
    f' ({why}). Try again; if it stays so, remove its folder to fall back on'
    ' another one.'
  )


def _digests(folder: pathlib.Path, parts: Sequence[str]) -> dict[str, str]:
  found = {}
  for part in sorted(parts):
    whole = folder / part
    for path in sorted(whole.rglob('*')) if whole.is_dir() else [whole]:
      if path.is_file():
        with path.open('rb') as file:
          digest = hashlib.file_digest(file, 'sha256').hexdigest()
        found[path.relative_to(folder).as_posix()] = digest
  return found
