import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.models import build, operations
from skinseg_jax.models.cpu import switch

# At 16 channels and more, the forms for CPUs choose by the batch size.
_CONFIG = config_lib.ModelConfig(width=16)


@pytest.fixture(scope='module')
def predict():
  """The network's forward pass, as a function of images alone."""
  model = build.create(_CONFIG, seed=0)
  graphdef = build.in_evaluation_mode(model)
  state = nnx.state(model)
  return lambda images: nnx.merge(graphdef, state)(images)


def test_without_cpu_forms_a_symbolic_batch_can_be_exported(predict):
  (batch,) = jax.export.symbolic_shape('b')
  shape = jax.ShapeDtypeStruct((batch, 112, 112, 3), jnp.float32)
  with switch.cpu_forms(False):
    exported = jax.export.export(
      jax.jit(predict), platforms=('cpu', 'cuda', 'tpu')
    )(shape)
    plain = jax.jit(predict)
    restored = jax.export.deserialize(exported.serialize())
    for size in (1, 3):
      images = jax.random.uniform(jax.random.key(size), (size, 112, 112, 3))
      np.testing.assert_array_equal(restored.call(images), plain(images))


def test_the_switch_is_part_of_the_cache_key():
  jitted = jax.jit(operations.conv3x3)
  x = jnp.ones((2, 8, 8, 16))
  kernel = jnp.ones((3, 3, 16, 16))
  jitted(x, kernel)
  before = jitted._cache_size()
  with switch.cpu_forms(False):
    jitted(x, kernel)
  assert jitted._cache_size() == before + 1


def test_both_forms_agree(predict):
  images = jax.random.uniform(jax.random.key(0), (2, 112, 112, 3))
  fast = jax.jit(predict)(images)
  with switch.cpu_forms(False):
    plain = jax.jit(predict)(images)
  scale = np.abs(plain).max()
  np.testing.assert_allclose(fast, plain, atol=1e-5 * scale)
