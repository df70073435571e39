import jax

from skinseg_jax.runtime import compilation


def test_xla_knows_the_automatic_options():
  # What it does not know is left out without a word, which costs speed alone:
  # after an upgrade, this tells.
  wanted = compilation._OPTIONS.get(jax.default_backend(), {})
  assert compilation._automatic() == wanted
