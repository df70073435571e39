"""Writes a network as an ONNX file."""

from typing import Any

import jax
import numpy as np
import onnx
from onnx import helper

from skinseg_jax.exporting import onnx_graph, onnx_operations, program
from skinseg_jax.models import named
from skinseg_jax.models.cpu import switch

# Old runtimes can read the file. Before opset 13 the axes of ReduceSum and
# Unsqueeze were attributes, and int8 weights had one scale for all channels.
OPSET, IR_VERSION = 13, 7


def build(
  predict: program.Program,
  state: Any,
  size: tuple[int, int],
  *,
  halves: bool = False,
) -> onnx.ModelProto:
  """Translates the forward pass.

  Args:
    predict: From `program.build_program`.
    state: Weights and running statistics.
    size: Height and width of the pictures.
    halves: See `onnx_graph.Graph`; makes smaller files of shared models.

  Returns:
    A model with the input `image`, uint8 [batch, height, width, 3], and the
    output `probability`, float32 [batch, height, width].

  Raises:
    NotImplementedError: If the network computes something that
      `onnx_operations` does not know.
  """
  images = program.symbolic_images(size)
  with switch.cpu_forms(False), named.kept(True):
    traced = jax.make_jaxpr(predict)(state, images)
  graph = onnx_graph.Graph(halves=halves)
  weights = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
  image = onnx_graph.Tensor(graph, onnx_graph.Ready('image'), images.shape)
  (result,) = onnx_operations.translate(
    traced.jaxpr, traced.consts, [*weights, image]
  )
  assert isinstance(result, onnx_graph.Tensor)
  last = result.ordered((0, 1, 2))
  graph.rename(last, 'probability')
  tensor = lambda name, kind, shape: helper.make_tensor_value_info(
    name, kind, ['batch', *shape]
  )
  model = helper.make_model(
    helper.make_graph(
      graph.nodes,
      'skinseg_jax',
      [tensor('image', onnx.TensorProto.UINT8, (*size, 3))],
      [tensor('probability', onnx.TensorProto.FLOAT, size)],
      list(graph.weights.values()),
    ),
    opset_imports=[helper.make_opsetid('', OPSET)],
    ir_version=IR_VERSION,
    producer_name='skinseg_jax',
  )
  onnx.checker.check_model(model, full_check=True)
  return model
