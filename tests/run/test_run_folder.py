"""Run folders that are refused, and what the messages say to do then."""

import copy
import types

import pytest

from skinseg_jax import config as config_lib
from skinseg_jax.data import splits
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import distributed, errors

_SPLIT = splits.Split(train=['i0', 'i1'], validation=['i2', 'i3'])
_MOVED = splits.Split(train=['i0', 'i2'], validation=['i1', 'i3'])


def _source(fingerprint='y'):
  return types.SimpleNamespace(name='x', fingerprint=fingerprint)


@pytest.fixture
def config():
  return config_lib.Config()


@pytest.fixture
def workdir(tmp_path, config):
  """Of a run that has begun."""
  run_folder.begin(tmp_path / 'run', config, _source(), _SPLIT)
  return tmp_path / 'run'


def test_remedies_of_a_folder_in_use(tmp_path):
  with run_folder.locked(tmp_path / 'run'):
    with (
      pytest.raises(errors.InputError, match='wait until it ends, or choose'),
      run_folder.locked(tmp_path / 'run'),
    ):
      pass
    with run_folder.locked(tmp_path / 'another'):
      assert (tmp_path / 'another').is_dir()
  with run_folder.locked(tmp_path / 'run'):  # The other process has ended.
    pass


def test_remedy_of_a_folder_that_cannot_be_written(tmp_path, config):
  (tmp_path / 'file').write_text('')
  workdir = tmp_path / 'file' / 'run'
  match = 'choose another with --workdir'
  with (
    pytest.raises(errors.InputError, match=match),
    run_folder.locked(workdir),
  ):
    pass
  with pytest.raises(errors.InputError, match=match):
    run_folder.begin(workdir, config, _source(), _SPLIT)
  another = tmp_path / 'run'
  with run_folder.locked(another):
    run_folder.begin(another, config, _source(), _SPLIT)
  assert splits.read_split(another / 'split.csv') == _SPLIT


def _other_config(config):
  config.train.learning_rate = 0.5


@pytest.mark.parametrize('what', ['config', 'data', 'split'])
def test_remedies_of_another_run(workdir, config, tmp_path, what):
  changed = copy.deepcopy(config)
  if what == 'config':
    _other_config(changed)
  source = _source('other' if what == 'data' else 'y')
  split = _MOVED if what == 'split' else _SPLIT
  with pytest.raises(
    errors.InputError, match='Give --workdir a new folder, or undo the change'
  ):
    run_folder.begin(workdir, changed, source, split)
  run_folder.begin(tmp_path / 'new', changed, source, split)
  run_folder.begin(workdir, config, _source(), _SPLIT)


def test_remedies_of_other_data(workdir, config, tmp_path):
  with pytest.raises(
    errors.InputError, match='Restore them, or train again with a new --workdir'
  ):
    run_folder.check_data(workdir, _source('other'))
  run_folder.check_data(workdir, _source())
  # Training again in the same folder would be refused.
  run_folder.begin(tmp_path / 'new', config, _source('other'), _SPLIT)
  run_folder.check_data(tmp_path / 'new', _source('other'))


@pytest.mark.parametrize('content', ['{', '[]', '{}', None])
def test_remedies_of_a_damaged_environment(workdir, config, tmp_path, content):
  path = workdir / 'environment.json'
  whole = path.read_text()
  if content is None:
    path.unlink()
  else:
    path.write_text(content)
  with pytest.raises(
    errors.InputError, match='restore it, or train again with a new --workdir'
  ):
    run_folder.begin(workdir, config, _source(), _SPLIT)
  run_folder.begin(tmp_path / 'new', config, _source(), _SPLIT)
  assert run_folder.initial_weights(tmp_path / 'new') == {}
  path.write_text(whole)
  run_folder.begin(workdir, config, _source(), _SPLIT)


def test_remedies_of_processes_that_differ(
  workdir, config, tmp_path, monkeypatch
):
  monkeypatch.setattr(distributed, 'is_primary', lambda: False)
  with pytest.raises(errors.InputError, match='all processes share'):
    run_folder.begin(tmp_path / 'local', config, _source(), _SPLIT)
  run_folder.begin(workdir, config, _source(), _SPLIT)  # The shared folder.
  changed = copy.deepcopy(config)
  _other_config(changed)
  with pytest.raises(
    errors.InputError, match='must have the same config(.|\n)*learning_rate'
  ) as caught:
    run_folder.begin(workdir, changed, _source(), _SPLIT)
  assert '0.5 here' in str(caught.value)
  changed.train.learning_rate = config.train.learning_rate
  run_folder.begin(workdir, changed, _source(), _SPLIT)
