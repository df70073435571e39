"""Matrix products that sum over pixels, for CPUs."""

import jax
import jax.numpy as jnp


def over_pixels(x: jax.Array, dy: jax.Array) -> jax.Array:
  """Sum over all but the last axis of the products of each two channels.

  Args:
    x: Float [..., in].
    dy: Float [..., out], of the same type; the other axes as in x.

  Returns:
    [in, out].
  """
  x, dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
  if len(x) % 2:
    return x.T @ dy
  # Two products, one for each half of the pixels: XLA divides one product among
  # cores by rows and columns of its result, which are few here.
  halves = [a.reshape(2, -1, a.shape[-1]) for a in (x, dy)]
  return jnp.einsum('hpi,hpo->hio', *halves).sum(0)
