"""Sphinx: python -m sphinx -W -b html docs docs/_build."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import config_fields

import skinseg_jax

project = 'skinseg_jax'
author = 'the maintainers of skinseg_jax'
copyright = f'{author}; Apache-2.0'
version = release = skinseg_jax.__version__

extensions = [
  'myst_parser',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
]
exclude_patterns = ['_build', 'benchmarks/**.md']
html_theme = 'furo'
html_title = 'skinseg_jax'
html_static_path = ['_static']
html_css_files = ['tables.css']
html_show_sphinx = False

myst_enable_extensions = ['deflist']
myst_heading_anchors = 3

# Docstrings quote code in single backticks.
default_role = 'code'
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def _insert_config_fields(app, docname, source):
  source[0] = source[0].replace(config_fields.MARKER, config_fields.markdown())


def _list_results(app, what, name, obj, options, lines):
  """Makes a list of a Returns section that describes several values.

  Napoleon expects one value there. Ours name the entries of a dict, each with
  its continuation lines indented further.
  """
  if 'Returns:' not in lines:
    return
  start = lines.index('Returns:')
  end = start + 1
  while end < len(lines) and (lines[end].startswith('  ') or not lines[end]):
    end += 1
  body = [line for line in lines[start + 1 : end] if line]
  if not any(line.startswith('    ') for line in body):
    return
  items = [
    '  ' + line.strip() if line.startswith('    ') else '* ' + line.strip()
    for line in body
  ]
  lines[start:end] = ['**Returns**', '', *items, '']


def setup(app):
  """Puts generated lists into the pages and prepares docstrings."""
  app.connect('source-read', _insert_config_fields)
  # Before Napoleon, which has the default priority of 500.
  app.connect('autodoc-process-docstring', _list_results, priority=400)
