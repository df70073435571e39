"""Builds a network by its name, with weights or as shapes alone."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.models import unet
from skinseg_jax.models.architectures import (
  attention_unet,
  deeplabv3,
  deeplabv3plus,
  encoder_unet,
  fcn,
  fpn,
  linknet,
  manet,
  pspnet,
  resunetplusplus,
  segnet,
  unetplusplus,
)
from skinseg_jax.models.encoders import efficientnet_lite, resnet

# What every network and encoder takes: dtype, remat and rngs.
_Options = dict[str, Any]

_LITE = efficientnet_lite.EfficientNetLite
# Factors of width and depth: github.com/tensorflow/tpu, efficientnet/lite.
ENCODERS: dict[str, Callable[..., nnx.Module]] = {
  'resnet18': functools.partial(resnet.ResNet, (2, 2, 2, 2)),
  'resnet34': functools.partial(resnet.ResNet, (3, 4, 6, 3)),
  'resnet50': functools.partial(resnet.ResNet, (3, 4, 6, 3), bottleneck=True),
  'efficientnet_lite0': functools.partial(_LITE, width=1.0, depth=1.0),
  'efficientnet_lite1': functools.partial(_LITE, width=1.0, depth=1.1),
  'efficientnet_lite2': functools.partial(_LITE, width=1.1, depth=1.2),
}


def _unet(config: config_lib.ModelConfig, options: _Options) -> nnx.Module:
  if config.encoder:
    return _on_encoder(encoder_unet.EncoderUNet)(config, options)
  return unet.UNet(config.width, initializer=config.initializer, **options)


def _of_width(network: Callable[..., nnx.Module]):
  return lambda config, options: network(config.width, **options)


def _on_encoder(network: Callable[..., nnx.Module], *, output_stride: int = 32):
  """Builds a network on an encoder whose last features have that stride."""

  def build(config: config_lib.ModelConfig, options: _Options) -> nnx.Module:
    encoder = functools.partial(
      ENCODERS[config.encoder], output_stride=output_stride
    )
    # Of the networks at stride 8, those with a ResNet-50 are torchvision's.
    if output_stride == 8 and config.encoder == 'resnet50':
      encoder = functools.partial(encoder, dilate_first=False)
    return network(encoder(**options), **options)

  return build


ARCHITECTURES: dict[
  str, Callable[[config_lib.ModelConfig, _Options], nnx.Module]
] = {
  'unet': _unet,
  'fcn': _on_encoder(fcn.FCN, output_stride=8),
  'segnet': _of_width(segnet.SegNet),
  'deeplabv3': _on_encoder(deeplabv3.DeepLabV3, output_stride=8),
  'deeplabv3plus': _on_encoder(deeplabv3plus.DeepLabV3Plus, output_stride=16),
  'attention_unet': _of_width(attention_unet.AttentionUNet),
  'unetplusplus': _on_encoder(unetplusplus.UNetPlusPlus),
  'resunetplusplus': _of_width(resunetplusplus.ResUNetPlusPlus),
  'fpn': _on_encoder(fpn.FPN),
  'manet': _on_encoder(manet.MANet),
  'linknet': _on_encoder(linknet.LinkNet),
  'pspnet': _on_encoder(pspnet.PSPNet),
}


def create(
  config: config_lib.ModelConfig, seed: int, *, remat: bool = False
) -> nnx.Module:
  """A network with fresh weights; the same seed gives the same weights.

  Args:
    config: Which network, and how wide.
    seed: Of the initial weights.
    remat: Whether the gradient computes what is inside a block again, instead
      of keeping it from the forward pass.

  Returns:
    Called as `network(images, key=None)`: images [B, H, W, 3] in [0, 1] to
    logits [B, H, W, 1]; `key` is that of dropout in training.
  """
  # The default generator takes four times as long to compile.
  rngs = nnx.Rngs(jax.random.key(seed, impl='rbg'))
  options = {
    'dtype': jnp.dtype(config.compute_dtype), 'remat': remat, 'rngs': rngs
  }  # fmt: skip
  return ARCHITECTURES[config.architecture](config, options)


def in_evaluation_mode(model: nnx.Module) -> nnx.GraphDef:
  """Static structure of a model that uses its running statistics."""
  return nnx.graphdef(nnx.view(model, use_running_average=True))


def abstract(
  config: config_lib.ModelConfig, sharding: jax.sharding.NamedSharding
) -> tuple[nnx.GraphDef, Any]:
  """A network in evaluation mode, as shapes: takes no memory.

  Args:
    config: Which network, and how wide.
    sharding: Of the batches; the weights are copied to all of its devices.

  Returns:
    Its static structure, and its state with `jax.ShapeDtypeStruct` leaves.
  """
  model = nnx.eval_shape(lambda: create(config, seed=0))
  return in_evaluation_mode(model), on_every_device(nnx.state(model), sharding)


def on_every_device(state: Any, sharding: jax.sharding.NamedSharding) -> Any:
  """The same shapes, with a copy on every device of `sharding`'s mesh."""
  replicated = jax.sharding.NamedSharding(
    sharding.mesh, jax.sharding.PartitionSpec()
  )
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=replicated
    ),
    state,
  )
