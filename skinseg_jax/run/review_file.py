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

  Prints that it is for another one or of another version, where it is.

  Args:
    folder: Of the run or of the model.
    model: `TrainedModel.identity` of what predicts.

  Returns:
    None if there is none for this model.

  Raises:
    InputError: If the file is damaged.
  """
  path = folder / expected_dice.NAME
  write_again = f'write it again with {command(folder, model["step"])}'
  try:
    found = expected_dice.read(folder)
  except expected_dice.OtherVersionError as error:
    print(f'no expected Dice: {path} is {error}; {write_again}')
    return None
  except ValueError as error:
    if shared_model.is_one(folder):
      write_again = f'{shared_model.again(folder)}.'
    raise errors.InputError(f'{error}; {write_again}') from error
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
      f'no expected Dice: {path} is for another model ({"; ".join(differ)});'
      f' {write_again}'
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
  if shared_model.is_one(folder):
    return False
  try:
    split = splits.read_split(folder / 'split.csv')
  except errors.InputError:
    return False
  return len(split.validation) >= expected_dice.LEAST
