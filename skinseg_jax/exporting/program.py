"""The function that every exported file computes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.models import build

# Pictures to probabilities, by the weights.
Program = Callable[[Any, jax.Array], jax.Array]


def build_program(config: config_lib.ModelConfig) -> Program:
  """The evaluation forward pass, in float32 whatever the config computes in.

  Also on accelerators that round float32 to fewer bits by default, such as
  TF32 on NVIDIA GPUs.

  Args:
    config: Which network.

  Returns:
    Maps the network's state and pictures, uint8 [B, H, W, 3], RGB, to the
    probability of lesion, float32 [B, H, W].
  """
  wide = dataclasses.replace(config, compute_dtype='float32')
  graphdef = build.in_evaluation_mode(
    nnx.eval_shape(lambda: build.create(wide, seed=0))
  )

  def program(state, images):
    with jax.default_matmul_precision('highest'):
      logits = nnx.merge(graphdef, state)(images.astype(jnp.float32) / 255.0)
    return jax.nn.sigmoid(jnp.squeeze(logits, -1))

  return program


def symbolic_images(size: tuple[int, int]) -> jax.ShapeDtypeStruct:
  """Pictures of that height and width, as many as one likes."""
  (batch,) = jax.export.symbolic_shape('batch')
  return jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)
