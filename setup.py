"""Puts configs/ into the wheel, as skinseg_jax/configs; see pyproject.toml."""

import setuptools

setuptools.setup(
  packages=[
    *setuptools.find_packages(include=['skinseg_jax*']),
    'skinseg_jax.configs',
  ],
  package_dir={'skinseg_jax.configs': 'configs'},
)
