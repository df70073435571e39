"""Where XLA has to stop merging operations into one loop, for CPUs."""

import jax
from jax.experimental import xla_metadata


def kept(x: jax.Array) -> jax.Array:
  """Returns x, which is computed once and kept in memory.

  XLA merges what computes x into each loop that reads x, and so computes it
  again for each. `lax.optimization_barrier` does not prevent it: on a CPU, XLA
  removes barriers before it merges. A call that is not inlined does.
  """
  with xla_metadata.set_xla_metadata(inlineable='false'):
    return _identity(x)


@jax.jit
def _identity(x):
  return x
