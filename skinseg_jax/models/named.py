"""Names of operations in a traced program, for exports that look for them.

Pooling in JAX is a reshape and a maximum; other formats have one operation for
it. Inside `with named.kept(True):` a function with the decorator `operation`
is one equation of the program, a call of `jax.jit` that carries the function's
name. Everywhere else the decorator does nothing.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

_Function = TypeVar('_Function', bound=Callable[..., Any])

# Part of the key of JAX's caches: changing it traces a function again.
kept = jax.make_user_context(default_value=False)

# No function of JAX has a name that starts like this.
PREFIX = 'operation:'


def operation(function: _Function) -> _Function:
  """Decorates a function whose name an export can look for.

  Args:
    function: Its positional arguments are arrays. Keywords are static.
  """

  @functools.wraps(function)
  def call(*args, **static):
    if not kept.value:
      return function(*args, **static)
    whole = functools.partial(function, **static)
    whole.__name__ = PREFIX + function.__name__
    return jax.jit(whole)(*args)

  return call  # type: ignore[return-value]
