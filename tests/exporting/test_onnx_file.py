"""Networks as ONNX files compute what Flax computes, with few nodes."""

import collections

import export_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skinseg_jax import config as config_lib
from skinseg_jax.exporting import program
from skinseg_jax.models import build

pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

from skinseg_jax.exporting import onnx_file, onnx_operations  # noqa: E402


def _build(architecture, encoder, width, size):
  config = config_lib.ModelConfig(
    architecture=architecture, encoder=encoder, width=width
  )
  predict, state = (
    program.build_program(config),
    export_cases.random_state(config),
  )
  return predict, state, onnx_file.build(predict, state, (size, size))


def test_every_architecture_is_tested():
  assert {name for name, *_ in export_cases.NETWORKS} == set(
    build.ARCHITECTURES
  )


@pytest.mark.parametrize(
  ('architecture', 'encoder', 'width', 'size'), export_cases.NETWORKS
)
def test_probabilities_are_those_of_flax(architecture, encoder, width, size):
  predict, state, model = _build(architecture, encoder, width, size)
  session = onnxruntime.InferenceSession(
    model.SerializeToString(), providers=['CPUExecutionProvider']
  )
  images = np.random.default_rng(1).integers(
    0, 256, (7, size, size, 3), np.uint8
  )
  # Compiled in half of the time; it runs once.
  compiled = (
    jax.jit(predict)
    .lower(state, images)
    .compile(compiler_options={'xla_backend_optimization_level': 0})
  )
  flax = np.asarray(compiled(state, images))
  for count in (1, 7):
    (found,) = session.run(None, {'image': images[:count]})
    assert found.shape == (count, size, size)
    np.testing.assert_allclose(found, flax[:count], atol=1e-4)
  kinds = collections.Counter(node.op_type for node in model.graph.node)
  assert kinds['BatchNormalization'] == 0
  # Images are turned once; group norms and attention turn small ones.
  allowed = {'fpn': 8, 'manet': 3}.get(architecture, 1)
  assert kinds['Transpose'] <= allowed


def test_the_unet_has_few_nodes():
  _, _, model = _build('unet', '', 2, 16)
  kinds = collections.Counter(node.op_type for node in model.graph.node)
  # Two convolutions in each of nine blocks, and the head.
  assert (kinds['Conv'], kinds['Relu'], kinds['ConvTranspose']) == (19, 18, 4)
  assert len(model.graph.node) == 54
  assert model.opset_import[0].version == onnx_file.OPSET


def test_what_is_unknown_is_refused():
  traced = jax.make_jaxpr(jnp.sin)(jnp.ones((2, 3)))
  from skinseg_jax.exporting import onnx_graph

  x = onnx_graph.Tensor(onnx_graph.Graph(), onnx_graph.Ready('x'), (2, 3))
  with pytest.raises(NotImplementedError, match='sin cannot be written'):
    onnx_operations.translate(traced.jaxpr, [], [x])


@pytest.mark.parametrize('network', export_cases.NETWORKS[:2])
def test_kernels_of_float16_take_half_the_space_and_compute_the_same(network):
  *_, size = network
  predict, state, _ = _build(*network)
  halve = lambda x: x.astype(np.float16).astype(np.float32)
  state = jax.tree.map(lambda x: halve(x) if x.ndim > 1 else x, state)
  images = np.random.default_rng(1).integers(
    0, 256, (1, size, size, 3), np.uint8
  )
  found, sizes = [], []
  for halves in (False, True):
    model = onnx_file.build(predict, state, (size, size), halves=halves)
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(
      data, providers=['CPUExecutionProvider']
    )
    found.append(session.run(None, {'image': images})[0])
    sizes.append(len(data))
  np.testing.assert_allclose(*found, atol=1e-6)
  if network[1]:  # The other is so small that its nodes are most of it.
    assert sizes[1] < 0.55 * sizes[0]
