"""One switch between the forms for CPUs and the plain ones.

The forms in this folder compute what the plain operation does, in another
order of summation, and faster on a CPU. They choose by the sizes of the
arrays, so they need sizes that are known when the program is traced. An export
with a symbolic batch size turns them off:

  with switch.cpu_forms(False):
    jax.export.export(...)
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

# Part of the key of JAX's caches: changing it traces a function again.
cpu_forms = jax.make_user_context(default_value=True)


def choose(
  *args: Any, cpu: Callable[..., Any], plain: Callable[..., Any]
) -> Any:
  """Calls the form for the platform that the program is compiled for.

  Args:
    *args: Arrays.
    cpu: Called with them on a CPU, unless the switch is off.
    plain: Called with them everywhere else.

  Returns:
    What the chosen function returns; both must return the same shapes.
  """
  if not cpu_forms.value:
    return plain(*args)
  return lax.platform_dependent(*args, cpu=cpu, default=plain)
