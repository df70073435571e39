"""Sphinx: python -m sphinx -W -b html docs docs/_build."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import config_fields  # noqa: E402

import skinseg_jax  # noqa: E402

project = 'skinseg_jax'
author = 'the maintainers of skinseg_jax'
copyright = f'{author}; Apache-2.0'  # noqa: A001
version = release = skinseg_jax.__version__

extensions = [
  'myst_parser',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
]
exclude_patterns = ['_build', 'benchmarks/*.md']
html_theme = 'furo'
html_title = 'skinseg_jax'
html_static_path = ['_static']
html_css_files = ['tables.css']
html_show_sphinx = False

myst_heading_anchors = 3

# Docstrings quote code in single backticks.
default_role = 'code'
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def _insert_config_fields(app, docname, source):
  source[0] = source[0].replace(
    config_fields.MARKER, config_fields.markdown()
  )


def setup(app):
  """Puts generated tables into the pages."""
  app.connect('source-read', _insert_config_fields)
