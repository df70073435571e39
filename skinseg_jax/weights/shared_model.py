"""Tells the folder of a shared model from the folder of a run.

`SHIPPED` comes with the package. Imports nothing slow, so that commands can
check their flags first; `model_folder` reads and writes the weights.
"""

import json
import pathlib
from typing import Any

from skinseg_jax.runtime import errors

# Says what the weights are. Written last: a folder with it is whole.
ABOUT = 'model.json'

# The model that comes with the package.
SHIPPED = pathlib.Path(__file__).parents[1] / 'shipped'


def is_one(folder: pathlib.Path) -> bool:
  """Whether it is the folder of a shared model."""
  # An exported program has the first of the two alone.
  return (folder / ABOUT).is_file() and (folder / 'config.json').is_file()


def chosen(folder: pathlib.Path | None) -> pathlib.Path:
  """The folder, or that of the model that comes with the package; says so."""
  if folder is not None:
    return folder
  print('no --workdir: using the model that comes with skinseg_jax')
  return SHIPPED


def refuse(folder: pathlib.Path) -> None:
  """Refuses such a folder where a run is needed.

  Raises:
    InputError: Saying what the folder is for.
  """
  if is_one(folder):
    raise errors.InputError(
      f'{folder} holds an exported model, without the data and the scores of'
      ' its run. It can be used with predict, evaluate and export; for anything'
      ' else give the folder of the run.'
    )


def about(folder: pathlib.Path) -> dict[str, Any]:
  """Contents of `model.json`.

  Returns:
    `step`, `weights_sha256`, `environment` and what else `write` was told.

  Raises:
    InputError: If the file is missing or damaged.
  """
  path = folder / ABOUT
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    step, digest = int(found['step']), str(found['weights_sha256'])
    return {
      **found,
      'step': step,
      'weights_sha256': digest,
      'environment': dict(found['environment']),
    }
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.InputError(
      f'{path} is damaged ({error!r}); get the folder again.'
    ) from error
