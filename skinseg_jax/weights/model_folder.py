"""A folder with one model and nothing else, to share it or to keep it.

`config.json` is the config of the run, `model.safetensors` the weights by the
names of the network's PyTorch twin, and `model.json` says what they are. It is
written last: a folder with it is whole.
"""

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.runtime import errors
from skinseg_jax.weights import shared_model, tensor_files, torch_layouts

# What the digests of `model.json` cover besides the weights.
_OTHERS = ('config.json', shared_model.SPLIT)


def write(
  folder: pathlib.Path,
  config: config_lib.Config,
  network: nnx.Module,
  details: Mapping[str, Any],
) -> None:
  """Writes a model into an existing folder.

  Kernels become float16, which halves the file. Biases and statistics stay
  float32. A split in the folder belongs to the model: its digest is kept.

  Args:
    folder: Where to write.
    config: Config of the run.
    network: The network with its weights.
    details: What else `model.json` says; `step`, the number of updates, and
      `environment`, where it was trained, must be there.

  Raises:
    InputError: If a kernel has values beyond float16, or the folder cannot be
      written to.
  """
  tensors = torch_layouts.from_flax(network)
  for name, values in tensors.items():
    if values.ndim > 1:
      tensors[name] = _halved(name, values)
  tensor_files.write(folder / shared_model.WEIGHTS, tensors)
  try:
    _write_json(folder / 'config.json', config_lib.to_dict(config))
    (digest,) = shared_model.digests(folder, [shared_model.WEIGHTS]).values()
    others = shared_model.digests(folder, _OTHERS)
    _write_json(
      folder / shared_model.ABOUT,
      {**details, 'weights_sha256': digest, 'sha256': others},
    )
  except OSError as error:
    raise errors.InputError(
      f'cannot write to {folder}: {error.strerror}; give another --output.'
    ) from error


def _write_json(path: pathlib.Path, content: Any) -> None:
  path.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')


def _halved(name: str, values: np.ndarray) -> np.ndarray:
  with np.errstate(over='ignore'):
    halved = values.astype(np.float16)
  if not np.isfinite(halved).all():
    raise errors.InputError(
      f'{name} has weights up to {np.abs(values).max():.3g}, more than float16'
      ' holds (65504): its training diverged; give a --checkpoint from before.'
    )
  return halved


def copy(folder: pathlib.Path, output: pathlib.Path) -> None:
  """Copies the files of a model, and no others, into an existing folder."""
  for name in (
    'README.md', 'failures.png', 'config.json', shared_model.WEIGHTS,
    shared_model.SPLIT, 'review.json', shared_model.ABOUT,
  ):  # fmt: skip
    if (folder / name).is_file():
      shutil.copyfile(folder / name, output / name)


def read(folder: pathlib.Path, network: nnx.Module) -> tuple[Any, int]:
  """Reads what `write` wrote.

  Args:
    folder: The folder.
    network: The network that its config describes; shapes are enough.

  Returns:
    The state with the weights, float32, and the number of updates.

  Raises:
    InputError: If a file is missing, damaged or of another network.
  """
  known = shared_model.about(folder)
  weights = folder / shared_model.WEIGHTS
  found = shared_model.digests(folder, [weights.name])
  if found.get(weights.name) != known['weights_sha256']:
    raise errors.InputError(
      f'{weights} is missing or not the file that'
      f' {folder / shared_model.ABOUT} describes;'
      f' {shared_model.again(folder)}.'
    )
  state = torch_layouts.to_flax(tensor_files.read(weights), network)
  return state, known['step']
