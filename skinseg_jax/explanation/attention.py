"""Attention maps of networks whose skips have gates."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.explanation import levels
from skinseg_jax.models import plain
from skinseg_jax.models.architectures import attention_unet
from skinseg_jax.runtime import compilation


def gates(graphdef: nnx.GraphDef, state: Any) -> tuple[str, ...]:
  """Names of the gates, from the smallest map to the largest; often none."""
  modules = nnx.iter_modules(nnx.merge(graphdef, state))
  found = [
    '.'.join(map(str, path))
    for path, module in modules
    if isinstance(module, attention_unet.Gate)
  ]
  # Each level of that network lies inside the one above it.
  return tuple(sorted(found, key=lambda name: -name.count('.')))


def _maps(
  graphdef: nnx.GraphDef,
  state: Any,
  image: jax.Array,
  *,
  names: tuple[str, ...],
) -> dict[str, jax.Array]:
  """Computes how much of its skip each position lets through.

  Args:
    graphdef: Static structure of the network, in evaluation mode.
    state: Its parameters and running statistics.
    image: uint8 [H, W, 3].
    names: Names of gates.

  Returns:
    For each name, float32 [h, w] in (0, 1).
  """
  found = {}

  def visit(name, output):
    gate = name.removesuffix('.score')
    if gate != name and gate in names:
      found[gate] = jax.nn.sigmoid(plain.widened(output[0, :, :, 0]))
    return output

  levels.watched(graphdef, state, visit)(
    image[None].astype(jnp.float32) / 255.0
  )
  return found


maps = compilation.jit(_maps, static_argnames='names')
