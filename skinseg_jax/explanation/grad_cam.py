"""Seg-Grad-CAM: where feature maps speak for the lesion.

Vinogradova, Dibrov and Myers, 2020 (arXiv:2002.11434), after Grad-CAM of
Selvaraju et al., 2017 (arXiv:1610.02391).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from skinseg_jax.explanation import levels
from skinseg_jax.models import plain
from skinseg_jax.runtime import compilation


def _maps(
  graphdef: nnx.GraphDef,
  state: Any,
  image: jax.Array,
  pixels: jax.Array,
  *,
  names: tuple[str, ...],
) -> dict[str, jax.Array]:
  """Computes the map of each level, with one backward pass for all.

  With the feature maps A_k of a level and the sum S of the logits of the chosen
  pixels: the sum over k of a_k A_k, where a_k is the mean of dS/dA_k over the
  positions of the map. Its positive part is the Grad-CAM.

  Args:
    graphdef: Static structure of the network, in evaluation mode.
    state: Its parameters and running statistics.
    image: uint8 [H, W, 3].
    pixels: 1 for a pixel whose logit counts, else 0; float or bool [H, W].
    names: Names of levels.

  Returns:
    For each name, float32 [h, w] of the level's size.
  """

  def run(changes):
    seen = {}

    def visit(name, output):
      if name in names:
        seen[name] = output = output + changes.get(name, 0)
      return output

    model = levels.watched(graphdef, state, visit)
    logits = model(image[None].astype(jnp.float32) / 255.0)
    return (logits[0, :, :, 0] * pixels).sum(), seen

  shapes = jax.eval_shape(lambda: run({})[1])
  zeros = {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.items()}
  # The gradient by a change of the maps is that by the maps themselves.
  gradients, seen = jax.grad(run, has_aux=True)(zeros)
  found = {}
  for name in names:
    weights = plain.widened(gradients[name]).mean(axis=(1, 2), keepdims=True)
    found[name] = (weights * plain.widened(seen[name])).sum(axis=-1)[0]
  return found


maps = compilation.jit(_maps, static_argnames='names')
