"""Operations that change the shape of a tensor; most of them need no node."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from skinseg_jax.exporting import onnx_graph

Tensor = onnx_graph.Tensor


def transpose(x: Tensor, permutation: Sequence[int]) -> Tensor:
  """Axis i of the result is axis `permutation[i]` of x."""
  new = {old: axis for axis, old in enumerate(permutation)}
  return x.view(
    [x.shape[old] for old in permutation],
    tuple(None if axis is None else new[axis] for axis in x.order),
    frozenset(new[axis] for axis in x.repeated),
  )


def squeeze(x: Tensor, axes: Sequence[int]) -> Tensor:
  """Without some axes of size 1."""
  kept = [axis for axis in range(len(x.shape)) if axis not in axes]
  return _renumbered(x, [x.shape[axis] for axis in kept], kept)


def broadcast(x: Tensor, shape: Sequence[Any], axes: Sequence[int]) -> Tensor:
  """Axis i of x is axis `axes[i]` of the result; the others repeat it."""
  old: list[int | None] = [None] * len(shape)
  for axis, new in enumerate(axes):
    old[new] = axis
  grown = {
    new
    for new, axis in enumerate(old)
    if shape[new] != (1 if axis is None else x.shape[axis])
  }
  return _renumbered(x, shape, old, frozenset(grown))


def _renumbered(
  x: Tensor,
  shape: Sequence[Any],
  old: Sequence[int | None],
  grown: frozenset[int] = frozenset(),
) -> Tensor:
  """The same values with axes removed, or added with size 1.

  Args:
    x: The tensor.
    shape: Of the result.
    old: The axis of x for each axis of the result; None for a new axis.
    grown: Axes of the result along which x is repeated.
  """
  new = {axis: i for i, axis in enumerate(old) if axis is not None}
  added = [i for i, axis in enumerate(old) if axis is None]
  order: list[int | None] = []
  for axis in x.order:
    # An axis that the JAX array lacks can serve as a new one.
    kept = new.get(axis) if axis is not None else None
    order.append(added.pop(0) if kept is None and added else kept)
  repeated = grown | {new[axis] for axis in x.repeated if axis in new}
  if not added:
    return x.view(shape, tuple(order), repeated)
  places = np.arange(len(order), len(order) + len(added))
  node = x.graph.node('Unsqueeze', [x.name, x.graph.weight(places)])
  return Tensor(
    x.graph,
    onnx_graph.Ready(node),
    shape,
    (*order, *added),
    repeated=repeated,
  )


def reshape(x: Tensor, shape: Sequence[Any]) -> Tensor:
  """The same values in another shape."""
  if [n for n in x.shape if n != 1] == [n for n in shape if n != 1]:
    real = iter([axis for axis, n in enumerate(x.shape) if n != 1])
    return _renumbered(
      x, shape, [None if n == 1 else next(real) for n in shape]
    )
  groups = _groups(x.shape, shape)
  order, name = x.order, x.ordered(x.order)
  if not all(_adjacent(order, olds) for olds, _ in groups):
    order = tuple(range(len(x.shape)))
    name = x.ordered(order)
  by_first = {olds[0]: news for olds, news in groups}
  new_order: list[int | None] = []
  for axis in order:
    if axis is None:
      new_order.append(None)
    else:
      new_order += by_first.get(axis, [])
  # 0 keeps the size of the batch, which comes first.
  sizes = [1 if axis is None else shape[axis] for axis in new_order]
  if order[0] != 0 or isinstance(shape[0], int):
    raise NotImplementedError(f'reshape of {x.shape} to {shape}')
  sizes[0] = 0
  target = x.graph.weight(np.array(sizes, np.int64))
  return Tensor(
    x.graph,
    onnx_graph.Ready(x.graph.node('Reshape', [name, target])),
    shape,
    tuple(new_order),
  )


def _groups(
  before: Sequence[Any], after: Sequence[Any]
) -> list[tuple[list[int], list[int]]]:
  """Runs of axes that hold the same values before and after a reshape."""
  groups = [([0], [0])]  # The batch.
  i, j = 1, 1
  while i < len(before) or j < len(after):
    olds, news = [i], [j]
    size = lambda shape, axes: math.prod(shape[axis] for axis in axes)
    while (old := size(before, olds)) != (new := size(after, news)):
      longer = olds if old < new else news
      longer.append(longer[-1] + 1)
    groups.append((olds, news))
    i, j = olds[-1] + 1, news[-1] + 1
  return groups


def _adjacent(order: onnx_graph.Order, axes: Sequence[int]) -> bool:
  start = order.index(axes[0])
  return list(order[start : start + len(axes)]) == list(axes)


def concatenate(tensors: Sequence[Tensor], axis: int) -> Tensor:
  """Tensors beside each other."""
  first = tensors[0]
  names = [tensor.ordered(first.order) for tensor in tensors]
  shape = list(first.shape)
  shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
  node = first.graph.node('Concat', names, axis=first.order.index(axis))
  return Tensor(first.graph, onnx_graph.Ready(node), shape, first.order)
