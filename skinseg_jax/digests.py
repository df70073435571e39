"""SHA-256 of the files of a checkpoint, so that damage to them is noticed.

Orbax notices what it cannot decode; a flipped bit in the values it would load.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence

from skinseg_jax import errors

_NAME = 'digests.json'


def write(folder: pathlib.Path) -> None:
  """Records the digests of all files in a folder, in a file of its own."""
  found = {
    path.relative_to(folder).as_posix(): _digest(path)
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }
  temporary = folder / f'{_NAME}.tmp'
  temporary.write_text(json.dumps(found, indent=2) + '\n', encoding='utf-8')
  temporary.replace(folder / _NAME)


def check(folder: pathlib.Path, parts: Sequence[str]) -> None:
  """Compares files with their digests, where these were recorded.

  They are not where the process ended between the last file and its record,
  nor in checkpoints of earlier versions: such a folder passes.

  Args:
    folder: Of a checkpoint.
    parts: Files in it that are compared, and folders, with all in them.

  Raises:
    InputError: If a file is missing or differs, or the record is damaged.
  """
  record, wanted = folder / _NAME, tuple(f'{part}/' for part in parts)
  if not record.exists():
    return
  try:
    recorded = json.loads(record.read_text('utf-8'))
    names = [n for n in recorded if f'{n}/'.startswith(wanted)]
    damaged = [n for n in names if _digest(folder / n) != recorded[n]]
  except (OSError, ValueError, TypeError, RecursionError) as error:
    raise _damaged(folder, str(error)) from error
  if damaged:
    raise _damaged(folder, f'{damaged[0]} is not as it was written')


def _damaged(folder: pathlib.Path, why: str) -> errors.InputError:
  return errors.InputError(
    f'the checkpoint {folder} is damaged ({why}). Remove its folder to fall'
    ' back on another one.'
  )


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
