"""Reads remedies from messages as a user would, and applies them."""

import pathlib
import re
import shlex
import sys
import tomllib
from unittest import mock

from absl.testing import flagsaver

from skinseg_jax import main

_ROOT = pathlib.Path(__file__).parents[2]


def words(error: Exception, pattern: str) -> list[str]:
  """The words of the message that match, as a shell splits them."""
  return shlex.split(re.search(pattern, str(error))[0])


def parse(tmp_path: pathlib.Path, *flags) -> tuple:
  """Config and run folder that training reads from its command line."""
  path = tmp_path / 'mine.py'
  path.write_text(
    'from skinseg_jax import config\n\n\ndef get_config():\n'
    '  return config.Config()\n'
  )
  argv = ['main', f'--config={path}', *map(str, flags)]
  with flagsaver.flagsaver(), mock.patch.object(sys, 'argv', argv):
    return main.parse(argv)


def extra(error: Exception) -> list[str]:
  """What the extra that the message says to install would bring."""
  (name,) = re.findall(r'pip install "skinseg_jax\[(\w+)\]"', str(error))
  project = tomllib.loads((_ROOT / 'pyproject.toml').read_text())['project']
  return [
    re.split('[<>=;]', line)[0]
    for line in project['optional-dependencies'][name]
  ]
