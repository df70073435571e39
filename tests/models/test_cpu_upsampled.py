"""A doubled image's convolution against doubling and the plain convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skinseg_jax.models import plain, resampling
from skinseg_jax.models.cpu import upsampled


def _plain(x, kernel):
  return plain.conv3x3(resampling.double(x), kernel)


@pytest.mark.parametrize('size', [(4, 6), (5, 3), (1, 1), (2, 1)])
@pytest.mark.parametrize(
  ('dtype', 'tolerance'), [('float64', 1e-12), ('float32', 1e-5)]
)
def test_same_values_and_gradients(size, dtype, tolerance):
  rng = np.random.default_rng(0)
  with jax.enable_x64(dtype == 'float64'):
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)
    x, kernel = normal(2, *size, 3), normal(3, 3, 3, 5)
    y, vjp = jax.vjp(_plain, x, kernel)
    dy = normal(*y.shape)
    ours = (
      upsampled.conv3x3(x, kernel),
      upsampled.input_grad(dy, kernel),
      upsampled.kernel_grad(x, dy),
    )
    for got, expected in zip(ours, (y, *vjp(dy)), strict=True):
      assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
      scale = max(1, float(jnp.abs(expected).max()))
      np.testing.assert_allclose(got, expected, atol=tolerance * scale)


def test_by_hand():
  # Of one pixel of 1, doubled to four, a kernel of ones sees all four.
  y = upsampled.conv3x3(jnp.ones((1, 1, 1, 1)), jnp.ones((3, 3, 1, 1)))
  assert y[0, ..., 0].tolist() == [[4, 4], [4, 4]]
