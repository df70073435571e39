"""Seg-Grad-CAM of a network of two layers, worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from skinseg_jax.explanation import grad_cam


class _Linear(nnx.Module):
  """A 1x1 convolution without bias."""

  def __init__(self, kernel):
    self.kernel = nnx.Param(jnp.array(kernel, jnp.float32))

  def __call__(self, x):
    return x @ self.kernel[...]


class _TwoLayers(nnx.Module):
  """Two feature maps, a ReLU, and logits from the map and its neighbour."""

  def __init__(self):
    # A_0 is red less green; A_1 is 2 blue.
    self.first = _Linear([[1, 0], [-1, 0], [0, 2]])
    self.second = _Linear([[3], [-1]])

  def __call__(self, images):
    features = nnx.relu(self.first(images))
    logits = self.second(features)
    # Each pixel also takes half of the logit to its left.
    return (
      logits
      + 0.5 * jnp.pad(logits, [(0, 0), (0, 0), (1, 0), (0, 0)])[:, :, :-1]
    )


def test_two_layers_by_hand():
  # One row of three pixels, [255, 0, 0], [0, 255, 51] and [102, 0, 255].
  image = np.uint8([[[255, 0, 0], [0, 255, 51], [102, 0, 255]]])
  pixels = np.array([[False, True, True]])
  graphdef, state = nnx.split(_TwoLayers())
  found = grad_cam.maps(graphdef, state, image, pixels, names=('first',))
  # A_0 = 1, -1, .4 and A_1 = 0, .4, 2, before the ReLU.
  # With u_i = 3 relu(A_0i) - relu(A_1i), S = (u_2 + u_1 / 2) + (u_3 + u_2 / 2)
  # = u_1 / 2 + 3/2 u_2 + u_3.
  # dS/dA_0 = 3 (1/2, 0, 1): the ReLU is flat at -1. a_0 = 4.5 / 3 = 1.5.
  # dS/dA_1 = -(0 or 1/2 at 0, 3/2, 1): JAX takes 0 there. a_1 = -2.5 / 3.
  expected = [
    1.5 * 1 - 2.5 / 3 * 0,
    1.5 * -1 - 2.5 / 3 * 0.4,
    1.5 * 0.4 - 2.5 / 3 * 2,
  ]
  assert np.asarray(found['first'])[0] == pytest.approx(expected, abs=1e-6)
