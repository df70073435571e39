"""Turns a PyTorch state_dict of the U-Net into our state, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from skinseg_jax.runtime import errors

# Names and list indices that lead to one of our modules or arrays.
_Path = tuple[Any, ...]
# Place of our parts in the public models' nn.Sequential.
_PLACES = {'conv1': 0, 'norm1': 1, 'conv2': 3, 'norm2': 4}
_TENSORS = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}
# A convolution's [height, width, in, out] is [out, in, height, width] there, a
# transposed one's [height, width, out, in] is [in, out, height, width].
_TO_TORCH, _FROM_TORCH = (3, 2, 0, 1), (2, 3, 1, 0)
_COUNTER = 'num_batches_tracked'  # Used by torch for momentum=None alone.


def _skinseg(path: _Path) -> str:
  return '.'.join(map(str, path))


def _aladdinpersson(path: _Path) -> str:
  match path:
    case ('downs', level, part):
      return f'downs.{level}.conv.{_PLACES[part]}'
    case ('bottleneck', part):
      return f'bottleneck.conv.{_PLACES[part]}'
    case ('ups', level):
      return f'ups.{2 * level}'
    case ('up_blocks', level, part):
      return f'ups.{2 * level + 1}.conv.{_PLACES[part]}'
    case ('head',):
      return 'final_conv'
  raise ValueError(f'no place for {path} in the U-Net')


def _milesial(path: _Path) -> str:
  match path:
    case ('downs', 0, part):
      return f'inc.double_conv.{_PLACES[part]}'
    case ('downs', level, part):
      return f'down{level}.maxpool_conv.1.double_conv.{_PLACES[part]}'
    case ('bottleneck', part):
      return f'down4.maxpool_conv.1.double_conv.{_PLACES[part]}'
    case ('ups', level):
      return f'up{level + 1}.up'
    case ('up_blocks', level, part):
      return f'up{level + 1}.conv.double_conv.{_PLACES[part]}'
    case ('head',):
      return 'outc.conv'
  raise ValueError(f'no place for {path} in the U-Net')


# Each turns the path of one of our modules into the name of theirs.
NAMINGS = {
  'skinseg': _skinseg,
  'aladdinpersson': _aladdinpersson,
  'milesial': _milesial,
}


def to_flax(state_dict: Mapping[str, np.ndarray], like: Any) -> Any:
  """Turns a PyTorch state_dict into the state of our model.

  Two things that our model does without become part of what it has, which
  changes no output: biases before a batch norm are taken off its running mean,
  and of two classes (background, lesion) the difference is our one logit. What
  `num_batches_tracked` counted is lost.

  Args:
    state_dict: Arrays by name, in any of the `NAMINGS`.
    like: State of a model of that width, on its devices.

  Returns:
    The state with those weights, float32, laid out as `like` is.

  Raises:
    InputError: Listing all names and shapes that do not fit, or all names of
      what is not finite.
  """
  naming = _detect(state_dict)
  with np.errstate(over='ignore'):  # What overflows is refused by name.
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
  """Turns the state of our model into a PyTorch state_dict.

  Returns:
    Arrays by name, float32; `num_batches_tracked`, int64, is 0 throughout.
  """
  state_dict = {}
  for path, leaf in nnx.to_flat_state(model_state):
    values = np.asarray(leaf[...])
    if values.ndim == 4:
      values = values.transpose(_TO_TORCH)
    state_dict[_name(naming, path)] = np.ascontiguousarray(values)
    if path[-1] == 'mean':
      module = NAMINGS[naming](path[:-1])
      state_dict[f'{module}.{_COUNTER}'] = np.zeros((), np.int64)
  return state_dict


def _name(naming: str, path: _Path) -> str:
  return f'{NAMINGS[naming](path[:-1])}.{_TENSORS[path[-1]]}'


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
  return tuple(shape[i] for i in _TO_TORCH) if len(shape) == 4 else shape


def _detect(state_dict: Mapping[str, np.ndarray]) -> str:
  """The naming whose last convolution is there."""
  heads = {
    name: f'{module(("head",))}.weight' for name, module in NAMINGS.items()
  }
  for naming, head in heads.items():
    if head in state_dict:
      return naming
  raise errors.InputError(
    'these are no weights of a U-Net that is known here. Known namings hold\n'
    + errors.listing([f'{head} ({naming})' for naming, head in heads.items()])
    + '\nbut these hold\n'
    + errors.listing(sorted(state_dict), most=10)
  )


def _take_in_extras(
  found: dict[str, np.ndarray], naming: str, modules: set[_Path]
) -> None:
  """Replaces convolution biases and a second class; see `to_flax`."""
  for path in modules:
    if not str(path[-1]).startswith('conv'):
      continue
    norm = (*path[:-1], path[-1].replace('conv', 'norm'))
    bias = f'{NAMINGS[naming](path)}.bias'
    mean = f'{NAMINGS[naming](norm)}.running_mean'
    # Other shapes are left for `_check` to name.
    if {bias, mean} <= set(found) and found[mean].shape == found[bias].shape:
      found[mean] = found[mean] - found.pop(bias)
  head = NAMINGS[naming](('head',))
  names = f'{head}.weight', f'{head}.bias'
  # Two classes have two of both.
  if all(name in found and found[name].shape[:1] == (2,) for name in names):
    for name in names:
      found[name] = found[name][1:] - found[name][:1]


def _check_finite(found: Mapping[str, np.ndarray]) -> None:
  bad = [name for name, v in found.items() if not np.isfinite(v).all()]
  if bad:
    raise errors.InputError(
      'these weights are not finite numbers in float32:\n'
      + errors.listing(bad)
      + '\nTheir training diverged; take a file that was saved before.'
    )


def _check(found, shapes, naming) -> None:
  """Compares names and shapes, all of them."""
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
    + f'\nSet model.width to theirs; the U-Net must have four levels.{width}'
  )
