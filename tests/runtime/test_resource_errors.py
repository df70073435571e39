"""Out of memory: each change that is proposed fits where it is proposed."""

import re
import types

import jax
import pytest
import remedies

from skinseg_jax.data import splits
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import errors, resource_errors

_SOURCE = types.SimpleNamespace(name='x', fingerprint='y')
_SPLIT = splits.Split(train=['i0'], validation=['i1'])
_SMALLER = {
  'evaluation.batch_size': 1,
  'train.batch_size': 1,
  'model.width': 1,
  'data.image_size': 32,
}


def _out_of_memory(workdir):
  with (
    pytest.raises(errors.InputError, match='out of memory') as caught,
    resource_errors.explained(workdir),
  ):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
  return str(caught.value)


def _flags(text):
  """Each proposed flag, with a smaller number where one is asked for."""
  flags = re.findall(r'--config\.\S+=\S+', text)
  smaller = re.findall(r'--config\.([\w.]+)(?![\w.=])', text)
  return flags + [f'--config.{name}={_SMALLER[name]}' for name in smaller]


def test_remedies_of_training(tmp_path):
  base = ['--config.data.source=synthetic', '--config.data.split=random']
  config, _ = remedies.parse(tmp_path, *base)
  workdir = tmp_path / 'run'
  run_folder.begin(workdir, config, _SOURCE, _SPLIT)
  here, new = _out_of_memory(workdir).split('new --workdir')
  assert (len(_flags(here)), len(_flags(new))) == (2, 5)
  for flag in _flags(here):
    config, _ = remedies.parse(tmp_path, *base, flag)
    run_folder.begin(workdir, config, _SOURCE, _SPLIT)
  for number, flag in enumerate(_flags(new)):
    config, _ = remedies.parse(tmp_path, *base, flag)
    with pytest.raises(errors.InputError, match='holds a run that differs'):
      run_folder.begin(workdir, config, _SOURCE, _SPLIT)
    run_folder.begin(tmp_path / f'run{number}', config, _SOURCE, _SPLIT)
