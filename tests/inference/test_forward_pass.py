import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from skinseg_jax.inference import forward_pass


class _Uneven(nnx.Module):
  """Logits that depend on the position of a pixel, so that views differ."""

  def __init__(self, size):
    rng = np.random.default_rng(0)
    self.weights = nnx.Param(jnp.float32(rng.normal(0, 9, (*size, 1))))

  def __call__(self, images):
    return images[..., :1] * self.weights[...][None]

  def deepest(self, images):
    return images[:, :2, :1]


def _sigmoid(x):
  return 1 / (1 + np.exp(-x.astype(np.float64)))


@pytest.mark.parametrize(
  ('views', 'size', 'turns'),
  [('flips', (6, 8), (0,)), ('dihedral', (6, 6), (0, 1))],
)
def test_views_by_numpy_and_their_mean_probability(views, size, turns):
  model = _Uneven(size)
  images = np.random.default_rng(1).integers(0, 256, (2, *size, 3), np.uint8)
  split = nnx.split(model)
  weights = np.asarray(model.weights[...])[..., 0]
  expected = []
  for turn in turns:
    for axes in ((), (2,), (1,), (1, 2)):
      view = np.flip(np.rot90(images[..., 0], turn, (1, 2)), axes)
      seen = _sigmoid(view / 255 * weights[None])
      expected.append(np.rot90(np.flip(seen, axes), -turn, (1, 2)))
  each = forward_pass.each_view(*split, images, views=views)
  np.testing.assert_allclose(
    forward_pass.probabilities(each.logits), expected, rtol=1e-4
  )
  # By hand: means of the two upper pixels at the left of each view.
  corners = [
    np.flip(np.rot90(images, turn, (1, 2)), axes)[:, :2, 0].mean(axis=1) / 255
    for turn in turns
    for axes in ((), (2,), (1,), (1, 2))
  ]
  np.testing.assert_allclose(each.features, corners, rtol=1e-5)
  logits = forward_pass.forward(*split, images, views=views)
  np.testing.assert_allclose(
    _sigmoid(np.asarray(logits[..., 0])), np.mean(expected, axis=0), rtol=1e-4
  )


def test_one_view_is_the_model_itself():
  model = _Uneven((4, 4))
  images = np.full((1, 4, 4, 3), 255, np.uint8)
  logits = forward_pass.forward(*nnx.split(model), images, views='off')
  assert np.array_equal(logits[0], model.weights[...])


def test_views_keep_logits_that_no_probability_can_hold():
  model = _Uneven((4, 4))
  model.weights[...] = jnp.full((4, 4, 1), -300.0)
  images = np.full((1, 4, 4, 3), 255, np.uint8)
  logits = forward_pass.forward(*nnx.split(model), images, views='dihedral')
  np.testing.assert_allclose(logits, -300, rtol=1e-6)


def test_turned_image_gives_the_turned_prediction():
  model = _Uneven((6, 6))
  images = np.random.default_rng(2).integers(0, 256, (1, 6, 6, 3), np.uint8)
  split = nnx.split(model)
  upright = forward_pass.forward(*split, images, views='dihedral')
  turned = forward_pass.forward(
    *split, np.rot90(images, axes=(1, 2)), views='dihedral'
  )
  np.testing.assert_allclose(
    jnp.rot90(upright, axes=(1, 2)), turned, rtol=1e-4, atol=1e-5
  )
