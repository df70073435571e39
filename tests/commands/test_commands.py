import pathlib
import subprocess
import sys

import pytest

import skinseg_jax

_ROOT = pathlib.Path(skinseg_jax.__file__).parent
# Modules at the root that are not commands.
_OTHERS = {'__init__', '__main__', 'config', 'config_rules'}
_COMMANDS = sorted({path.stem for path in _ROOT.glob('*.py')} - _OTHERS)


def _run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', *arguments],
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_package_lists_its_commands():
  done = _run('skinseg_jax')
  assert done.returncode == 0
  listed = [
    line.split()[2].removeprefix('skinseg_jax.')
    for line in done.stdout.splitlines()
    if 'python -m' in line
  ]
  assert sorted(listed) == _COMMANDS


def test_words_after_the_package_are_refused():
  done = _run('skinseg_jax', 'predict')
  assert done.returncode != 0
  assert 'python -m skinseg_jax.predict' in done.stderr


@pytest.mark.parametrize('command', _COMMANDS)
def test_every_command_explains_itself(command):
  done = _run(f'skinseg_jax.{command}', '--help')
  assert f'python -m skinseg_jax.{command}' in done.stdout + done.stderr
