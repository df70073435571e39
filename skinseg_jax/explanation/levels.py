"""Looks into a network: what its modules return, and which are its levels.

The networks know nothing of this. The modules of a copy become instances of
subclasses whose `__call__` also tells a function what it returns.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx


class Level(NamedTuple):
  """The feature maps that one block of a network returns.

  Attributes:
    name: Path of the block in the network, such as 'decoder.blocks.0'.
    height: Of the maps, in their own pixels.
    width: Likewise.
    channels: Number of maps.
  """

  name: str
  height: int
  width: int
  channels: int


def find(
  graphdef: nnx.GraphDef, state: Any, image_size: tuple[int, int]
) -> list[Level]:
  """Finds the levels of a network; traces it, but computes nothing.

  A level is the output of a block. A block is a module without a part that
  works at a smaller size than its output: so a decoder is none, but each of its
  blocks is. Outputs of one channel are left out, because they are logits, and
  outputs of one pixel, because they are vectors.

  Args:
    graphdef: Static structure of the network, in evaluation mode.
    state: Its parameters and statistics, or their shapes.
    image_size: Height and width of its input.

  Returns:
    The levels in the order in which they are computed.
  """
  calls: list[Level] = []

  def visit(name: str, output: jax.Array) -> jax.Array:
    if output.ndim == 4:
      calls.append(Level(name, *output.shape[1:]))
    return output

  def trace(state, images):
    return watched(graphdef, state, visit)(images)

  jax.eval_shape(
    trace, state, jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)
  )
  area = lambda call: call.height * call.width
  inside = lambda call, other: call.name.startswith(f'{other.name}.')
  blocks = [
    call
    for call in calls
    if not any(
      inside(part, call) and 1 < area(part) < area(call) for part in calls
    )
  ]
  return [
    block
    for block in blocks
    if block.channels > 1
    and area(block) > 1
    and not any(inside(block, other) for other in blocks)
  ]


def last_of_each_size(levels: Iterable[Level]) -> list[Level]:
  """The last level of each height and width, the smallest maps first."""
  last = {(level.height, level.width): level for level in levels}
  return sorted(last.values(), key=lambda level: level.height * level.width)


def watched(
  graphdef: nnx.GraphDef,
  state: Any,
  visit: Callable[[str, jax.Array], jax.Array],
) -> nnx.Module:
  """A network that shows what its modules return.

  Args:
    graphdef: Static structure of the network.
    state: Its parameters and statistics.
    visit: Called with the path of a module below the network and with the array
      that the module returns. The network goes on with what `visit` returns.

  Returns:
    A copy of the network with the same weights.
  """
  model = nnx.merge(graphdef, state)
  for path, module in list(nnx.iter_modules(model)):
    if path and callable(module):
      _watch(module, '.'.join(map(str, path)), visit)
  return model


def _watch(module: nnx.Module, name: str, visit: Callable[..., Any]) -> None:
  kind: Any = type(module)

  def call(self, *args, **kwargs):
    output = kind.__call__(self, *args, **kwargs)
    return visit(name, output) if isinstance(output, jax.Array) else output

  # Not a module around it: some blocks use the attributes of their parts.
  watching = type(kind)(kind.__name__, (kind,), {'__call__': call})
  object.__setattr__(module, '__class__', watching)
