"""Converts PyTorch state_dicts to our state, and back.

Each network has a twin in PyTorch, named in its class, and parts that are named
like the twin's. The paper's U-Net can also be read and written by the names of
two public models.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from skinseg_jax.models import unet
from skinseg_jax.runtime import errors
from skinseg_jax.weights import torch_names

# The first kernel of the U-Net, whose shape tells the width.
_FIRST_KERNEL = ('downs', 0, 'conv1', 'kernel')
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
# Of torchvision's FCN and DeepLabV3.
_ONLY_TRAINING = 'aux_classifier.'
_COUNTER = 'num_batches_tracked'  # PyTorch uses it only if momentum is None.


def tensor_names(
  model: nnx.Module, naming: str = 'twin'
) -> dict[torch_names.Path, str]:
  """Names in PyTorch of all values of a model's state, by their paths.

  Args:
    model: May hold shapes in place of arrays.
    naming: One of the `torch_names.NAMINGS`.

  Raises:
    InputError: If the naming is one of the paper's U-Net and the model is not.
  """
  if naming != 'twin' and not isinstance(model, unet.UNet):
    raise errors.InputError(
      f"--naming {naming} is of the paper's U-Net, this is a"
      f' {type(model).__name__}; use --naming twin.'
    )
  flat = nnx.to_flat_state(nnx.state(model))
  paths: list[torch_names.Path] = [path for path, _ in flat]
  if naming == 'twin':
    return {path: _twin_name(model, path) for path in paths}
  module = torch_names.OF_UNET[naming]
  return {path: f'{module(path[:-1])}.{_TENSORS[path[-1]]}' for path in paths}


def _twin_name(model: nnx.Module, path: torch_names.Path) -> str:
  """Attributes joined by dots, as `TORCH_NAMES` of their classes say it."""
  node: Any = model
  names: list[str] = []
  *modules, value = path
  for part in modules:
    names.append(_torch_name(node, part, str(part)))
    listed = isinstance(node, nnx.List | nnx.Dict)
    node = node[part] if listed else getattr(node, part)
  names.append(_torch_name(node, value, _TENSORS.get(value, str(value))))
  return '.'.join(filter(None, names))


def _torch_name(node: Any, attribute: Any, default: str) -> str:
  return getattr(type(node), 'TORCH_NAMES', {}).get(attribute, default)


def to_flax(state_dict: Mapping[str, np.ndarray], model: nnx.Module) -> Any:
  """Converts a PyTorch state_dict to the state of our model.

  Two things that our U-Net lacks are folded into other weights, which does not
  change the outputs. Biases before a batch norm are subtracted from its running
  mean. The logits of two classes (background, lesion) become one logit, their
  difference. The values of `num_batches_tracked` are dropped, and those of
  torchvision's second head, which only helps the training.

  Args:
    state_dict: Arrays by name, in any of the `torch_names.NAMINGS`.
    model: Gives the structure, and the devices of the result.

  Returns:
    The state with those weights, float32, laid out as the model's is.

  Raises:
    InputError: Listing all names and shapes that do not fit, or all names of
      what is not finite.
  """
  naming = 'twin'
  if isinstance(model, unet.UNet):
    naming = _detect(state_dict)
  names = tensor_names(model, naming)
  with np.errstate(over='ignore'):  # `_check_finite` reports overflows.
    found = {
      name: np.asarray(values, np.float32)
      for name, values in state_dict.items()
      if not name.endswith(_COUNTER) and not name.startswith(_ONLY_TRAINING)
    }
  _check_finite(found)
  if isinstance(model, unet.UNet):
    _take_in_extras(found, names)
  flat = nnx.to_flat_state(nnx.state(model))
  shapes = {names[path]: _torch_shape(leaf.shape) for path, leaf in flat}
  _check(found, shapes, model, names.get(_FIRST_KERNEL, ''))

  def convert(path, leaf):
    values = found[names[path]]
    if values.ndim == 4:
      values = values.transpose(_FROM_TORCH)
    return leaf.replace(jax.device_put(values, leaf.get_value().sharding))

  return nnx.from_flat_state(
    [(path, convert(path, leaf)) for path, leaf in flat]
  )


def from_flax(
  model: nnx.Module, *, naming: str = 'twin'
) -> dict[str, np.ndarray]:
  """Converts our model to a PyTorch state_dict.

  Returns:
    Arrays by name, float32; `num_batches_tracked`, int64, is always 0.

  Raises:
    InputError: If the naming does not fit the model.
  """
  names = tensor_names(model, naming)
  state_dict = by_name(nnx.state(model), names)
  counters = [
    name.removesuffix('running_mean') + _COUNTER
    for name in state_dict
    if name.endswith('.running_mean')
  ]
  zeros = {name: np.zeros((), np.int64) for name in counters}
  return {**state_dict, **zeros}


def by_name(
  state: Any, names: Mapping[torch_names.Path, str]
) -> dict[str, np.ndarray]:
  """Arrays in PyTorch's layout: of a state, or of a part such as gradients."""
  arrays = {}
  for path, leaf in nnx.to_flat_state(state):
    values = np.asarray(leaf[...])
    if values.ndim == 4:
      values = values.transpose(_TO_TORCH)
    arrays[names[path]] = np.ascontiguousarray(values)
  return arrays


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
  return tuple(shape[i] for i in _TO_TORCH) if len(shape) == 4 else shape


def _detect(state_dict: Mapping[str, np.ndarray]) -> str:
  """The naming of the U-Net whose last convolution is there."""
  heads = {
    name: f'{module(("head",))}.weight'
    for name, module in torch_names.OF_UNET.items()
  }
  for naming, head in heads.items():
    if head in state_dict:
      return naming
  raise errors.InputError(
    "these weights are not of the paper's U-Net. They must hold one of\n"
    + errors.listing([f'{head} ({naming})' for naming, head in heads.items()])
    + '\nbut hold only\n'
    + errors.listing(sorted(state_dict), most=10)
    + '\nFor weights of another network, set model.architecture and'
    ' model.encoder to theirs.'
  )


def _take_in_extras(
  found: dict[str, np.ndarray], names: Mapping[torch_names.Path, str]
) -> None:
  """Replaces convolution biases and a second class; see `to_flax`."""
  for path, name in names.items():
    if path[-1] != 'kernel' or not str(path[-2]).startswith('conv'):
      continue
    norm = (*path[:-2], str(path[-2]).replace('conv', 'norm'), 'mean')
    bias, mean = name.removesuffix('weight') + 'bias', names[norm]
    # Other shapes are left for `_check` to name.
    if {bias, mean} <= set(found) and found[mean].shape == found[bias].shape:
      found[mean] = found[mean] - found.pop(bias)
  head = names['head', 'kernel'], names['head', 'bias']
  # Two classes have two of both.
  if all(name in found and found[name].shape[:1] == (2,) for name in head):
    for name in head:
      found[name] = found[name][1:] - found[name][:1]


def _check_finite(found: Mapping[str, np.ndarray]) -> None:
  bad = [name for name, v in found.items() if not np.isfinite(v).all()]
  if bad:
    raise errors.InputError(
      'these weights are not finite numbers in float32:\n'
      + errors.listing(bad)
      + '\nTheir training diverged; take a file that was saved before.'
    )


def _check(
  found: Mapping[str, np.ndarray],
  shapes: Mapping[str, tuple[int, ...]],
  model: nnx.Module,
  first_kernel: str,
) -> None:
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
  raise errors.InputError(
    f"the weights do not fit the config's network ({type(model).__name__}):\n"
    + errors.listing(problems)
    + '\n'
    + _remedy(found, first_kernel, model)
  )


def _remedy(found, first_kernel, model) -> str:
  if not isinstance(model, unet.UNet):
    if hasattr(model, 'features'):  # An encoder alone.
      return 'Set model.encoder to the encoder of these weights.'
    rest = 'encoder' if hasattr(model, 'encoder') else 'width'
    return (
      f'Set model.architecture and model.{rest} to theirs. Weights for several'
      ' classes cannot be used: the last layer must have one.'
    )
  first = found.get(first_kernel)
  width = (
    f' These look like model.width={len(first)}.' if np.ndim(first) == 4 else ''
  )
  return (
    'Set model.width to the width of these weights; the U-Net must have four'
    f' levels.{width} For weights of another network, set model.architecture,'
    ' model.encoder and model.width to theirs.'
  )
