"""The convolution of a doubled image and a skip against its three steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skinseg_jax.models import doubled, plain, resampling
from skinseg_jax.models.cpu import switch


def _steps(x, skip, kernel):
  x = resampling.double(x)
  x = x if skip is None else jnp.concatenate([x, skip], -1)
  return plain.conv3x3(x, kernel)


# On both sides of the number of channels up to which it is one operation.
@pytest.mark.parametrize(('channels', 'skips'), [(4, 3), (4, 0), (130, 2)])
@pytest.mark.parametrize('cpu_forms', [True, False])
def test_same_values_and_gradients(channels, skips, cpu_forms):
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), 'float32')
  x, kernel = normal(2, 4, 3, channels), normal(3, 3, channels + skips, 5)
  skip = normal(2, 8, 6, skips) if skips else None
  y, vjp = jax.vjp(_steps, x, skip, kernel)
  dy = normal(*y.shape)
  with switch.cpu_forms(cpu_forms):
    ours, ours_vjp = jax.vjp(doubled.conv3x3, x, skip, kernel)
    pairs = zip(
      jax.tree.leaves((ours, ours_vjp(dy))),
      jax.tree.leaves((y, vjp(dy))),
      strict=True,
    )
    for got, expected in pairs:
      scale = float(jnp.abs(expected).max())
      np.testing.assert_allclose(got, expected, atol=1e-5 * scale)
