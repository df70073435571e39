"""A folder with one model and nothing else, to share it or to keep it.

`config.json` is the config of the run, `model.safetensors` the weights by the
names of the network's PyTorch twin, and `model.json` says what they are. It is
written last: a folder with it is whole.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.runtime import errors
from skinseg_jax.weights import tensor_files, torch_layouts

_ABOUT, _WEIGHTS = 'model.json', 'model.safetensors'


def is_one(folder: pathlib.Path) -> bool:
  """Whether `write` made this folder."""
  return (folder / _ABOUT).is_file()


def refuse(folder: pathlib.Path) -> None:
  """Refuses such a folder where a run is needed.

  Raises:
    InputError: Saying what the folder is for.
  """
  if is_one(folder):
    raise errors.InputError(
      f'{folder} holds an exported model, without the data and the scores of'
      ' its run. It can be used with predict, and with evaluate and --images'
      ' and --masks; for anything else give the folder of the run.'
    )


def write(
  folder: pathlib.Path,
  config: config_lib.Config,
  network: nnx.Module,
  about: Mapping[str, Any],
) -> None:
  """Writes a model into an existing folder.

  Kernels become float16, which halves the file. Biases and statistics stay
  float32.

  Args:
    folder: Where to write.
    config: Config of the run.
    network: The network with its weights.
    about: What else `model.json` says; `step`, the number of updates, must be
      there.

  Raises:
    InputError: If a kernel has values beyond float16, or the folder cannot be
      written to.
  """
  tensors = torch_layouts.from_flax(network)
  for name, values in tensors.items():
    if values.ndim > 1:
      tensors[name] = _halved(name, values)
  tensor_files.write(folder / _WEIGHTS, tensors)
  digest = _digest(folder / _WEIGHTS)
  try:
    for name, content in (
      ('config.json', config_lib.to_dict(config)),
      (_ABOUT, {**about, 'weights_sha256': digest}),
    ):
      text = json.dumps(content, indent=2)
      (folder / name).write_text(text + '\n', encoding='utf-8')
  except OSError as error:
    raise errors.InputError(
      f'cannot write to {folder}: {error.strerror}; give another --output.'
    ) from error


def _halved(name: str, values: np.ndarray) -> np.ndarray:
  with np.errstate(over='ignore'):
    halved = values.astype(np.float16)
  if not np.isfinite(halved).all():
    raise errors.InputError(
      f'{name} has weights up to {np.abs(values).max():.3g}, more than float16'
      ' holds (65504): its training diverged; give a --checkpoint from before.'
    )
  return halved


def read(
  folder: pathlib.Path, network: nnx.Module
) -> tuple[Any, dict[str, Any]]:
  """Reads what `write` wrote.

  Args:
    folder: The folder.
    network: The network that its config describes; shapes are enough.

  Returns:
    The state with the weights, float32, and the contents of `model.json`.

  Raises:
    InputError: If a file is missing, damaged or of another network.
  """
  path = folder / _ABOUT
  try:
    about = json.loads(path.read_text(encoding='utf-8'))
    step, expected = int(about['step']), str(about['weights_sha256'])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.InputError(
      f'{path} is damaged ({error!r}); get the folder again.'
    ) from error
  weights = folder / _WEIGHTS
  if not weights.is_file():
    raise errors.InputError(f'{weights} is missing; get the folder again.')
  if _digest(weights) != expected:
    raise errors.InputError(
      f'{weights} is not the file that {path} describes: its SHA-256 differs.'
      ' Get the folder again.'
    )
  state = torch_layouts.to_flax(tensor_files.read(weights), network)
  return state, {**about, 'step': step}


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
