"""Stores SHA-256 digests of a checkpoint's files to detect damage.

Orbax only detects files that it cannot decode. It would load values with a
flipped bit.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence

from skinseg_jax.runtime import errors

_NAME = 'digests.json'


def write(folder: pathlib.Path) -> None:
  """Writes the digests of all files in a folder to an extra file there."""
  found = _digests(folder, [path.name for path in folder.iterdir()])
  temporary = folder / f'{_NAME}.tmp'
  temporary.write_text(json.dumps(found, indent=2) + '\n', encoding='utf-8')
  temporary.replace(folder / _NAME)


def write_missing(folder: pathlib.Path) -> None:
  """Writes the digests unless they are already there."""
  if not (folder / _NAME).exists():
    write(folder)


def check(folder: pathlib.Path, parts: Sequence[str]) -> None:
  """Compares files with their recorded digests.

  A folder without digests passes. They are missing if the process ended before
  it wrote them, and in checkpoints of earlier versions.

  Args:
    folder: Folder of a checkpoint.
    parts: Files and folders in it to compare; folders with all their files.

  Raises:
    InputError: If a file is missing, new or different, or the digests are
      damaged.
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
    raise _damaged(folder, f'{name!r} differs from what was written')


def _damaged(folder: pathlib.Path, why: str) -> errors.InputError:
  return errors.InputError(
    f'the checkpoint {folder} is damaged, or its run is removing it right now'
    f' ({why}). Try again; if the error stays, remove the folder to fall back'
    ' on another checkpoint.'
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
