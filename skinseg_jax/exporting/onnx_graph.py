"""An ONNX graph that is being written, and the tensors in it.

JAX's images are [B, H, W, C], ONNX's [B, C, H, W]. A tensor here has the shape
of the JAX array and remembers in which order ONNX has its axes, so that almost
nothing needs to be transposed. Factors and summands of a tensor are kept back
until the tensor is used: those of a convolution go into its weights. That is
how batch norms disappear.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Axis of the JAX array for each axis of the ONNX tensor; None for an axis of
# size 1 that the JAX array does not have.
Order = tuple[int | None, ...]


class Graph:
  """Nodes and weights so far.

  Attributes:
    nodes: In the order of computation.
    weights: By their names.
    halves: Whether kernels that are exact in float16 are stored as float16,
      separate from their factors. The runtime multiplies the two when it loads
      the file.
  """

  def __init__(self, *, halves: bool = False) -> None:
    self.halves = halves
    self.nodes: list[onnx.NodeProto] = []
    self.weights: dict[str, onnx.TensorProto] = {}
    self._names: dict[tuple[Any, ...], str] = {}
    self._count = 0

  def weight(self, values: np.ndarray) -> str:
    """Name of a constant; equal constants have one name."""
    values = np.ascontiguousarray(values)
    digest = hashlib.sha256(values.data).digest()
    key = (values.dtype.str, values.shape, digest)
    if key not in self._names:
      self._names[key] = f'w{len(self._names)}'
      name = self._names[key]
      self.weights[name] = numpy_helper.from_array(values, name)
    return self._names[key]

  def kernel(self, values: np.ndarray, factor: np.ndarray) -> str:
    """Name of the product of a kernel and a factor of its channels."""
    with np.errstate(over='ignore'):
      half = values.astype(np.float16)
    if not self.halves or not np.array_equal(half, values):
      return self.weight(values * factor)
    name = self.node('Cast', [self.weight(half)], to=onnx.TensorProto.FLOAT)
    return self.node('Mul', [name, self.weight(factor)])

  def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
    """Adds a node with one output; returns its name."""
    return self.nodes_outputs(kind, inputs, 1, **attributes)[0]

  def nodes_outputs(
    self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any
  ) -> list[str]:
    """Adds a node; returns the names of its outputs."""
    names = [f'{kind.lower()}{self._count + i}' for i in range(outputs)]
    self._count += outputs
    self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
    return names

  def rename(self, old: str, new: str) -> None:
    """Renames the output of a node."""
    for node in self.nodes:
      for names in (node.input, node.output):
        names[:] = [new if name == old else name for name in names]


class Source(Protocol):
  """Where the values of a tensor come from, before factor and summand."""

  def emit(
    self,
    graph: Graph,
    factor: np.ndarray | None,
    summand: np.ndarray | None,
  ) -> str:
    """Adds the nodes; returns the name of factor * values + summand.

    Args:
      graph: Where to add them.
      factor: In the order of the axes of ONNX, to be broadcast; None for 1.
      summand: Likewise; None for 0.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Ready:
  """Values that a node has computed already."""

  name: str

  def emit(self, graph, factor, summand) -> str:
    """See `Source`."""
    name = self.name
    if factor is not None:
      name = graph.node('Mul', [name, graph.weight(factor)])
    if summand is not None:
      name = graph.node('Add', [name, graph.weight(summand)])
    return name


@dataclasses.dataclass(frozen=True)
class Convolution:
  """A convolution; takes factors and summands of channels into its weights.

  Attributes:
    kind: 'Conv' or 'ConvTranspose'.
    name: Its image, [B, C, H, W].
    kernel: [out, in, height, width], or [in, out, height, width] if transposed.
    attributes: Of the node.
  """

  kind: str
  name: str
  kernel: np.ndarray
  attributes: Mapping[str, Any]

  def emit(self, graph, factor, summand) -> str:
    """See `Source`."""
    axis = 0 if self.kind == 'Conv' else 1
    channels = self.kernel.shape[axis]
    fits = [
      v is None or v.size == 1 or v.size == v.shape[1]
      for v in (factor, summand)
    ]
    if not all(fits):
      return Ready(self.emit(graph, None, None)).emit(graph, factor, summand)
    shape = [channels if i == axis else 1 for i in range(4)]
    scale = np.float32(1) if factor is None else factor.ravel()
    scale = np.broadcast_to(scale, channels).reshape(shape)
    inputs = [self.name, graph.kernel(self.kernel, scale)]
    if summand is not None:
      inputs.append(graph.weight(np.broadcast_to(summand.ravel(), channels)))
    return graph.node(self.kind, inputs, **self.attributes)


@dataclasses.dataclass(frozen=True)
class Sum:
  """A sum over some axes; with the factor 1 / count it is a mean.

  Attributes:
    name: What is summed.
    axes: Of the ONNX tensor.
    count: How many values each sum has.
  """

  name: str
  axes: tuple[int, ...]
  count: int

  def emit(self, graph, factor, summand) -> str:
    """See `Source`."""
    if factor is not None and np.allclose(factor * self.count, 1, rtol=1e-6):
      name = graph.node('ReduceMean', [self.name], axes=self.axes)
      return Ready(name).emit(graph, None, summand)
    axes = graph.weight(np.array(self.axes, np.int64))
    name = graph.node('ReduceSum', [self.name, axes])
    return Ready(name).emit(graph, factor, summand)


@dataclasses.dataclass(frozen=True)
class Strided:
  """Every n-th row and column, of [B, C, H, W]; a 1x1 convolution can skip.

  Attributes:
    name: All rows and columns.
    strides: Of rows and columns.
  """

  name: str
  strides: tuple[int, int]

  def emit(self, graph, factor, summand) -> str:
    """See `Source`."""
    whole = np.iinfo(np.int64).max
    rows = [[0, 0], [whole, whole], [2, 3], self.strides]
    inputs = [graph.weight(np.array(row, np.int64)) for row in rows]
    name = graph.node('Slice', [self.name, *inputs])
    return Ready(name).emit(graph, factor, summand)


@dataclasses.dataclass(frozen=True)
class Clipped:
  """Values that are raised to `low`, then lowered to `high`.

  Attributes:
    name: The values.
    low: Least value.
    high: Greatest value; None for no limit.
  """

  name: str
  low: float
  high: float | None = None

  def emit(self, graph, factor, summand) -> str:
    """See `Source`."""
    if self.low == 0 and self.high is None:
      name = graph.node('Relu', [self.name])
    else:
      limits = [v for v in (self.low, self.high) if v is not None]
      names = [graph.weight(np.array(v, np.float32)) for v in limits]
      name = graph.node('Clip', [self.name, *names])
    return Ready(name).emit(graph, factor, summand)


class Tensor:
  """A value that the graph computes.

  Attributes:
    graph: Where it is computed.
    shape: Of the JAX array; the size of the batch is symbolic.
    order: See `Order`.
    repeated: Axes of the JAX array along which it is constant, and for which
      the ONNX tensor has size 1.
    source: Where the values come from.
    factor: Numpy array that can be broadcast to `shape`; None for 1.
    summand: Likewise; None for 0.
  """

  def __init__(
    self,
    graph: Graph,
    source: Source,
    shape: Sequence[Any],
    order: Order | None = None,
    *,
    repeated: frozenset[int] = frozenset(),
    factor: np.ndarray | None = None,
    summand: np.ndarray | None = None,
  ):
    self.graph, self.source, self.shape = graph, source, tuple(shape)
    self.order: Order = tuple(range(len(shape))) if order is None else order
    self.repeated, self.factor, self.summand = repeated, factor, summand
    self._name: str | None = None
    self._ordered: dict[Order, str] = {}

  @property
  def name(self) -> str:
    """Its name in the graph; adds the nodes that compute it."""
    if self._name is None:
      arranged = [
        None if value is None else self.arranged(value)
        for value in (self.factor, self.summand)
      ]
      self._name = self.source.emit(self.graph, *arranged)
    return self._name

  def arranged(self, constant: np.ndarray) -> np.ndarray:
    """A constant that goes with this array, in the order of ONNX's axes."""
    if constant.ndim == 0:
      return constant
    present = [axis for axis in self.order if axis is not None]
    gaps = [i for i, axis in enumerate(self.order) if axis is None]
    values = constant.transpose(present)
    for gap in gaps:
      values = np.expand_dims(values, gap)
    return values

  def scaled(self, factor: np.ndarray) -> 'Tensor':
    """This times a constant."""
    base = self._uncomputed()
    summand = base.summand
    return base._affine(
      factor if base.factor is None else base.factor * factor,
      None if summand is None else summand * factor,
    )

  def shifted(self, summand: np.ndarray) -> 'Tensor':
    """This plus a constant."""
    base = self._uncomputed()
    both = summand if base.summand is None else base.summand + summand
    return base._affine(base.factor, both)

  def _uncomputed(self) -> 'Tensor':
    """This, to be computed from a node that is there if there is one."""
    if self._name is None:
      return self
    return self.view(self.shape, self.order, self.repeated)

  def _affine(self, factor, summand) -> 'Tensor':
    varying = {
      axis
      for value in (factor, summand)
      if value is not None
      for axis, size in enumerate(value.shape)
      if size != 1
    }
    return Tensor(
      self.graph, self.source, self.shape, self.order,
      repeated=self.repeated - varying, factor=factor, summand=summand,
    )  # fmt: skip

  def view(
    self, shape: Sequence[Any], order: Order, repeated: frozenset[int]
  ) -> 'Tensor':
    """The same ONNX tensor as another JAX array."""
    pending = self._name is None and self.factor is self.summand is None
    source = self.source if pending else Ready(self.name)
    return Tensor(self.graph, source, shape, order, repeated=repeated)

  def ordered(self, order: Order) -> str:
    """Name of a tensor with all values, in another order of axes.

    Args:
      order: As the attribute, for the axes of the same JAX array.
    """
    if order not in self._ordered:
      self._ordered[order] = self._reorder(self._whole(), order)
    return self._ordered[order]

  def _whole(self) -> str:
    if not self.repeated:
      return self.name
    shape = [
      self.shape[axis] if axis in self.repeated else 1 for axis in self.order
    ]
    sizes = self.graph.weight(np.array(shape, np.int64))
    return self.graph.node('Expand', [self.name, sizes])

  def _reorder(self, name: str, order: Order) -> str:
    if order == self.order:
      return name
    gaps = lambda order: [i for i, axis in enumerate(order) if axis is None]
    add = lambda kind, name, axes: self.graph.node(
      kind, [name, self.graph.weight(np.array(axes, np.int64))]
    )
    if gaps(self.order):
      name = add('Squeeze', name, gaps(self.order))
    before, after = (
      [a for a in o if a is not None] for o in (self.order, order)
    )
    if before != after:
      permutation = [before.index(axis) for axis in after]
      name = self.graph.node('Transpose', [name], perm=permutation)
    return add('Unsqueeze', name, gaps(order)) if gaps(order) else name


# A constant can be broadcast to the shape that its equation states.
Value = Tensor | np.ndarray
