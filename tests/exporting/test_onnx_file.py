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
from skinseg_jax.models.cpu import switch

pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

from skinseg_jax.exporting import onnx_file, onnx_operations  # noqa: E402


def _images(count, size):
  return np.random.default_rng(1).integers(
    0, 256, (count, size, size, 3), np.uint8
  )


def _config(architecture, encoder, width):
  return config_lib.ModelConfig(
    architecture=architecture, encoder=encoder, width=width
  )


def _model(config, state, size, **options):
  predict = program.build_program(config)
  return onnx_file.build(predict, state, (size, size), **options)


def _run(model, images):
  session = onnxruntime.InferenceSession(
    model.SerializeToString(), providers=['CPUExecutionProvider']
  )
  return session.run(None, {'image': images})[0]


def test_every_architecture_is_tested():
  assert {name for name, *_ in export_cases.NETWORKS} == set(
    build.ARCHITECTURES
  )


@pytest.mark.parametrize(
  ('architecture', 'encoder', 'width', 'size'), export_cases.NETWORKS
)
def test_probabilities_are_those_of_flax(architecture, encoder, width, size):
  config, images = _config(architecture, encoder, width), _images(7, size)
  state, flax = export_cases.trained_like(config, images)
  model = _model(config, state, size)
  for count in (1, 7):
    found = _run(model, images[:count])
    assert found.shape == (count, size, size)
    np.testing.assert_allclose(found, flax[:count], atol=1e-4)
  kinds = collections.Counter(node.op_type for node in model.graph.node)
  assert kinds['BatchNormalization'] == 0
  # Images are turned once; group norms and attention turn small ones.
  allowed = {'fpn': 8, 'manet': 3}.get(architecture, 1)
  assert kinds['Transpose'] <= allowed


def test_the_unet_has_few_nodes():
  config = _config('unet', '', 2)
  model = _model(config, export_cases.random_state(config), 16)
  kinds = collections.Counter(node.op_type for node in model.graph.node)
  # Two convolutions in each of nine blocks, and the head.
  assert (kinds['Conv'], kinds['Relu'], kinds['ConvTranspose']) == (19, 18, 4)
  assert len(model.graph.node) == 54
  assert model.opset_import[0].version == onnx_file.OPSET


@pytest.mark.parametrize(
  'function',
  [
    lambda x: x * 2.0 + 1.0,
    lambda x: -x,
    jax.nn.hard_sigmoid,
    lambda x: jnp.minimum(2 * jax.nn.relu(x), 1),
    lambda x: jnp.minimum(jax.nn.relu(x) - 0.4, 0.5),
    lambda x: jnp.minimum(jnp.minimum(jax.nn.relu(x), 0.3), 2),
    lambda x: jnp.minimum(jax.nn.relu(x), jnp.arange(1.0, 4).reshape(1, 1, 3)),
  ],
)
def test_what_follows_a_convolution_is_computed_exactly(function):
  kernel = np.random.default_rng(0).normal(size=(1, 1, 3, 3)) / 60
  convolve = lambda x: jax.lax.conv_general_dilated(
    x, kernel.astype(np.float32), (1, 1), 'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )  # fmt: skip

  def predict(state, images):
    values = function(convolve(images.astype(jnp.float32)))
    return jnp.max(values, axis=-1)

  images = np.random.default_rng(1).integers(0, 256, (2, 4, 5, 3), np.uint8)
  with jax.numpy_rank_promotion('allow'):
    model = onnx_file.build(predict, {}, (4, 5))
    expected = predict({}, images)
  found = _run(model, images)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_convolutions_are_not_rounded_to_fewer_bits():
  config = _config('unet', '', 2)
  state = export_cases.random_state(config)
  images = np.zeros((1, 16, 16, 3), np.uint8)
  with switch.cpu_forms(False):
    lowered = jax.jit(program.build_program(config)).lower(state, images)
  text = lowered.as_text()
  assert 'stablehlo.convolution' in text
  assert 'HIGHEST' in text
  assert 'DEFAULT' not in text


def test_what_is_unknown_is_refused():
  traced = jax.make_jaxpr(jnp.sin)(jnp.ones((2, 3)))
  from skinseg_jax.exporting import onnx_graph

  x = onnx_graph.Tensor(onnx_graph.Graph(), onnx_graph.Ready('x'), (2, 3))
  with pytest.raises(NotImplementedError, match='sin cannot be written'):
    onnx_operations.translate(traced.jaxpr, [], [x])


@pytest.mark.parametrize('network', export_cases.NETWORKS[:2])
def test_kernels_of_float16_take_half_the_space_and_compute_the_same(network):
  *network, size = network
  config, images = _config(*network), _images(1, size)
  state, _ = export_cases.trained_like(config, images)
  halve = lambda x: x.astype(np.float16).astype(np.float32)
  state = jax.tree.map(lambda x: halve(x) if x.ndim > 1 else x, state)
  models = [_model(config, state, size, halves=h) for h in (False, True)]
  np.testing.assert_allclose(*(_run(m, images) for m in models), atol=1e-6)
  sizes = [model.ByteSize() for model in models]
  if network[1]:  # The other is so small that its nodes are most of it.
    assert sizes[1] < 0.55 * sizes[0]
