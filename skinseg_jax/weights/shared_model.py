"""Tells the folder of a shared model from the folder of a run.

`SHIPPED` comes with the package. Imports nothing slow, so that commands can
check their flags first; `model_folder` reads and writes the weights.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from skinseg_jax.runtime import errors

# Says what the weights are. Written last: a folder with it is whole.
ABOUT = 'model.json'
WEIGHTS = 'model.safetensors'
# Which images the model was trained and validated on, if they are public.
SPLIT = 'split.csv'

# The model that comes with the package.
SHIPPED = pathlib.Path(__file__).parents[1] / 'shipped'


def is_one(folder: pathlib.Path) -> bool:
  """Whether it is the folder of a shared model.

  Raises:
    InputError: If it is one without its `model.json`.
  """
  # ONNX and StableHLO exports have a model.json too, but no config.json.
  if not (folder / 'config.json').is_file():
    return False
  if (folder / ABOUT).is_file():
    return True
  if (folder / WEIGHTS).is_file():
    raise errors.InputError(f'{folder / ABOUT} is missing; {again(folder)}.')
  return False


def again(folder: pathlib.Path) -> str:
  """How to replace a damaged folder, as a part of a message."""
  return (
    'install skinseg_jax again' if folder == SHIPPED else 'get the folder again'
  )


def keep_out(folder: pathlib.Path, output: pathlib.Path) -> None:
  """Refuses to write into the folder of a shared model.

  Who shares the folder later would share what was written, too.

  Raises:
    InputError: If `output` is the folder or lies inside it.
  """
  if is_one(folder) and output.resolve().is_relative_to(folder.resolve()):
    raise errors.InputError(
      f'--output {output} is in the folder of the model, {folder}, which is'
      ' only read; give a folder outside of it.'
    )


def digests(folder: pathlib.Path, names: Iterable[str]) -> dict[str, str]:
  """SHA-256 of the files of these names, of those that are there."""
  found = {}
  for name in names:
    path = folder / name
    if path.is_file():
      with path.open('rb') as file:
        found[name] = hashlib.file_digest(file, 'sha256').hexdigest()
  return found


def chosen(folder: pathlib.Path | None) -> pathlib.Path:
  """Returns the folder; without one, that of the model in the package.

  Prints that this model is used.
  """
  if folder is not None:
    return folder
  print('using the model that comes with skinseg_jax')
  return SHIPPED


def refuse(folder: pathlib.Path) -> None:
  """Refuses such a folder where a run is needed.

  Raises:
    InputError: Saying what the folder is for.
  """
  if is_one(folder):
    raise errors.InputError(
      f'{folder} holds an exported model, without the data and the scores of'
      ' its run; give the folder of the run. To compare the model, score it'
      ' with evaluate --output DIR first and give that DIR.'
    )


def about(folder: pathlib.Path) -> dict[str, Any]:
  """Contents of `model.json`.

  Returns:
    `step`, `weights_sha256`, `environment` and what else `write` was told.

  Raises:
    InputError: If the file is missing or damaged, or another file of the folder
      is not the one that it describes.
  """
  path = folder / ABOUT
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    known = {
      **found,
      'step': int(found['step']),
      'weights_sha256': str(found['weights_sha256']),
      'environment': dict(found['environment']),
      # Folders of earlier versions lack the digests.
      'sha256': dict(found.get('sha256', {})),
    }
    for name in ('operating_point', 'training_profile'):
      known[name] = None if found.get(name) is None else dict(found[name])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.InputError(
      f'{path} is damaged ({error!r}); {again(folder)}.'
    ) from error
  present = digests(folder, known['sha256'])
  for name, digest in known['sha256'].items():
    if present.get(name) != digest:
      raise errors.InputError(
        f'{folder / name} is missing or has changed since {path} was written;'
        f' {again(folder)}.'
      )
  return known
