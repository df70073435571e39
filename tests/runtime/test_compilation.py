import jax

from skinseg_jax.runtime import compilation


def test_xla_knows_the_automatic_options():
  # Options that XLA does not know are silently dropped, which only costs speed.
  # This test reports them after an upgrade.
  wanted = compilation._OPTIONS.get(jax.default_backend(), {})
  assert compilation._automatic() == wanted
