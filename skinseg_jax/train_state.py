"""Model and optimiser, as a static graph and a state of arrays."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from clu import parameter_overview
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.models import unet


@dataclasses.dataclass(frozen=True)
class TrainState:
  """What a training step works on.

  Attributes:
    graphdef: Static structure of (model, optimizer), in training mode.
    eval_graphdef: Static structure of the model alone, in evaluation mode.
    state: Arrays of (model, optimizer); `state[0]` is the model's part.
  """

  graphdef: nnx.GraphDef
  eval_graphdef: nnx.GraphDef
  state: Any


def create_model(
  config: config_lib.ModelConfig, seed: int, *, remat: bool = False
) -> unet.UNet:
  """A U-Net with fresh weights; the same seed gives the same weights."""
  # The default generator takes four times as long to compile.
  return unet.UNet(
    config.width,
    dtype=jnp.dtype(config.compute_dtype),
    initializer=config.initializer,
    remat=remat,
    rngs=nnx.Rngs(jax.random.key(seed, impl='rbg')),
  )


@functools.cache
def create_optimizer(
  config: config_lib.TrainConfig,
) -> optax.GradientTransformation:
  """Adam with PyTorch's constants: betas 0.9 and 0.999, epsilon 1e-8.

  The same config gives the same object, so that a step compiled for it serves
  again.
  """
  return optax.adam(config.learning_rate)


def create(
  config: config_lib.Config, sharding: jax.sharding.NamedSharding
) -> TrainState:
  """Makes the state of step 0, a copy on every device of `sharding`'s mesh."""
  shapes = abstract(config, sharding)
  # On the CPU, so that every kind of device starts from the same weights.
  platforms = jax.config.jax_platforms
  has_cpu = not platforms or 'cpu' in platforms
  cpu = jax.local_devices(backend='cpu')[0] if has_cpu else None
  with jax.default_device(cpu):
    state = _init(config)
  place = lambda leaf, shape: jax.device_put(leaf, shape.sharding)
  return dataclasses.replace(
    shapes, state=jax.tree.map(place, state, shapes.state)
  )


def abstract(
  config: config_lib.Config, sharding: jax.sharding.NamedSharding
) -> TrainState:
  """What `create` makes, with shapes in place of arrays: takes no memory."""
  model, optimizer = nnx.eval_shape(lambda: _build(config))
  replicated = jax.sharding.NamedSharding(
    sharding.mesh, jax.sharding.PartitionSpec()
  )
  return TrainState(
    graphdef=nnx.graphdef((model, optimizer)),
    eval_graphdef=nnx.graphdef(nnx.view(model, use_running_average=True)),
    state=jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=replicated
      ),
      nnx.state((model, optimizer)),
    ),
  )


def _build(config: config_lib.Config) -> tuple[unet.UNet, nnx.Optimizer]:
  train = config.train
  model = create_model(config.model, train.seed, remat=train.remat)
  return model, nnx.Optimizer(
    model, create_optimizer(config.train), wrt=nnx.Param
  )


# One compiled program: op by op it takes twice as long.
@functools.partial(jax.jit, static_argnames='config')
def _init(config: config_lib.Config) -> Any:
  return nnx.state(_build(config))


def overview(model_state: Any) -> str:
  """Table of all parameters and running statistics, with their number."""
  return parameter_overview.get_parameter_overview(
    nnx.to_pure_dict(model_state), include_stats=False
  )


def count(model_state: Any, kind: type[nnx.Variable]) -> int:
  """Number of values of one kind: `nnx.Param` or `nnx.BatchStat`."""
  return sum(
    leaf.size for leaf in jax.tree.leaves(nnx.filter_state(model_state, kind))
  )
