"""Which form of a convolution is fastest on a CPU."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from skinseg_jax.models import plain
from skinseg_jax.models.cpu import depthwise, dilated, pointwise


class ConvForm(NamedTuple):
  """A convolution and its gradients; arguments as those in `plain`.

  Attributes:
    conv: As `plain.conv`.
    input_grad: As `plain.conv_input_grad`.
    kernel_grad: As `plain.conv_kernel_grad`.
  """

  conv: Callable[..., jax.Array]
  input_grad: Callable[..., jax.Array]
  kernel_grad: Callable[..., jax.Array]


_PLAIN = ConvForm(plain.conv, plain.conv_input_grad, plain.conv_kernel_grad)
_DEPTHWISE = ConvForm(
  depthwise.conv, depthwise.input_grad, depthwise.kernel_grad
)
_DILATED = ConvForm(dilated.conv, dilated.input_grad, dilated.kernel_grad)
_POINTWISE = ConvForm(
  pointwise.conv, pointwise.input_grad, pointwise.kernel_grad
)


def conv_form(
  kernel_shape: tuple[int, ...], geometry: plain.Geometry
) -> ConvForm:
  """Returns the functions for a kernel [height, width, in / groups, out]."""
  *taps, c_in, c_out = kernel_shape
  if geometry.groups > 1:
    depthwise_only = c_in == 1 and c_out == geometry.groups
    return _DEPTHWISE if depthwise_only else _PLAIN
  if taps == [1, 1] and geometry == plain.Geometry():
    return _POINTWISE
  if geometry.dilation > 1 and geometry.stride == 1:
    reach = [geometry.dilation * (n - 1) for n in taps]
    if reach == [sum(pad) for pad in geometry.padding]:  # Keeps the size.
      return _DILATED
  return _PLAIN
