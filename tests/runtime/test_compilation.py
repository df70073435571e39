import os
import subprocess
import sys

import jax

from skinseg_jax.runtime import compilation


def test_xla_knows_the_automatic_options():
  # Options that XLA does not know are silently dropped, which only costs speed.
  # This test reports them after an upgrade.
  wanted = compilation._OPTIONS.get(jax.default_backend(), {})
  assert compilation._automatic() == wanted


_PROGRAM = """
import jax
from skinseg_jax.runtime import compilation
compilation.keep_programs()
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
print(jax.jit(lambda x: x + 1)(2))
"""


def _run(**environment):
  inherited = dict(os.environ)
  inherited.pop('JAX_COMPILATION_CACHE_DIR', None)
  subprocess.run(
    [sys.executable, '-c', _PROGRAM],
    env={
      **inherited,
      'JAX_PLATFORMS': 'cpu',
      **{name: str(value) for name, value in environment.items()},
    },
    check=True,
  )


def test_programs_are_kept_where_the_user_keeps_caches(tmp_path):
  _run(XDG_CACHE_HOME=tmp_path)
  assert any((tmp_path / 'skinseg_jax' / 'programs').iterdir())


def test_programs_are_kept_where_jax_was_told(tmp_path):
  _run(
    XDG_CACHE_HOME=tmp_path / 'no', JAX_COMPILATION_CACHE_DIR=tmp_path / 'yes'
  )
  assert any((tmp_path / 'yes').iterdir())
  assert not (tmp_path / 'no').exists()


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
  (tmp_path / 'file').write_text('')
  _run(XDG_CACHE_HOME=tmp_path / 'file')
