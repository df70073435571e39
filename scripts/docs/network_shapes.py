"""Sizes and channels of what each module of a network takes and returns.

Found by tracing the network, so nothing is computed and no memory is taken.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.models import build, layers
from skinseg_jax.models.cpu import switch

# Height and width of the images, a multiple of 32.
IMAGE_SIZE = 224


class Features(NamedTuple):
  """Channels, and the image's height divided by the features' height."""

  channels: int
  stride: float


class Shapes(NamedTuple):
  """What a traced network says about itself.

  Attributes:
    model: The network, as shapes.
    inputs: What each module takes, by its path, such as 'ups/0'.
    outputs: What each module returns, by its path.
    fan_in: Channels that each convolution takes, by its path.
  """

  model: nnx.Module
  inputs: dict[str, list[Features]]
  outputs: dict[str, list[Features]]
  fan_in: dict[str, int]


def model_config(
  architecture: str, encoder: str = '', width: int = 64
) -> config_lib.ModelConfig:
  """The config of a network; `width` is for one without an encoder."""
  return config_lib.ModelConfig(
    architecture=architecture, encoder=encoder, width=width
  )


def abstract(config: config_lib.ModelConfig) -> nnx.Module:
  """A network without weights."""
  return nnx.eval_shape(lambda: build.create(config, seed=0))


def images() -> jax.ShapeDtypeStruct:
  """One image, as a shape."""
  return jax.ShapeDtypeStruct((1, IMAGE_SIZE, IMAGE_SIZE, 3), jnp.float32)


def trace(config: config_lib.ModelConfig) -> Shapes:
  """Traces the prediction of one image."""
  model = abstract(config)
  fan_in = {}
  for path, module in _modules(model):
    if isinstance(module, layers.Conv):
      fan_in[path] = module.kernel.shape[2] * module.groups
    elif isinstance(module, layers.ConvTranspose):
      fan_in[path] = module.kernel.shape[3]
    elif isinstance(module, nnx.Conv):
      fan_in[path] = module.kernel.shape[2]
  shapes = Shapes(model, {}, {}, fan_in)
  graphdef, state = build.in_evaluation_mode(model), nnx.state(model)

  def predict(state, images):
    merged = nnx.merge(graphdef, state)
    with _recorded(merged, shapes):
      return merged(images)

  with switch.cpu_forms(False):
    jax.eval_shape(predict, state, images())
  return shapes


def _modules(model: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
  for path, module in nnx.iter_modules(model):
    yield '/'.join(map(str, path)), module


@contextlib.contextmanager
def _recorded(model: nnx.Module, shapes: Shapes) -> Iterator[None]:
  """Writes down the shapes of every call of a module of `model`."""
  paths = {id(module): path for path, module in _modules(model)}

  def recording(call):
    @functools.wraps(call)
    def wrapper(self, *args, **kwargs):
      returned = call(self, *args, **kwargs)
      path = paths.get(id(self))
      if path is not None:
        shapes.inputs[path] = _features(args)
        shapes.outputs[path] = _features(returned)
      return returned

    return wrapper

  kinds = {type(module) for _, module in _modules(model)}
  with contextlib.ExitStack() as stack:
    # A class that inherits its `__call__` is recorded by its parent.
    for kind in {k for each in kinds for k in each.__mro__}:
      if '__call__' in vars(kind) and issubclass(kind, nnx.Module):
        stack.enter_context(
          mock.patch.object(kind, '__call__', recording(kind.__call__))
        )
    yield


def _features(tree: Any) -> list[Features]:
  return [
    Features(leaf.shape[3], IMAGE_SIZE / leaf.shape[1])
    for leaf in jax.tree.leaves(tree)
    if getattr(leaf, 'ndim', 0) == 4
  ]
