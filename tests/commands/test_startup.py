"""Flags, help and what is wrong with them need no JAX; configs have names."""

import subprocess
import sys
from unittest import mock

import pytest
from absl.testing import flagsaver

from skinseg_jax import main
from skinseg_jax.runtime import errors

_HEAVY = ('jax', 'flax', 'grain', 'matplotlib', 'orbax', 'tensorflow')


@pytest.mark.parametrize(
  ('command', 'arguments'),
  [
    ('main', '--config quickstart --config.train.epoch=3'),
    ('evaluate', '--workdir nowhere'),
    ('evaluate', '--workdir nowhere --images x'),
    ('predict', '--workdir nowhere --input x --output y'),
    ('compare', 'one_run_alone'),
    ('calibrate_review', '--workdir nowhere'),
    ('cross_validate', '--config quickstart --folds 1'),
    ('export', '--workdir nowhere --format huggingface --output x'),
    ('export', '--workdir nowhere --format onnx --output x'),
    ('serve', '--workdir nowhere'),
    ('follow', '--input nowhere --output y'),
    ('doctor', '--images nowhere'),
    ('torch_weights', '--export x --workdir y --nonsense'),
    *(
      (command, '--help')
      for command in (
        'main', 'evaluate', 'predict', 'compare', 'doctor', 'export',
        'serve', 'calibrate_review', 'cross_validate', 'torch_weights',
        'follow',
      )
    ),
  ],
)  # fmt: skip
def test_is_answered_without_jax(tmp_path, command, arguments):
  program = (
    'import runpy, sys\n'
    f'sys.argv = {[command, *arguments.split()]}\n'
    'try:\n'
    f'  runpy.run_module("skinseg_jax.{command}", run_name="__main__")\n'
    'except SystemExit as end:\n'
    f'  heavy = [name for name in {_HEAVY} if name in sys.modules]\n'
    '  sys.exit(f"imported: {heavy}" if heavy else end.code)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert 'imported:' not in done.stderr
  if '--help' not in arguments:
    assert done.returncode == 2
    assert done.stderr.startswith('error: ')


@pytest.mark.parametrize(
  'given', ['quickstart', 'quickstart.py', 'configs/quickstart.py']
)
@pytest.mark.parametrize('equals', [True, False])
def test_shipped_configs_are_found_by_name(
  tmp_path, monkeypatch, given, equals
):
  monkeypatch.chdir(tmp_path)
  words = [f'--config={given}'] if equals else ['--config', given]
  argv = ['main', *words, '--config.train.epochs=3']
  with flagsaver.flagsaver(), mock.patch.object(sys, 'argv', argv):
    config, workdir = main.parse(argv)
  assert (config.data.source, config.train.epochs) == ('synthetic', 3)
  assert str(workdir) == 'runs/quickstart'


def test_what_training_needs_is_named_at_once(monkeypatch):
  config = main.config_lib.Config()
  main.check_packages(config)
  monkeypatch.setattr(main.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.InputError, match=r'clu, tensorflow_datasets, .*'):
    main.check_packages(config)
