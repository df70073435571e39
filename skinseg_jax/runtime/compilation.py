"""Compiles functions with the XLA options that suit the platform."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax

from skinseg_jax.runtime import errors

# The options behind 'auto'. docs/explanation/performance.md lists what each one
# gains.
_OPTIONS: dict[str, dict[str, str | bool]] = {
  'cpu': {
    # Matrix products use the YNN library: kernel gradients take a third of the
    # time.
    'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_DOT',
  },
}


def make_deterministic() -> None:
  """Restricts XLA to operations that give the same bits every time.

  On a CPU all of them do. On a GPU some convolutions and scatters sum in the
  order in which threads finish. Call this before JAX starts its devices.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_deterministic_ops=true'.strip()


def keep_programs() -> None:
  """Keeps compiled programs in the user's cache folder for later processes.

  Does nothing if JAX was already told where to keep them, such as by
  JAX_COMPILATION_CACHE_DIR, or if there is no such folder or it cannot be made.
  """
  if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
    return
  home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  if not os.path.isabs(home):  # A user without a home.
    return
  folder = os.path.join(home, 'skinseg_jax', 'programs')
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError:
    return
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def compile_step(step: Any, *args: Any, xla_options: str, **static: Any) -> Any:
  """Compiles a jitted function for arguments of these shapes.

  Args:
    step: Result of `jax.jit`.
    *args: Arrays, or `jax.ShapeDtypeStruct` with a sharding.
    xla_options: 'auto', or names and values, 'a=1,b=2'; '' for none.
    **static: Static arguments by name.

  Returns:
    The executable. Call it without the static arguments; it never compiles
    again.

  Raises:
    InputError: If XLA does not know one of the named options.
  """
  lowered = step.lower(*args, **static)
  if xla_options == 'auto':
    return lowered.compile(compiler_options=_automatic())
  try:
    return lowered.compile(compiler_options=_parse(xla_options))
  except jax.errors.JaxRuntimeError as error:
    if 'No such compile option' not in str(error):
      raise
    raise errors.InputError(f'train.xla_options: {error}') from None


def jit(
  function: Callable[..., Any], *, static_argnames: str
) -> Callable[..., Any]:
  """Wraps `jax.jit` with the options that 'auto' selects."""

  # Deferred to the first call, because asking for the platform starts it.
  @functools.cache
  def jitted():
    return jax.jit(
      function,
      static_argnames=static_argnames,
      compiler_options=_automatic(),
    )

  @functools.wraps(function)
  def call(*args, **kwargs):
    return jitted()(*args, **kwargs)

  return call


@functools.cache
def _automatic() -> dict[str, str | bool]:
  options: dict[str, str | bool] = _OPTIONS.get(jax.default_backend(), {})
  try:
    jax.jit(lambda: 0).lower().compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    if 'No such compile option' not in str(error):
      raise
    return {}  # Another release of XLA lacks them: slower, same result.
  return options


def _parse(text: str) -> dict[str, str | bool]:
  pairs = [pair.partition('=') for pair in text.split(',') if pair]
  return {name.strip(): value.strip() for name, _, value in pairs}
