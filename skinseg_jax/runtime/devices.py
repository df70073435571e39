"""Selects the kind of device and explains what to do if there is none."""

import pathlib
import shutil
import sys

import jax

from skinseg_jax.runtime import errors

# Drivers list their devices here.
_DEV = pathlib.Path('/dev')
# How to install support for each kind.
_REMEDIES = {
  'gpu': 'pip install "skinseg_jax[cuda]" (NVIDIA, Linux)',
  'tpu': 'pip install "jax[tpu]", on a machine with a TPU',
}


def use(kind: str) -> None:
  """Makes JAX use one kind of device; call it before JAX touches any.

  With 'auto', warns on stderr if the machine has an NVIDIA GPU that JAX does
  not use.

  Args:
    kind: 'cpu', 'gpu' or 'tpu'; 'auto' takes the kind that JAX prefers.

  Raises:
    InputError: If there is no device of that kind.
  """
  if kind == 'cpu':
    jax.config.update('jax_platforms', 'cpu')
  try:
    found = jax.default_backend()
  except RuntimeError as error:  # JAX_PLATFORMS names a missing platform.
    raise errors.InputError(
      f'JAX finds no device ({error}); unset JAX_PLATFORMS, or set it to cpu.'
    ) from error
  if kind not in ('auto', found):
    raise errors.InputError(
      f'device is {kind!r}, but JAX runs on {found!r}. {remedy(kind)}, or set'
      ' --config.device=auto; python -m skinseg_jax.doctor says more.'
    )
  if kind == 'auto' and unused_gpu(found):
    print(
      'warning: this machine seems to have an NVIDIA GPU, but JAX does not'
      f' see it and runs on the CPU. {remedy("gpu")}, or set'
      ' --config.device=cpu; python -m skinseg_jax.doctor says more.',
      file=sys.stderr,
    )


def remedy(kind: str) -> str:
  """Returns the command that installs support for a kind of device."""
  return f'For a {kind.upper()}: {_REMEDIES[kind]}'


def unused_gpu(platform: str) -> bool:
  """Returns whether JAX runs on the CPU although there seems to be a GPU."""
  return platform == 'cpu' and bool(
    shutil.which('nvidia-smi') or any(_DEV.glob('nvidia[0-9]*'))
  )
