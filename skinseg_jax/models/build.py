"""Builds a network by its name, with weights or as shapes alone."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.models import unet


def create(
  config: config_lib.ModelConfig, seed: int, *, remat: bool = False
) -> unet.UNet:
  """A network with fresh weights; the same seed gives the same weights.

  Args:
    config: Which network, and how wide.
    seed: Of the initial weights.
    remat: Whether the gradient computes what is inside a block again, instead
      of keeping it from the forward pass.
  """
  # The default generator takes four times as long to compile.
  return unet.UNet(
    config.width,
    dtype=jnp.dtype(config.compute_dtype),
    initializer=config.initializer,
    remat=remat,
    rngs=nnx.Rngs(jax.random.key(seed, impl='rbg')),
  )


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
