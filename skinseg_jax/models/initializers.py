"""Initial weights, by the rules of PyTorch and of its model libraries."""

import jax
import jax.numpy as jnp
from flax import nnx

_scaled = nnx.initializers.variance_scaling

# PyTorch's default for convolutions: uniform in +-1 / sqrt(fan_in), for
# kernels (torch.nn.init.kaiming_uniform_ with a = sqrt(5)) and for biases.
TORCH_KERNEL = _scaled(1 / 3, 'fan_in', 'uniform')
# He et al., 2015 (arXiv:1502.01852): by outputs (torchvision's ResNets, timm's
# EfficientNets), or by inputs (decoders of segmentation-models-pytorch).
HE_NORMAL_OUT = _scaled(2.0, 'fan_out', 'normal')
HE_UNIFORM = _scaled(2.0, 'fan_in', 'uniform')
# The same for depthwise kernels [k, k, 1, C]: k * k outputs for each input.
HE_NORMAL_DEPTHWISE = _scaled(2.0, 'fan_in', 'normal')
# Glorot and Bengio, 2010: heads of segmentation-models-pytorch.
GLOROT_UNIFORM = _scaled(1.0, 'fan_avg', 'uniform')


def torch_bias(fan_in: int) -> nnx.Initializer:
  """PyTorch's default for the bias of a convolution with `fan_in` inputs."""

  def init(key, shape, dtype=jnp.float32):
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init
