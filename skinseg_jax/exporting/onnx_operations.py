"""What a traced JAX program computes, as nodes of an ONNX graph.

The program is a jaxpr: a list of equations, each with one primitive
(https://docs.jax.dev/en/latest/jaxpr.html). Those that depend on weights alone
are computed here, so that the graph only has what depends on the images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from jax.extend import core

from skinseg_jax.exporting import onnx_graph, onnx_layers, onnx_shapes
from skinseg_jax.models import named

Tensor = onnx_graph.Tensor
Value = onnx_graph.Value


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
      literal: Any = variable.aval
      return np.asarray(variable.val, literal.dtype)
    return values[variable]

  for equation in jaxpr.eqns:
    results = _results(equation, [read(v) for v in equation.invars])
    values.update(zip(equation.outvars, results, strict=True))
  return [read(variable) for variable in jaxpr.outvars]


def _results(equation: Any, inputs: list[Value]) -> Sequence[Value]:
  name, parameters = equation.primitive.name, equation.params
  shapes = [variable.aval.shape for variable in equation.outvars]
  if name == 'jit' and parameters['name'].startswith(named.PREFIX):
    rule = onnx_layers.NAMED[parameters['name'].removeprefix(named.PREFIX)]
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


# JAX would compile each of these for each shape.
_IN_NUMPY: dict[str, Callable[..., np.ndarray]] = {
  'add': np.add,
  'sub': np.subtract,
  'mul': np.multiply,
  'rsqrt': lambda x: 1 / np.sqrt(x),
}


def _computed(equation: Any, inputs: Sequence[Any]) -> list[np.ndarray]:
  arrays = [
    np.broadcast_to(value, variable.aval.shape)
    for value, variable in zip(inputs, equation.invars, strict=True)
  ]
  name = equation.primitive.name
  if name in _IN_NUMPY:
    return [_IN_NUMPY[name](*arrays)]
  if name == 'reshape':
    return [arrays[0].reshape(equation.outvars[0].aval.shape)]
  found = equation.primitive.bind(*arrays, **equation.params)
  if not equation.primitive.multiple_results:
    found = [found]
  return [np.asarray(value) for value in found]


# The rules of two values: one of them at least is a tensor.
def _add(x: Any, y: Any, *, shape: Any, **_: Any) -> Tensor:
  if isinstance(x, Tensor) and isinstance(y, Tensor):
    return _elementwise('Add', x, y, shape=shape)
  return x.shifted(y) if isinstance(x, Tensor) else y.shifted(x)


def _sub(x: Any, y: Any, *, shape: Any, **_: Any) -> Tensor:
  if isinstance(x, Tensor) and isinstance(y, Tensor):
    return _elementwise('Sub', x, y, shape=shape)
  if isinstance(x, Tensor):
    return x.shifted(-y)
  return y.scaled(np.float32(-1)).shifted(x)


def _mul(x: Any, y: Any, *, shape: Any, **_: Any) -> Tensor:
  if isinstance(x, Tensor) and isinstance(y, Tensor):
    return _elementwise('Mul', x, y, shape=shape)
  return x.scaled(y) if isinstance(x, Tensor) else y.scaled(x)


def _div(x: Any, y: Any, *, shape: Any, **_: Any) -> Tensor:
  if isinstance(y, Tensor):
    return _elementwise('Div', x, y, shape=shape)
  return x.scaled(1 / y)


def _max(x: Any, y: Any, *, shape: Any, **_: Any) -> Tensor:
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


def _min(x: Any, y: Any, *, shape: Any, **_: Any) -> Tensor:
  value, limit = (x, y) if isinstance(x, Tensor) else (y, x)
  raised = value.source if isinstance(value, Tensor) else None
  # Nothing may come between both limits.
  if (
    isinstance(raised, onnx_graph.Clipped)
    and raised.high is value.factor is value.summand is None
    and not isinstance(limit, Tensor)
    and limit.size == 1
  ):
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


def _select(
  which: Value, no: Value, yes: Value, *, shape: Any, **_: Any
) -> Value:
  if isinstance(which, Tensor):
    return _elementwise('Where', which, yes, no, shape=shape)
  if which.size > 1:
    raise NotImplementedError('a choice by a constant for each pixel')
  return yes if which.item() else no


def _convert(x: Tensor, *, shape: Any, new_dtype: Any, **_: Any) -> Tensor:
  if np.dtype(new_dtype) != np.float32:
    raise NotImplementedError(f'numbers of type {new_dtype}')
  node = x.graph.node('Cast', [x.name], to=onnx.TensorProto.FLOAT)
  return Tensor(
    x.graph, onnx_graph.Ready(node), shape, x.order, repeated=x.repeated
  )


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


_RULES: dict[str, Callable[..., Value]] = {
  'add': _add,
  'sub': _sub,
  'mul': _mul,
  'div': _div,
  'neg': lambda x, **_: x.scaled(np.float32(-1)),
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
  'slice': onnx_layers.strided,
  'conv_general_dilated': onnx_layers.convolution,
  'dot_general': onnx_layers.product,
}
