"""Fast forms against the plain operations, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from skinseg_jax.models import layers, operations, resampling


def _normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def _assert_same(ours, plain, *args):
  """Equal values, and equal gradients of a random projection."""
  ours_value, ours_vjp = jax.vjp(ours, *args)
  plain_value, plain_vjp = jax.vjp(plain, *args)
  direction = _normal(99, *plain_value.shape)
  pairs = [
    (ours_value, plain_value),
    *zip(ours_vjp(direction), plain_vjp(direction), strict=True),
  ]
  for got, expected in pairs:
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(got, expected, atol=2e-5 * scale)


def _plain_conv(x, kernel):
  return lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


# Few and many channels, even and odd widths and batches; the last four by
# Winograd's products, with whole and incomplete tiles, and in strips.
@pytest.mark.parametrize(
  ('batch', 'size', 'features_in', 'features'),
  [(2, 16, 3, 16), (3, 16, 16, 16), (2, 32, 32, 16), (2, 8, 32, 64),
   (1, 14, 8, 4), (2, 15, 4, 4), (2, 8, 64, 128), (3, 7, 128, 64),
   (1, 14, 64, 64), (1, 66, 64, 64)],
)  # fmt: skip
def test_conv3x3(batch, size, features_in, features):
  x = _normal(0, batch, size, size, features_in)
  kernel = _normal(1, 3, 3, features_in, features)
  _assert_same(operations.conv3x3, _plain_conv, x, kernel)


def test_conv3x3_by_hand():
  # A kernel whose lower right tap alone is 1 shifts the image up and left.
  kernel = jnp.zeros((3, 3, 1, 1)).at[2, 2].set(1.0)
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  assert operations.conv3x3(x, kernel)[0, ..., 0].tolist() == [
    [5, 6, 7, 0],
    [9, 10, 11, 0],
    [13, 14, 15, 0],
    [0, 0, 0, 0],
  ]


@pytest.mark.parametrize('width', [7, 28, 48, 112])
def test_batch_norm_relu(width):
  def plain(x, scale, bias):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    row = lambda v: v.reshape(1, 1, 1, -1)
    normal = (x - row(mean)) / jnp.sqrt(row(var) + 1e-5)
    return jax.nn.relu(normal * row(scale) + row(bias))

  x = 3 * _normal(0, 2, width, width, 8) + 2
  _assert_same(
    lambda *args: operations.batch_norm(*args, 1e-5, 'relu')[0],
    plain,
    x,
    _normal(1, 8),
    _normal(2, 8),
  )
  _, mean, var = operations.batch_norm(
    x, jnp.ones(8), jnp.zeros(8), 1e-5, 'relu'
  )
  np.testing.assert_allclose(mean, x.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(var, x.var((0, 1, 2)), rtol=1e-5)


def test_variance_far_from_zero():
  # About 0, float32 would have 4 of 24 bits left for a variance of 1.
  x = _normal(0, 2, 32, 32, 4) + 1000
  _, mean, var = operations.batch_norm(
    x, jnp.ones(4), jnp.zeros(4), 1e-5, 'relu'
  )
  exact = np.asarray(x, np.float64)
  np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
  np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-4)


def test_running_statistics_by_hand():
  # After one step from 0 and 1 with momentum .9: mean .1 * m, variance
  # .9 + .1 * v (biased).
  norm = layers.BatchNorm(3, rngs=nnx.Rngs(0))
  x = 2 * _normal(0, 4, 8, 8, 3) + 5
  norm(x)
  np.testing.assert_allclose(norm.mean[...], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
  np.testing.assert_allclose(
    norm.var[...], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-5
  )


def test_evaluation_uses_the_running_statistics_and_leaves_them():
  norm = layers.BatchNorm(1, rngs=nnx.Rngs(0))
  norm.mean[...], norm.var[...] = jnp.array([2.0]), jnp.array([4.0])
  view = nnx.view(norm, use_running_average=True)
  # (6 - 2) / 2 = 2, and (0 - 2) / 2 = -1, which ReLU makes 0.
  y = view(jnp.array([6.0, 0.0]).reshape(1, 1, 2, 1))
  np.testing.assert_allclose(y.ravel(), [2.0, 0.0], rtol=1e-5)
  assert norm.mean[...].tolist() == [2.0]


def test_conv_transpose():
  ours = layers.ConvTranspose(8, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))

  def plain(x, kernel, bias):
    y = lax.conv_transpose(
      x, kernel, (2, 2), 'VALID', transpose_kernel=True,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip
    return y + bias.reshape(1, 1, 1, -1)

  kernel, bias = _normal(1, 2, 2, 4, 8), _normal(2, 4)
  x = _normal(0, 2, 7, 5, 8)
  ours.kernel[...], ours.bias[...] = kernel, bias
  np.testing.assert_allclose(ours(x), plain(x, kernel, bias), atol=1e-5)


@pytest.mark.parametrize('size', [3, 4])
def test_larger_transposed_kernels(size):
  torch = pytest.importorskip('torch')
  twin = torch.nn.ConvTranspose2d(
    8, 4, size, stride=2, padding=1, output_padding=size % 2
  )
  ours = layers.ConvTranspose(8, 4, size, dtype=jnp.float32, rngs=nnx.Rngs(0))
  ours.kernel[...] = twin.weight.detach().numpy().transpose(2, 3, 1, 0)
  ours.bias[...] = twin.bias.detach().numpy()
  x = _normal(0, 2, 7, 5, 8)
  expected = twin(torch.tensor(np.asarray(x)).permute(0, 3, 1, 2))
  expected = expected.permute(0, 2, 3, 1).detach().numpy()
  np.testing.assert_allclose(ours(x), expected, atol=1e-5)


def test_max_pool_by_hand():
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  assert resampling.max_pool(x)[0, ..., 0].tolist() == [[5, 7], [13, 15]]
  gradient = jax.grad(lambda x: resampling.max_pool(x).sum())(x)
  assert np.flatnonzero(gradient).tolist() == [5, 7, 13, 15]


def test_bfloat16_keeps_its_type_and_float32_statistics():
  x = _normal(0, 2, 8, 8, 4).astype(jnp.bfloat16)
  y, mean, var = operations.batch_norm(
    x, jnp.ones(4), jnp.zeros(4), 1e-5, 'relu'
  )
  assert (y.dtype, mean.dtype, var.dtype) == (
    jnp.bfloat16, jnp.float32, jnp.float32,
  )  # fmt: skip
  kernel = _normal(1, 3, 3, 4, 4).astype(jnp.bfloat16)
  grads = jax.grad(
    lambda x, k: operations.conv3x3(x, k).astype(jnp.float32).sum(), (0, 1)
  )(x, kernel)
  assert {g.dtype for g in grads} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
  ('dtype', 'on_cpu'), [('float32', 12), ('bfloat16', 2)]
)
def test_a_gpu_gets_plain_convolutions(dtype, on_cpu):
  # Output, gradient of the image and gradient of the kernel, without the
  # loops and products that pay on a CPU.
  x = jax.ShapeDtypeStruct((2, 64, 64, 64), dtype)
  kernel = jax.ShapeDtypeStruct((3, 3, 64, 128), dtype)
  value_and_grads = jax.value_and_grad(
    lambda *args: operations.conv3x3(*args).astype(jnp.float32).sum(), (0, 1)
  )
  traced = jax.jit(value_and_grads).trace(x, kernel)
  text = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('stablehlo.convolution(') == 3
  assert 'stablehlo.while' not in text
  text = traced.lower(lowering_platforms=('cpu',)).as_text()
  assert text.count('stablehlo.convolution(') == on_cpu
