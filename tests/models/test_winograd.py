"""Winograd's products against the plain sums, in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from skinseg_jax.models.cpu import winograd


def _plain(x, kernel):
  return lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


# Whole tiles of four columns, and one to three columns in the last.
@pytest.mark.parametrize('width', [8, 9, 6, 7, 1])
def test_same_values_and_kernel_gradients(width):
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    x, kernel, dy = (
      jnp.asarray(rng.standard_normal(shape))
      for shape in ((2, 5, width, 3), (3, 3, 3, 4), (2, 5, width, 4))
    )
    y, vjp = jax.vjp(lambda kernel: _plain(x, kernel), kernel)
    np.testing.assert_allclose(winograd.conv3x3(x, kernel), y, atol=1e-12)
    np.testing.assert_allclose(
      winograd.kernel_grad(x, dy), vjp(dy)[0], atol=1e-12
    )


def test_rounding_stays_near_that_of_the_plain_sum():
  # float32 has 24 bits: the plain sum is off by 1e-6 of the largest value, and
  # the factors of the transformations make that a few times as much.
  x = jax.random.normal(jax.random.key(0), (1, 16, 16, 128))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 128, 32))
  with jax.enable_x64(True):
    truth = _plain(x.astype('float64'), kernel.astype('float64'))
  error = jnp.abs(winograd.conv3x3(x, kernel) - np.asarray(truth, np.float32))
  assert float(error.max()) < 1e-5 * float(np.abs(truth).max())
