"""Convolutions in forms for CPUs against the plain operation and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skinseg_jax.models import plain
from skinseg_jax.models.cpu import depthwise, dilated, forms, pointwise

# Taps, stride, dilation, padding, height and width: odd and even sizes, sizes
# below the kernel, and TensorFlow's 'SAME' with more below and to the right.
_CASES = [
  (3, 1, 1, ((1, 1), (1, 1)), (7, 6)),
  (3, 2, 1, ((0, 1), (0, 1)), (8, 6)),
  (3, 2, 1, ((1, 1), (0, 1)), (7, 8)),
  (3, 2, 1, ((0, 0), (0, 0)), (6, 9)),
  (5, 1, 1, ((2, 2), (2, 2)), (4, 5)),
  (5, 1, 1, ((2, 2), (2, 2)), (2, 1)),
  (5, 2, 1, ((1, 2), (1, 2)), (8, 10)),
  (5, 2, 1, ((2, 2), (1, 2)), (5, 4)),
  (3, 1, 3, ((3, 3), (3, 3)), (5, 8)),
  (3, 1, 12, ((12, 12), (12, 12)), (6, 6)),
  (1, 2, 1, ((0, 0), (0, 0)), (5, 4)),
]


_precisions = pytest.mark.parametrize(
  ('dtype', 'tolerance'), [('float64', 1e-12), ('float32', 1e-5)]
)


def _assert_as_plain(form, size, kernel_shape, geometry, dtype, tolerance):
  """Compares values and both gradients on random images of four channels."""
  rng = np.random.default_rng(0)
  with jax.enable_x64(dtype == 'float64'):
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)
    x, kernel = normal(2, *size, 4), normal(*kernel_shape)
    y, vjp = jax.vjp(lambda *args: plain.conv(*args, geometry), x, kernel)
    dy = normal(*y.shape)
    ours = (
      form.conv(x, kernel, geometry),
      form.input_grad(dy, kernel, size, geometry),
      form.kernel_grad(x, dy, kernel_shape[:2], geometry),
    )
    for got, expected in zip(ours, (y, *vjp(dy)), strict=True):
      assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
      scale = max(1, float(jnp.abs(expected).max()))
      np.testing.assert_allclose(got, expected, atol=tolerance * scale)


@pytest.mark.parametrize(
  ('taps', 'stride', 'dilation', 'padding', 'size'), _CASES
)
@_precisions
def test_depthwise(taps, stride, dilation, padding, size, dtype, tolerance):
  geometry = plain.Geometry(stride, padding, dilation, groups=4)
  shape = (taps, taps, 1, 4)
  _assert_as_plain(depthwise, size, shape, geometry, dtype, tolerance)


@pytest.mark.parametrize(
  ('taps', 'dilation', 'padding', 'size'),
  [
    (3, 2, ((2, 2), (2, 2)), (8, 7)),
    (3, 12, ((12, 12), (12, 12)), (16, 13)),
    (3, 6, ((6, 6), (6, 6)), (5, 9)),  # Some taps see only zeros.
    (3, 36, ((36, 36), (36, 36)), (4, 4)),
    (2, 2, ((0, 2), (1, 1)), (5, 6)),
  ],
)
@_precisions
def test_dilated(taps, dilation, padding, size, dtype, tolerance):
  geometry = plain.Geometry(1, padding, dilation)
  shape = (taps, taps, 4, 3)
  _assert_as_plain(dilated, size, shape, geometry, dtype, tolerance)
  assert forms.conv_form(shape, geometry).conv is dilated.conv


def test_depthwise_by_hand():
  # The first channel's upper left tap alone is 1: the image moves down and to
  # the right. The second has 2 in the middle.
  kernel = jnp.zeros((3, 3, 1, 2)).at[0, 0, 0, 0].set(1).at[1, 1, 0, 1].set(2)
  x = 1 + jnp.arange(8.0).reshape(1, 2, 2, 2)
  geometry = plain.Geometry(padding=((1, 1), (1, 1)), groups=2)
  y = depthwise.conv(x, kernel, geometry)
  assert y[0, ..., 0].tolist() == [[0, 0], [0, 1]]
  assert y[0, ..., 1].tolist() == [[4, 8], [12, 16]]


def test_depthwise_against_torch():
  torch = pytest.importorskip('torch')
  rng = np.random.default_rng(0)
  x, kernel = (
    rng.standard_normal((2, 9, 8, 6)),
    rng.standard_normal((5, 5, 1, 6)),
  )
  images = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
  weight = torch.tensor(kernel.transpose(3, 2, 0, 1), requires_grad=True)
  expected = torch.nn.functional.conv2d(
    images, weight, stride=2, padding=2, groups=6
  )
  dy = rng.standard_normal(expected.shape)
  expected.backward(torch.tensor(dy))
  geometry = plain.Geometry(2, ((2, 2), (2, 2)), 1, 6)
  dy = dy.transpose(0, 2, 3, 1)
  with jax.enable_x64(True):
    np.testing.assert_allclose(
      depthwise.conv(jnp.asarray(x), jnp.asarray(kernel), geometry),
      expected.detach().numpy().transpose(0, 2, 3, 1),
      atol=1e-12,
    )
    np.testing.assert_allclose(
      depthwise.input_grad(
        jnp.asarray(dy), jnp.asarray(kernel), (9, 8), geometry
      ),
      images.grad.numpy().transpose(0, 2, 3, 1),
      atol=1e-12,
    )
    np.testing.assert_allclose(
      depthwise.kernel_grad(jnp.asarray(x), jnp.asarray(dy), (5, 5), geometry),
      weight.grad.numpy().transpose(2, 3, 1, 0),
      atol=1e-12,
    )


# Odd and even numbers of pixels: in one product and in two halves.
@pytest.mark.parametrize('size', [(3, 5), (4, 5)])
def test_pointwise(size):
  geometry = plain.Geometry()
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape))
    x, kernel, dy = normal(3, *size, 4), normal(1, 1, 4, 6), normal(3, *size, 6)
    y, vjp = jax.vjp(lambda *args: plain.conv(*args, geometry), x, kernel)
    ours = (
      pointwise.conv(x, kernel, geometry),
      pointwise.input_grad(dy, kernel, size, geometry),
      pointwise.kernel_grad(x, dy, (1, 1), geometry),
    )
    for got, expected in zip(ours, (y, *vjp(dy)), strict=True):
      np.testing.assert_allclose(got, expected, atol=1e-12)
