"""The `review.json` that belongs to a model, and how to write one."""

import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from skinseg_jax.data import splits
from skinseg_jax.quality import expected_dice
from skinseg_jax.runtime import errors
from skinseg_jax.weights import shared_model


def of_model(
  folder: pathlib.Path, model: Mapping[str, Any]
) -> expected_dice.Calibration | None:
  """Reads the `review.json` of a run or of a model, if it is for that model.

  Prints that it is for another one, where it is.

  Args:
    folder: Of the run or of the model.
    model: `TrainedModel.identity` of what predicts.

  Returns:
    None if there is none for this model.

  Raises:
    InputError: If the file is damaged or of another version.
  """
  try:
    found = expected_dice.read(folder)
  except ValueError as error:
    again = f'write it again with {command(folder, model["step"])}'
    if folder == shared_model.SHIPPED:
      again = f'{shared_model.again(folder)}.'
    raise errors.InputError(f'{error}; {again}') from error
  if found is None:
    return None
  before = found.model
  differ = [
    'other weights'
    if name == 'weights'
    else f'{name} {before.get(name)}, not {now}'
    for name, now in model.items()
    if before.get(name) != now
  ]
  if differ:
    print(
      f'no expected Dice: {folder / expected_dice.NAME} is for another model'
      f' ({"; ".join(differ)}); write it again with'
      f' {command(folder, model["step"])}'
    )
    return None
  return found


def command(folder: pathlib.Path, step: int) -> str:
  """What to type to write the file, as the end of a message.

  Args:
    folder: Of the run or of the model.
    step: Of the checkpoint that predicts.
  """
  words = (
    'python -m skinseg_jax.calibrate_review --workdir'
    f' {shlex.quote(str(folder))}'
  )
  if not _is_enough(folder):
    return (
      f'{words} --runs RUN; RUN is the folder of a run with the same network,'
      ' image size, threshold and views'
    )
  return f'{words} --checkpoint {step}'


def _is_enough(folder: pathlib.Path) -> bool:
  """Whether a run has enough validation images; a shared model has none."""
  path = folder / 'split.csv'
  if shared_model.is_one(folder) or not path.exists():
    return False
  return len(splits.read_split(path).validation) >= expected_dice.LEAST
