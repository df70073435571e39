import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skinseg_jax import losses


def test_bce_by_hand():
  # -log sigmoid(0) = .6931 on lesion; on skin with logit 2,
  # -log(1 - sigmoid(2)) = 2.1269; their mean is 1.4100.
  logits = jnp.array([0.0, 2.0]).reshape(1, 1, 2, 1)
  masks = jnp.array([1, 0], jnp.uint8).reshape(1, 1, 2)
  assert losses.bce_with_logits(logits, masks)[0] == pytest.approx(
    1.41004, abs=1e-5
  )


@pytest.mark.torch
def test_bce_equals_torch():
  torch = pytest.importorskip('torch')
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 20, (3, 8, 8, 1)).astype(np.float32)
  masks = rng.integers(0, 2, (3, 8, 8)).astype(np.uint8)
  expected = torch.nn.functional.binary_cross_entropy_with_logits(
    torch.from_numpy(logits[..., 0]), torch.from_numpy(masks).float()
  )
  assert losses.bce_with_logits(logits, masks).mean() == pytest.approx(
    expected.item(), rel=1e-6
  )


def test_gradient_is_finite_at_extreme_logits():
  logits = jnp.array([-1e4, 1e4]).reshape(1, 1, 2, 1)
  masks = jnp.array([1, 0], jnp.uint8).reshape(1, 1, 2)
  grad = jax.grad(lambda x: losses.bce_with_logits(x, masks).sum())(logits)
  assert np.asarray(grad).ravel().tolist() == [-0.5, 0.5]


def test_shapes_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='logits must be'):
    losses.bce_with_logits(jnp.zeros((1, 4, 4)), jnp.zeros((1, 4, 4)))
