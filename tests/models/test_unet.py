import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.models import build, unet
from skinseg_jax.training import train_state


def _abstract(width):
  return nnx.eval_shape(lambda: unet.UNet(width, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
  ('width', 'parameters', 'statistics'),
  [(64, 31_037_633, 11_776), (16, 1_942_577, 2_944)],
)
def test_number_of_parameters(width, parameters, statistics):
  state = nnx.state(_abstract(width))
  assert train_state.count(state, nnx.Param) == parameters
  assert train_state.count(state, nnx.BatchStat) == statistics


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_logits_have_the_size_of_the_image_in_float32(dtype):
  def build_and_run(x):
    model = unet.UNet(2, dtype=dtype, rngs=nnx.Rngs(0))
    return model(x), nnx.state(model, nnx.Param, nnx.BatchStat)

  logits, *state = jax.eval_shape(build_and_run, jnp.zeros((2, 32, 48, 3)))
  assert (logits.shape, logits.dtype) == ((2, 32, 48, 1), jnp.float32)
  assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {
    jnp.dtype('float32')
  }


def test_size_that_four_poolings_do_not_halve_is_refused():
  run = lambda x: unet.UNet(2, rngs=nnx.Rngs(0))(x)
  with pytest.raises(ValueError, match='multiples of 16'):
    jax.eval_shape(run, jnp.zeros((1, 40, 32, 3)))


@pytest.mark.torch
def test_initial_weights_are_distributed_as_torchs():
  torch = pytest.importorskip('torch')
  model = unet.UNet(16, rngs=nnx.Rngs(0))
  for ours, theirs in [
    (model.downs[1].conv1.kernel, torch.nn.Conv2d(16, 32, 3).weight),
    (model.ups[0].kernel, torch.nn.ConvTranspose2d(256, 128, 2, 2).weight),
    (model.ups[0].bias, torch.nn.ConvTranspose2d(256, 128, 2, 2).bias),
  ]:
    ours, theirs = np.asarray(ours[...]), theirs.detach().numpy()
    # The largest of n uniform draws is within bound * 5 / n of the bound,
    # with probability 1 - exp(-5).
    assert np.abs(ours).max() == pytest.approx(
      np.abs(theirs).max(), rel=12 / ours.size
    )
    assert ours.std() == pytest.approx(theirs.std(), rel=3 / np.sqrt(ours.size))


def test_the_seed_decides_the_weights():
  kernel = lambda seed: np.asarray(
    build.create(config_lib.ModelConfig(width=1), seed).head.kernel[...]
  )
  assert np.array_equal(kernel(1), kernel(1))
  assert not np.array_equal(kernel(1), kernel(2))
