"""The first convolution of a decoder's block, of a doubled image and a skip."""

import jax
import jax.numpy as jnp

from skinseg_jax.models import operations, plain, resampling
from skinseg_jax.models.cpu import convolution, switch, upsampled


def conv3x3(
  x: jax.Array, skip: jax.Array | None, kernel: jax.Array
) -> jax.Array:
  """Doubles an image, appends a skip, and convolves with a border of zeros.

  Args:
    x: Float [B, H, W, C].
    skip: Float [B, 2H, 2W, S] of the same type, or None for no channels.
    kernel: Float [3, 3, C + S, out], of the same type.

  Returns:
    Float [B, 2H, 2W, out].
  """
  if upsampled.pays(x.shape[-1]):
    return _conv3x3(x, skip, kernel)
  return operations.conv3x3(_joined(x, skip), kernel)


@jax.custom_vjp
def _conv3x3(x, skip, kernel):
  return switch.choose(x, skip, kernel, cpu=_on_cpu, plain=_plain)


def _conv3x3_fwd(x, skip, kernel):
  return _conv3x3(x, skip, kernel), (x, skip, kernel)


def _conv3x3_bwd(saved, dy):
  return switch.choose(*saved, dy, cpu=_grads_on_cpu, plain=_plain_grads)


_conv3x3.defvjp(_conv3x3_fwd, _conv3x3_bwd)


def _plain(x, skip, kernel):
  return plain.conv3x3(_joined(x, skip), kernel)


def _plain_grads(x, skip, kernel, dy):
  return jax.vjp(_plain, x, skip, kernel)[1](dy)


def _joined(x, skip):
  x = resampling.double(x)
  return x if skip is None else jnp.concatenate([x, skip], axis=-1)


def _on_cpu(x, skip, kernel):
  channels = x.shape[-1]
  y = upsampled.conv3x3(x, kernel[:, :, :channels])
  if skip is None:
    return y
  return y + convolution.conv3x3(skip, kernel[:, :, channels:])


def _grads_on_cpu(x, skip, kernel, dy):
  channels = x.shape[-1]
  dx = upsampled.input_grad(dy, kernel[:, :, :channels])
  dkernel = upsampled.kernel_grad(x, dy)
  if skip is None:
    return dx, None, dkernel
  turned = kernel[::-1, ::-1, channels:].transpose(0, 1, 3, 2)
  dskip = convolution.conv3x3(dy, turned)
  rest = convolution.conv3x3_kernel_grad(skip, dy)
  return dx, dskip, jnp.concatenate([dkernel, rest], axis=2)
