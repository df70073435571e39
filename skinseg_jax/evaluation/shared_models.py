"""Scores of a model that has no run: a shared one, or the one in the package.

Such a folder is only read. Its scores go to a folder of their own, which is
laid out like that of a run.
"""

import dataclasses
import pathlib
import shutil
import tempfile
from typing import Any

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.evaluation import training_images
from skinseg_jax.run import run_folder, stored_data
from skinseg_jax.runtime import errors
from skinseg_jax.weights import shared_model

# What a model keeps of the environment.json of its run.
_ENVIRONMENT = (
  'python', 'packages', 'device', 'platform', 'num_devices', 'commit',
  'data_source', 'data_fingerprint', 'split_sha256',
)  # fmt: skip
# In the environment.json of the scores: which weights they are of.
_DIGEST = 'weights_sha256'


def details(workdir: pathlib.Path, step: int) -> dict[str, Any]:
  """What `model.json` says about the run.

  Args:
    workdir: Folder of the run.
    step: Of the checkpoint.

  Returns:
    `step`; `environment`, without paths; `operating_point` and
    `training_profile`, each None if the run does not have it.
  """
  environment = run_folder.read_json(
    workdir / 'environment.json', *_ENVIRONMENT
  )
  return {
    'step': step,
    'environment': {name: environment[name] for name in _ENVIRONMENT},
    'operating_point': training_images.stored_point(workdir, step),
    'training_profile': training_images.stored_profile(workdir),
  }


def keep_split(
  workdir: pathlib.Path, config: config_lib.Config, output: pathlib.Path
) -> None:
  """Copies the split of a public data set. Other ids may be private."""
  if config.data.source == 'ham10000':
    shutil.copy(workdir / shared_model.SPLIT, output / shared_model.SPLIT)


def open_data(
  folder: pathlib.Path,
  config: config_lib.Config,
  data_dir: pathlib.Path | None,
) -> stored_data.RunData:
  """Opens the images that a model was trained and validated on.

  Args:
    folder: Folder of a run, or of a model with its split.
    config: The model's.
    data_dir: Where prepared data sets are; for a model without a run.

  Raises:
    InputError: If the images are missing or have changed.
  """
  if not shared_model.is_one(folder):
    return stored_data.open_run_data(folder, config.data)
  with tempfile.TemporaryDirectory() as name:
    home = pathlib.Path(name)
    config = prepare(folder, home, data_dir)
    return stored_data.open_run_data(home, config.data, other_copies=True)


def holds_scores(folder: pathlib.Path) -> bool:
  """Whether `prepare` made this folder."""
  environment = folder / 'environment.json'
  return _DIGEST in run_folder.read_json(environment)


def prepare(
  folder: pathlib.Path, home: pathlib.Path, data_dir: pathlib.Path | None
) -> config_lib.Config:
  """Prepares the folder of the scores.

  Args:
    folder: Folder of the model.
    home: Folder for the scores: new, or of earlier scores of this model.
    data_dir: Where prepared data sets are; None for a folder in `home`.

  Returns:
    The config in `home`, which the user may have edited.

  Raises:
    InputError: If `home` holds something else or cannot be written to.
  """
  shared_model.keep_out(folder, home)
  about = shared_model.about(folder)
  digest = about[_DIGEST]
  path = home / 'config.json'
  if path.exists():
    there = run_folder.read_json(home / 'environment.json')
    if there.get(_DIGEST) != digest:
      raise errors.InputError(
        f'{home} holds another model or its scores; give a new folder as'
        ' --output.'
      )
    config = config_lib.load(path)
    config_rules.validate(config)
  elif home.is_dir() and any(home.iterdir()):
    raise errors.InputError(
      f'{home} is not empty; give a new folder as --output.'
    )
  else:
    config = config_lib.load(folder / 'config.json')
    data_dir = data_dir or home / 'data'
  if data_dir is not None:
    data = dataclasses.replace(config.data, data_dir=str(data_dir.resolve()))
    config = dataclasses.replace(config, data=data)
  try:
    home.mkdir(parents=True, exist_ok=True)
    if (folder / shared_model.SPLIT).exists():
      shutil.copy(folder / shared_model.SPLIT, home / shared_model.SPLIT)
    run_folder.write_json(
      home / 'environment.json',
      {**about['environment'], _DIGEST: digest},
    )
    training_images.store(
      home,
      about['step'],
      about['operating_point'],
      about['training_profile'],
    )
    # Last: a folder with a config is complete.
    run_folder.write_json(path, config_lib.to_dict(config))
  except OSError as error:
    raise errors.InputError(
      f'cannot write to {home}: {error.strerror}; give another --output.'
    ) from error
  return config
