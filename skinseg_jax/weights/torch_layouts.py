"""Converts a PyTorch state_dict of the U-Net to our state, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from skinseg_jax.runtime import errors
from skinseg_jax.weights import torch_names

_TENSORS = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}
# Kernels of convolutions are [height, width, in, out] here and [out, in,
# height, width] in PyTorch. Kernels of transposed convolutions are [height,
# width, out, in] here and [in, out, height, width] in PyTorch.
_TO_TORCH, _FROM_TORCH = (3, 2, 0, 1), (2, 3, 1, 0)
_COUNTER = 'num_batches_tracked'  # PyTorch uses it only if momentum is None.


def to_flax(state_dict: Mapping[str, np.ndarray], like: Any) -> Any:
  """Converts a PyTorch state_dict to the state of our model.

  Two things that our model lacks are folded into other weights; this does not
  change the outputs. Biases before a batch norm are subtracted from its running
  mean. The logits of two classes (background, lesion) become one logit, their
  difference. The values of `num_batches_tracked` are dropped.

  Args:
    state_dict: Arrays by name, in any of `torch_names.NAMINGS`.
    like: State of a model of that width, on its devices.

  Returns:
    The state with these weights, float32, with the layout of `like`.

  Raises:
    InputError: If names or shapes do not fit, or values are not finite; the
      message lists all of them.
  """
  naming = _detect(state_dict)
  with np.errstate(over='ignore'):  # `_check_finite` reports overflows.
    found = {
      name: np.asarray(values, np.float32)
      for name, values in state_dict.items()
      if not name.endswith(_COUNTER)
    }
  _check_finite(found)
  flat = list(nnx.to_flat_state(like))
  _take_in_extras(found, naming, {path[:-1] for path, _ in flat})
  wanted = {_name(naming, path): leaf.shape for path, leaf in flat}
  _check(found, {n: _torch_shape(s) for n, s in wanted.items()}, naming)

  def convert(path, leaf):
    values = found[_name(naming, path)]
    if values.ndim == 4:
      values = values.transpose(_FROM_TORCH)
    return leaf.replace(jax.device_put(values, leaf[...].sharding))

  return nnx.from_flat_state(
    [(path, convert(path, leaf)) for path, leaf in flat]
  )


def from_flax(
  model_state: Any, *, naming: str = 'skinseg'
) -> dict[str, np.ndarray]:
  """Converts the state of our model to a PyTorch state_dict.

  Returns:
    Arrays by name, float32; `num_batches_tracked`, int64, is always 0.
  """
  state_dict = {}
  for path, leaf in nnx.to_flat_state(model_state):
    values = np.asarray(leaf[...])
    if values.ndim == 4:
      values = values.transpose(_TO_TORCH)
    state_dict[_name(naming, path)] = np.ascontiguousarray(values)
    if path[-1] == 'mean':
      module = torch_names.NAMINGS[naming](path[:-1])
      state_dict[f'{module}.{_COUNTER}'] = np.zeros((), np.int64)
  return state_dict


def _name(naming: str, path: torch_names.Path) -> str:
  return f'{torch_names.NAMINGS[naming](path[:-1])}.{_TENSORS[path[-1]]}'


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
  return tuple(shape[i] for i in _TO_TORCH) if len(shape) == 4 else shape


def _detect(state_dict: Mapping[str, np.ndarray]) -> str:
  """Finds the naming by the name of the last convolution."""
  heads = {
    name: f'{module(("head",))}.weight'
    for name, module in torch_names.NAMINGS.items()
  }
  for naming, head in heads.items():
    if head in state_dict:
      return naming
  raise errors.InputError(
    'these weights are not of a known U-Net. They must hold one of\n'
    + errors.listing([f'{head} ({naming})' for naming, head in heads.items()])
    + '\nbut hold only\n'
    + errors.listing(sorted(state_dict), most=10)
  )


def _take_in_extras(
  found: dict[str, np.ndarray], naming: str, modules: set[torch_names.Path]
) -> None:
  """Replaces convolution biases and a second class; see `to_flax`."""
  for path in modules:
    if not str(path[-1]).startswith('conv'):
      continue
    norm = (*path[:-1], path[-1].replace('conv', 'norm'))
    bias = f'{torch_names.NAMINGS[naming](path)}.bias'
    mean = f'{torch_names.NAMINGS[naming](norm)}.running_mean'
    # Other shapes are left for `_check` to name.
    if {bias, mean} <= set(found) and found[mean].shape == found[bias].shape:
      found[mean] = found[mean] - found.pop(bias)
  head = torch_names.NAMINGS[naming](('head',))
  names = f'{head}.weight', f'{head}.bias'
  # With two classes, the head has two kernels and two biases.
  if all(name in found and found[name].shape[:1] == (2,) for name in names):
    for name in names:
      found[name] = found[name][1:] - found[name][:1]


def _check_finite(found: Mapping[str, np.ndarray]) -> None:
  bad = [name for name, v in found.items() if not np.isfinite(v).all()]
  if bad:
    raise errors.InputError(
      'these weights are not finite in float32:\n'
      + errors.listing(bad)
      + '\nTheir training diverged; use a file that was saved earlier.'
    )


def _check(found, shapes, naming) -> None:
  """Compares names and shapes; reports all differences at once."""
  problems = [f'{name}: missing' for name in shapes if name not in found]
  problems += [f'{name}: unknown' for name in found if name not in shapes]
  problems += [
    f'{name}: shape {found[name].shape}, must be {shape}'
    for name, shape in shapes.items()
    if name in found and found[name].shape != shape
  ]
  if not problems:
    return
  first = found.get(_name(naming, ('downs', 0, 'conv1', 'kernel')))
  width = (
    f' These look like model.width={len(first)}.' if np.ndim(first) == 4 else ''
  )
  raise errors.InputError(
    f'the weights (naming {naming!r}) do not fit the model:\n'
    + errors.listing(problems)
    + '\nSet model.width to the width of these weights; the U-Net must have'
    f' four levels.{width}'
  )
