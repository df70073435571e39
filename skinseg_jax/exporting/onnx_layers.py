"""Convolutions, pooling, resizing and matrix products as nodes of a graph."""

from collections.abc import Callable
from typing import Any

import numpy as np

from skinseg_jax.exporting import onnx_graph

Tensor = onnx_graph.Tensor

# ONNX's order of an image's axes.
_IMAGE = (0, 3, 1, 2)


def strided(x: Tensor, *, shape: Any, strides: Any, **bounds: Any) -> Tensor:
  """Every n-th row and column of an image."""
  whole = (
    set(bounds['start_indices']) == {0}
    and tuple(bounds['limit_indices']) == x.shape
  )
  if not whole or len(strides) != 4 or (strides[0], strides[3]) != (1, 1):
    raise NotImplementedError(f'slice of {x.shape} to {shape}')
  name = x.ordered(_IMAGE)
  source = onnx_graph.Strided(name, tuple(strides[1:3]))
  return Tensor(x.graph, source, shape, _IMAGE)


def convolution(
  x: Tensor,
  kernel: np.ndarray,
  *,
  shape: Any,
  dimension_numbers: Any,
  window_strides: Any,
  padding: Any,
  lhs_dilation: Any,
  rhs_dilation: Any,
  feature_group_count: int,
  **_: Any,
) -> Tensor:
  """A convolution; its kernel is a constant."""
  if set(lhs_dilation) != {1}:
    raise NotImplementedError('a transposed convolution without a name')
  spec = dimension_numbers
  kernel = kernel.transpose(spec.rhs_spec)
  size = kernel.shape[2:]
  name, strides = None, window_strides
  if size == (1, 1) and isinstance(x.source, onnx_graph.Strided):
    name, strides = x.source.name, x.source.strides
  attributes = {
    'strides': strides,
    'kernel_shape': size,
    'pads': [ends[side] for side in (0, 1) for ends in padding],
    'dilations': rhs_dilation,
    'group': feature_group_count,
  }
  source = onnx_graph.Convolution(
    'Conv', name or x.ordered(spec.lhs_spec), kernel, attributes
  )
  return Tensor(x.graph, source, shape, spec.out_spec)


def product(
  x: Any, y: Any, *, shape: Any, dimension_numbers: Any, **_: Any
) -> Tensor:
  """A matrix product: of two tensors, or with a constant matrix."""
  (over_x, over_y), (batch_x, batch_y) = dimension_numbers
  if len(over_x) != 1:
    raise NotImplementedError('a product over several axes')
  if isinstance(x, Tensor) and isinstance(y, Tensor):
    free = lambda t, over, batch: [
      a for a in range(len(t.shape)) if a not in (*over, *batch)
    ]
    left = (*batch_x, *free(x, over_x, batch_x), *over_x)
    right = (*batch_y, *over_y, *free(y, over_y, batch_y))
    node = x.graph.node('MatMul', [x.ordered(left), y.ordered(right)])
    return Tensor(x.graph, onnx_graph.Ready(node), shape)
  if isinstance(x, Tensor):
    return _weighted(x, over_x[0], y, over_y[0], shape, first=False)
  return _weighted(y, over_y[0], x, over_x[0], shape, first=True)


def _weighted(
  x: Tensor,
  axis: int,
  matrix: np.ndarray,
  over: int,
  shape: Any,
  *,
  first: bool,
) -> Tensor:
  """Weighted sums along an axis; the new axis comes first or last."""
  matrix = matrix if over == 1 else matrix.T  # [new, old]
  rank, order = len(x.shape), x.order
  if axis not in order[-2:]:
    order = (*(a for a in range(rank) if a != axis), axis)
  inputs = [x.ordered(order), x.graph.weight(matrix.T)]
  if order[-1] != axis:
    inputs = [x.graph.weight(matrix), inputs[0]]
  node = x.graph.node('MatMul', inputs)
  rest = [a for a in range(rank) if a != axis]
  new = {a: i + first for i, a in enumerate(rest)}
  new[axis] = 0 if first else rank - 1
  return Tensor(
    x.graph,
    onnx_graph.Ready(node),
    shape,
    tuple(None if a is None else new[a] for a in order),
  )


def _pool(x: Tensor, *, shape: Any, **attributes: Any) -> list[Tensor]:
  node = x.graph.node('MaxPool', [x.ordered(_IMAGE)], **attributes)
  return [Tensor(x.graph, onnx_graph.Ready(node), shape, _IMAGE)]


def _max_pool(x: Tensor, *, shape: Any) -> list[Tensor]:
  return _pool(x, shape=shape, kernel_shape=[2, 2], strides=[2, 2])


def _max_pool3x3(x: Tensor, *, shape: Any) -> list[Tensor]:
  return _pool(
    x, shape=shape, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
  )


def _double(x: Tensor, *, shape: Any) -> list[Tensor]:
  node = x.graph.node(
    'Resize',
    [x.ordered(_IMAGE), '', x.graph.weight(np.array([1, 1, 2, 2], np.float32))],
    mode='nearest',
    coordinate_transformation_mode='asymmetric',
    nearest_mode='floor',
  )
  return [Tensor(x.graph, onnx_graph.Ready(node), shape, _IMAGE)]


def _conv_transpose(
  x: Tensor, kernel: np.ndarray, *, shape: Any
) -> list[Tensor]:
  size = kernel.shape[0]
  attributes: dict[str, Any] = {'kernel_shape': [size] * 2, 'strides': [2, 2]}
  if size > 2:
    attributes['pads'] = [1, 1, 1, 1]
  if size % 2:
    attributes['output_padding'] = [1, 1]
  source = onnx_graph.Convolution(
    'ConvTranspose', x.ordered(_IMAGE), kernel.transpose(3, 2, 0, 1), attributes
  )
  return [Tensor(x.graph, source, shape, _IMAGE)]


def _max_pool_with_places(x: Tensor, *, shape: Any) -> list[Tensor]:
  names = x.graph.nodes_outputs(
    'MaxPool', [x.ordered(_IMAGE)], 2, kernel_shape=[2, 2], strides=[2, 2]
  )
  return [Tensor(x.graph, onnx_graph.Ready(n), shape, _IMAGE) for n in names]


def _unpool(x: Tensor, places: Tensor, *, shape: Any) -> list[Tensor]:
  inputs = [tensor.ordered(_IMAGE) for tensor in (x, places)]
  node = x.graph.node('MaxUnpool', inputs, kernel_shape=[2, 2], strides=[2, 2])
  return [Tensor(x.graph, onnx_graph.Ready(node), shape, _IMAGE)]


# By the names of the functions that `models.named` decorates.
NAMED: dict[str, Callable[..., list[Tensor]]] = {
  'max_pool': _max_pool,
  'max_pool3x3': _max_pool3x3,
  'max_pool_with_places': _max_pool_with_places,
  'unpool': _unpool,
  'double': _double,
  'conv_transpose': _conv_transpose,
  'conv_transpose2x2': _conv_transpose,
}
