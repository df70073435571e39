"""What a traced JAX program computes, as nodes of an ONNX graph.

The program is a jaxpr: a list of equations, each with one primitive
(https://docs.jax.dev/en/latest/jaxpr.html). Those that depend on weights alone
are computed here, so that the graph only has what depends on the images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from skinseg_jax.exporting import onnx_graph, onnx_shapes
from skinseg_jax.models import named

Tensor = onnx_graph.Tensor
# A constant can be broadcast to the shape that its equation states.
Value = Tensor | np.ndarray


def translate(
  jaxpr: core.Jaxpr, constants: Sequence[Any], inputs: Sequence[Value]
) -> list[Value]:
  """Adds the nodes of a program to the graph of its inputs.

  Args:
    jaxpr: The program.
    constants: Values of its constants.
    inputs: Its arguments: tensors of one graph, and weights as arrays.

  Returns:
    Its results.

  Raises:
    NotImplementedError: If a primitive has no counterpart here.
  """
  values: dict[Any, Value] = {}
  values.update(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
  values.update(zip(jaxpr.invars, inputs, strict=True))

  def read(variable: Any) -> Value:
    if isinstance(variable, core.Literal):
      return np.asarray(variable.val, variable.aval.dtype)
    return values[variable]

  for equation in jaxpr.eqns:
    results = _results(equation, [read(v) for v in equation.invars])
    values.update(zip(equation.outvars, results, strict=True))
  return [read(variable) for variable in jaxpr.outvars]


def _results(equation: Any, inputs: list[Value]) -> Sequence[Value]:
  name, parameters = equation.primitive.name, equation.params
  shapes = [variable.aval.shape for variable in equation.outvars]
  if name == 'jit' and parameters['name'].startswith(named.PREFIX):
    rule = _NAMED[parameters['name'].removeprefix(named.PREFIX)]
    return rule(*inputs, shape=shapes[0])
  inner = parameters.get('jaxpr', parameters.get('call_jaxpr'))
  if inner is not None:
    return translate(inner.jaxpr, inner.consts, inputs)
  if name == 'broadcast_in_dim':
    return [_broadcast(inputs[0], shapes[0], parameters)]
  if not any(isinstance(value, Tensor) for value in inputs):
    return _computed(equation, inputs)
  if name not in _RULES:
    raise NotImplementedError(f'{name} cannot be written to ONNX')
  return [_RULES[name](*inputs, shape=shapes[0], **parameters)]


def _broadcast(x: Value, shape: Sequence[Any], parameters: Mapping[str, Any]):
  axes = parameters['broadcast_dimensions']
  if isinstance(x, Tensor):
    return onnx_shapes.broadcast(x, shape, axes)
  sizes = [1] * len(shape)
  for axis, new in enumerate(axes):
    sizes[new] = x.shape[axis]
  return x.reshape(sizes)


def _computed(equation: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
  arrays = [
    np.broadcast_to(value, variable.aval.shape)
    for value, variable in zip(inputs, equation.invars, strict=True)
  ]
  found = equation.primitive.bind(*arrays, **equation.params)
  if not equation.primitive.multiple_results:
    found = [found]
  return [np.asarray(value) for value in found]


def _add(x: Value, y: Value, *, shape: Any, **_: Any) -> Tensor:
  if isinstance(x, Tensor) and isinstance(y, Tensor):
    return _elementwise('Add', x, y, shape=shape)
  return x.shifted(y) if isinstance(x, Tensor) else y.shifted(x)


def _sub(x: Value, y: Value, *, shape: Any, **_: Any) -> Tensor:
  if isinstance(x, Tensor) and isinstance(y, Tensor):
    return _elementwise('Sub', x, y, shape=shape)
  if isinstance(x, Tensor):
    return x.shifted(-y)
  return y.scaled(np.float32(-1)).shifted(x)


def _mul(x: Value, y: Value, *, shape: Any, **_: Any) -> Tensor:
  if isinstance(x, Tensor) and isinstance(y, Tensor):
    return _elementwise('Mul', x, y, shape=shape)
  return x.scaled(y) if isinstance(x, Tensor) else y.scaled(x)


def _div(x: Value, y: Value, *, shape: Any, **_: Any) -> Tensor:
  if isinstance(y, Tensor):
    return _elementwise('Div', x, y, shape=shape)
  return x.scaled(1 / y)


def _max(x: Value, y: Value, *, shape: Any, **_: Any) -> Tensor:
  value, limit = (x, y) if isinstance(x, Tensor) else (y, x)
  if isinstance(limit, Tensor) or limit.size > 1:
    return _elementwise('Max', value, limit, shape=shape)
  if np.isneginf(limit):
    return value
  return Tensor(
    value.graph,
    onnx_graph.Clipped(value.name, float(limit.item())),
    shape,
    value.order,
    repeated=value.repeated,
  )


def _min(x: Value, y: Value, *, shape: Any, **_: Any) -> Tensor:
  value, limit = (x, y) if isinstance(x, Tensor) else (y, x)
  raised = value.source if isinstance(value, Tensor) else None
  if isinstance(raised, onnx_graph.Clipped) and not isinstance(limit, Tensor):
    both = onnx_graph.Clipped(raised.name, raised.low, float(limit.item()))
    return Tensor(
      value.graph, both, shape, value.order, repeated=value.repeated
    )
  return _elementwise('Min', value, limit, shape=shape)


def _elementwise(kind: str, *values: Value, shape: Sequence[Any]) -> Tensor:
  """A node that computes every pixel from those at the same place."""
  tensors = [value for value in values if isinstance(value, Tensor)]
  # The order of the largest: nothing large is transposed.
  order = min(tensors, key=lambda tensor: len(tensor.repeated)).order
  names, repeated = [], set(range(len(shape)))
  model = next(tensor for tensor in tensors if tensor.order == order)
  for value in values:
    if not isinstance(value, Tensor):
      names.append(model.graph.weight(model.arranged(value)))
      repeated -= {axis for axis, n in enumerate(value.shape) if n != 1}
    elif value.order == order:
      names.append(value.name)
      repeated &= value.repeated
    else:
      names.append(value.ordered(order))
      repeated = set()
  node = model.graph.node(kind, names)
  return Tensor(
    model.graph,
    onnx_graph.Ready(node),
    shape,
    order,
    repeated=frozenset(repeated),
  )


def _unary(*kinds: str) -> Callable[..., Tensor]:
  def rule(x: Tensor, *, shape: Any, **parameters: Any) -> Tensor:
    for kind in kinds:
      x = _elementwise(kind, x, shape=shape)
    return x

  return rule


def _select(which: Value, no: Value, yes: Value, *, shape: Any, **_: Any) -> Value:
  if isinstance(which, Tensor):
    return _elementwise('Where', which, yes, no, shape=shape)
  if which.size > 1:
    raise NotImplementedError('a choice by a constant for each pixel')
  return yes if which.item() else no


def _convert(x: Tensor, *, shape: Any, new_dtype: Any, **_: Any) -> Tensor:
  types = {np.dtype(np.float32): 1}
  node = x.graph.node('Cast', [x.name], to=types[np.dtype(new_dtype)])
  return Tensor(x.graph, onnx_graph.Ready(node), shape, x.order)


def _reduce(x: Tensor, axes: Sequence[int]) -> tuple[tuple[int, ...], Any]:
  """Positions of the axes in ONNX, and the order without them."""
  kept = [axis for axis in range(len(x.shape)) if axis not in axes]
  new = {axis: i for i, axis in enumerate(kept)}
  order = tuple(None if axis is None else new.get(axis) for axis in x.order)
  return tuple(x.order.index(axis) for axis in axes), order


def _reduce_sum(x: Tensor, *, shape: Any, axes: Any, **_: Any) -> Tensor:
  positions, order = _reduce(x, axes)
  count = math.prod(x.shape[axis] for axis in axes)
  source = onnx_graph.Sum(x.ordered(x.order), positions, count)
  return Tensor(x.graph, source, shape, order)


def _reduce_max(x: Tensor, *, shape: Any, axes: Any, **_: Any) -> Tensor:
  positions, order = _reduce(x, axes)
  node = x.graph.node('ReduceMax', [x.ordered(x.order)], axes=positions)
  return Tensor(x.graph, onnx_graph.Ready(node), shape, order)


def _slice(x: Tensor, *, shape: Any, strides: Any, **bounds: Any) -> Tensor:
  whole = (
    set(bounds['start_indices']) == {0}
    and tuple(bounds['limit_indices']) == x.shape
  )
  if not whole or len(strides) != 4 or (strides[0], strides[3]) != (1, 1):
    raise NotImplementedError(f'slice of {x.shape} to {shape}')
  name = x.ordered((0, 3, 1, 2))
  source = onnx_graph.Strided(name, tuple(strides[1:3]))
  return Tensor(x.graph, source, shape, (0, 3, 1, 2))


def _convolution(
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
  spec = dimension_numbers
  kernel = kernel.transpose(spec.rhs_spec)
  size, kind = kernel.shape[2:], 'Conv'
  attributes: dict[str, Any] = {'strides': window_strides}
  name = None
  if set(lhs_dilation) != {1}:
    # Zeros between the pixels of the image: a transposed convolution, whose
    # kernel is turned and whose padding is cut off instead.
    kind = 'ConvTranspose'
    kernel = kernel[:, :, ::-1, ::-1].swapaxes(0, 1)
    padding = [
      [k - 1 - n for n in ends] for k, ends in zip(size, padding, strict=True)
    ]
    attributes = {'strides': lhs_dilation}
  elif size == (1, 1) and isinstance(x.source, onnx_graph.Strided):
    name, attributes = x.source.name, {'strides': x.source.strides}
  attributes |= {
    'kernel_shape': size,
    'pads': [ends[side] for side in (0, 1) for ends in padding],
    'dilations': rhs_dilation,
    'group': feature_group_count,
  }
  source = onnx_graph.Convolution(
    kind, name or x.ordered(spec.lhs_spec), kernel, attributes
  )
  return Tensor(x.graph, source, shape, spec.out_spec)


def _dot(
  x: Value, y: Value, *, shape: Any, dimension_numbers: Any, **_: Any
) -> Tensor:
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
  x: Tensor, axis: int, matrix: np.ndarray, over: int, shape: Any, *, first: bool
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


_IMAGE = (0, 3, 1, 2)


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


def _conv_transpose2x2(
  x: Tensor, kernel: np.ndarray, *, shape: Any
) -> list[Tensor]:
  source = onnx_graph.Convolution(
    'ConvTranspose',
    x.ordered(_IMAGE),
    kernel.transpose(3, 2, 0, 1),
    {'kernel_shape': [2, 2], 'strides': [2, 2]},
  )
  return [Tensor(x.graph, source, shape, _IMAGE)]


def _max_pool_with_places(x: Tensor, *, shape: Any) -> list[Tensor]:
  graph, name = x.graph, x.ordered(_IMAGE)
  even = [2 * n for n in shape[1:3]]
  if even != list(x.shape[1:3]):
    rows = [[0, 0], even, [2, 3]]
    inputs = [graph.weight(np.array(row, np.int64)) for row in rows]
    name = graph.node('Slice', [name, *inputs])
  names = graph.nodes_outputs(
    'MaxPool', [name], 2, kernel_shape=[2, 2], strides=[2, 2]
  )
  return [Tensor(graph, onnx_graph.Ready(n), shape, _IMAGE) for n in names]


def _unpool(x: Tensor, places: Tensor, *, shape: Any) -> list[Tensor]:
  graph = x.graph
  inputs = [tensor.ordered(_IMAGE) for tensor in (x, places)]
  name = graph.node(
    'MaxUnpool', inputs, kernel_shape=[2, 2], strides=[2, 2]
  )
  rest = [shape[axis] - 2 * x.shape[axis] for axis in (1, 2)]
  if any(rest):
    ends = graph.weight(np.array([0] * 6 + rest, np.int64))
    name = graph.node('Pad', [name, ends])
  return [Tensor(graph, onnx_graph.Ready(name), shape, _IMAGE)]


_NAMED: dict[str, Callable[..., list[Tensor]]] = {
  'max_pool': _max_pool,
  'max_pool3x3': _max_pool3x3,
  'max_pool_with_places': _max_pool_with_places,
  'unpool': _unpool,
  'double': _double,
  'conv_transpose2x2': _conv_transpose2x2,
}

_RULES: dict[str, Callable[..., Value]] = {
  'add': _add,
  'sub': _sub,
  'mul': _mul,
  'div': _div,
  'max': _max,
  'min': _min,
  'gt': lambda x, y, *, shape, **_: _elementwise('Greater', x, y, shape=shape),
  'select_n': _select,
  'square': lambda x, *, shape, **_: _elementwise('Mul', x, x, shape=shape),
  'exp': _unary('Exp'),
  'logistic': _unary('Sigmoid'),
  'rsqrt': _unary('Sqrt', 'Reciprocal'),
  'stop_gradient': lambda x, *, shape, **_: x,
  'convert_element_type': _convert,
  'reduce_sum': _reduce_sum,
  'reduce_max': _reduce_max,
  'reshape': lambda x, *, shape, **_: onnx_shapes.reshape(x, shape),
  'squeeze': lambda x, *, shape, dimensions: onnx_shapes.squeeze(x, dimensions),
  'transpose': lambda x, *, shape, permutation: onnx_shapes.transpose(
    x, permutation
  ),
  'concatenate': lambda *xs, shape, dimension: onnx_shapes.concatenate(
    xs, dimension
  ),
  'slice': _slice,
  'conv_general_dilated': _convolution,
  'dot_general': _dot,
}
