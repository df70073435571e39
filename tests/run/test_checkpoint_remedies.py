"""Messages about checkpoints: doing what they say leads to a checkpoint."""

import errno
import os
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import pytest

from skinseg_jax import config as config_lib
from skinseg_jax.data import input_pipeline
from skinseg_jax.inference import trained_model
from skinseg_jax.models import build
from skinseg_jax.run import checkpointing, run_folder
from skinseg_jax.runtime import errors

_DICE = checkpointing.BEST_METRIC


def _checkpoint(value: float) -> checkpointing.Checkpoint:
  return checkpointing.Checkpoint(
    model={'w': jnp.full((3, 2), value)},
    optimizer={'count': jnp.zeros((), int)},
    data={'next_index': 7},
    progress={'loss': 0.5},
  )


def _save(directory, scores):
  """Saves checkpoints 1, 2, ... with these scores."""
  checkpoints = checkpointing.Checkpoints(directory)
  for step, dice in enumerate(scores, 1):
    metrics = None if dice is None else {_DICE: dice}
    checkpoints.save(step, _checkpoint(float(step)), metrics)
  checkpoints.close()


def _resume(directory) -> int:
  """Step that training would resume from; 0 is the start."""
  checkpoints = checkpointing.Checkpoints(directory)
  like = _checkpoint(0.0)
  try:
    found = checkpoints.restore_latest(
      checkpointing.Checkpoint(like.model, like.optimizer, None, None)
    )
  finally:
    checkpoints.close()
  return found[0] if found else 0


def _read(directory, which: str) -> float:
  """A value of the model of a checkpoint, as evaluate reads it."""
  reader = checkpointing.Checkpoints(directory, read_only=True)
  try:
    step = reader.resolve(which)
    return float(reader.restore_model(step, _checkpoint(0.0).model)['w'][0, 0])
  finally:
    reader.close()


@pytest.mark.parametrize(
  ('scores', 'expected'),
  [
    ([0.9, 0.5], {'best': 1, 'last': 2, '1': 1, '2': 2}),
    ([None], {'last': 1, '1': 1}),  # As of imported weights.
  ],
)
def test_each_allowed_checkpoint_loads(tmp_path, scores, expected):
  _save(tmp_path, scores)
  for wrong in {'7', 'first', 'best'} - set(expected):
    with pytest.raises(errors.InputError, match='allowed are') as caught:
      _read(tmp_path, wrong)
    names, steps = re.search(
      r'allowed are (.+) and the steps \[(.+)\]', str(caught.value)
    ).groups()
    allowed = [*names.split(', '), *steps.split(', ')]
    assert {name: _read(tmp_path, name) for name in allowed} == expected


def _change_arrays(directory):
  path = max(
    (path for path in (directory / '2/model').rglob('d/*') if path.is_file()),
    key=lambda path: path.stat().st_size,
  )
  path.write_bytes(bytes(path.stat().st_size))


def _change_arrays_without_digests(directory):
  (directory / '2/digests.json').unlink()
  _change_arrays(directory)


def _break_scores(directory):
  (directory / '2/metrics/metrics').write_text('{')


def _change_scores(directory):
  (directory / '2/metrics/metrics').write_text(f'{{"{_DICE}": 0.95}}')


@pytest.mark.parametrize(
  'damage',
  [
    _change_arrays,
    _change_arrays_without_digests,
    _break_scores,
    _change_scores,
  ],
)
def test_remedy_of_a_damaged_checkpoint(tmp_path, damage):
  _save(tmp_path, [0.9, 0.5])
  damage(tmp_path)
  for _ in range(2):  # 'Try again; if the error stays, remove the folder'
    with pytest.raises(errors.InputError, match='another checkpoint') as error:
      _resume(tmp_path)
  (named,) = set(re.findall(rf'{tmp_path}/\d+', str(error.value)))
  shutil.rmtree(named)
  assert _resume(tmp_path) == 1
  assert _read(tmp_path, 'best') == _read(tmp_path, 'last') == 1


def test_remedy_of_several_damaged_scores(tmp_path):
  _save(tmp_path, [0.9, 0.5])
  for step in '12':
    (tmp_path / step / 'metrics/metrics').write_text('{')
  with pytest.raises(errors.InputError, match='remove them') as caught:
    _resume(tmp_path)
  for named in re.findall(r'\n  (.+)', str(caught.value)):
    shutil.rmtree(named)
  assert _resume(tmp_path) == 0


def test_remedy_of_an_interrupted_replacement(tmp_path):
  _save(tmp_path, [None])
  (tmp_path / '1').rename(tmp_path / '.replaced-1')
  with pytest.raises(errors.InputError, match='start that run again'):
    _read(tmp_path, 'last')
  assert _resume(tmp_path) == 1
  assert _read(tmp_path, 'last') == 1


@pytest.mark.parametrize('exists', [False, True])
def test_remedy_of_an_untrained_run(tmp_path, exists):
  directory = tmp_path / 'checkpoints'
  if exists:
    directory.mkdir()
  with pytest.raises(errors.InputError, match='train first, with'):
    _read(directory, 'last')
  _save(directory, [0.5])
  assert _read(directory, 'last') == 1


def test_remedy_of_a_full_disk(tmp_path, monkeypatch):
  _save(tmp_path, [0.5])

  def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  checkpoints = checkpointing.Checkpoints(tmp_path)
  monkeypatch.setattr(os, 'rename', full)
  monkeypatch.setattr(os, 'replace', full)
  checkpoints.save(2, _checkpoint(2.0), None)
  with pytest.raises(errors.InputError, match='Free some space.*to resume'):
    checkpoints.wait()
  monkeypatch.undo()
  assert _resume(tmp_path) == 1
  again = checkpointing.Checkpoints(tmp_path)
  again.save(2, _checkpoint(2.0), None)
  again.close()
  assert _resume(tmp_path) == 2


def _write_run(workdir: pathlib.Path, **model) -> None:
  """A run folder with fresh weights of a network."""
  config = config_lib.Config()
  config.data.source = 'synthetic'
  config.model = config_lib.ModelConfig(**model)
  workdir.mkdir()
  run_folder.write_json(workdir / 'config.json', config_lib.to_dict(config))
  _, shapes = build.abstract(config.model, input_pipeline.data_sharding())
  weights = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
  saved = checkpointing.Checkpoint(
    model=weights,
    optimizer={'count': jnp.zeros((), int)},
    data={'next_index': 0},
    progress={'loss': 0.5},
  )
  checkpoints = checkpointing.Checkpoints(run_folder.checkpoints_dir(workdir))
  checkpoints.save(0, saved, None)
  checkpoints.close()


def test_remedies_of_another_model(tmp_path):
  trained = {'architecture': 'unet', 'width': 1}
  _write_run(tmp_path / 'run', **trained)
  path = tmp_path / 'run' / 'config.json'
  config = config_lib.load(path)
  for field, value in [('width', 2), ('architecture', 'segnet')]:
    setattr(config.model, field, value)
    run_folder.write_json(path, config_lib.to_dict(config))
    with pytest.raises(errors.InputError, match='choose another') as caught:
      trained_model.load(tmp_path / 'run', 'last')
    named = re.findall(r'model\.(\w+)', str(caught.value))
    assert {'architecture', 'encoder', 'width'} <= set(named)
  for field in named:
    value = trained.get(field, config_lib.ModelConfig().encoder)
    setattr(config.model, field, value)
  run_folder.write_json(path, config_lib.to_dict(config))
  assert trained_model.load(tmp_path / 'run', 'last').step == 0
  _write_run(tmp_path / 'another', architecture='unet', width=2)
  assert trained_model.load(tmp_path / 'another', 'last').step == 0
