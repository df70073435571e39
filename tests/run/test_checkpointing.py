"""Only complete checkpoints are used; the best one outlives unscored ones."""

import errno
import json
import os
import pathlib
import random
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from skinseg_jax.run import checkpointing
from skinseg_jax.runtime import errors

_DICE = checkpointing.BEST_METRIC


def _checkpoint(value: float) -> checkpointing.Checkpoint:
  arrays = {'w': jnp.full((3, 2), value), 'b': jnp.arange(4.0)}
  return checkpointing.Checkpoint(
    model=arrays,
    optimizer={'count': jnp.zeros((), int), **arrays},
    data={'next_index': 7},
    progress={'loss': 0.1 + value, 'tp': 2**40 + 1},
  )


def _save(directory, scores):
  """Saves checkpoints 1, 2, ... with these scores and waits for the disk."""
  checkpoints = checkpointing.Checkpoints(directory)
  for step, dice in enumerate(scores, 1):
    metrics = None if dice is None else {_DICE: dice}
    checkpoints.save(step, _checkpoint(float(step)), metrics)
    checkpoints.wait()
  return checkpoints


def _found(directory: pathlib.Path) -> list[str]:
  return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
  ('scores', 'kept', 'best'),
  [
    ((0.5, 0.9, 0.7), ['2', '3'], 2),
    ((0.5, 0.9, None, None), ['2', '4'], 2),
    ((None, None), ['2'], None),
    ((0.5, 0.5), ['2'], 2),  # Of equal scores, the later one.
  ],
)
def test_last_and_best_are_kept(tmp_path, scores, kept, best):
  checkpoints = _save(tmp_path, scores)
  assert checkpoints.latest_step == len(scores)
  checkpoints.close()
  assert _found(tmp_path) == kept
  reader = checkpointing.Checkpoints(tmp_path, read_only=True)
  assert reader.resolve('last') == len(scores)
  if best is None:
    with pytest.raises(errors.InputError, match="no checkpoint 'best'"):
      reader.resolve('best')
  else:
    assert reader.resolve('best') == best
  reader.close()


def test_numbers_come_back_exactly(tmp_path):
  checkpoints = _save(tmp_path, [None])
  like = _checkpoint(0.0)
  _, found = checkpoints.restore_latest(
    checkpointing.Checkpoint(like.model, like.optimizer, None, None)
  )
  checkpoints.close()
  assert found.progress == {'loss': 1.1, 'tp': 2**40 + 1}
  assert found.data == {'next_index': 7}
  np.testing.assert_array_equal(found.model['w'], np.full((3, 2), 1.0))


def test_score_is_added_to_a_checkpoint_that_had_none(tmp_path):
  checkpoints = _save(tmp_path, [0.5, None])
  checkpoints.save(2, _checkpoint(2.5), {_DICE: 0.75})
  checkpoints.close()
  assert _found(tmp_path) == ['2']
  reader = checkpointing.Checkpoints(tmp_path, read_only=True)
  assert reader.metrics(2) == {_DICE: 0.75}
  model = reader.restore_model(2, _checkpoint(0.0).model)
  reader.close()
  np.testing.assert_array_equal(model['w'], np.full((3, 2), 2.5))


def test_replacement_that_was_cut_off_is_taken_back(tmp_path, monkeypatch):
  checkpoints = _save(tmp_path, [None])

  def killed(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(
    checkpoints._checkpointer, 'save_checkpointables_async', killed
  )
  with pytest.raises(KeyboardInterrupt):
    checkpoints.save(1, _checkpoint(9.0), {_DICE: 0.75})
  assert _found(tmp_path) == ['.replaced-1']
  checkpoints.close()
  again = checkpointing.Checkpoints(tmp_path)
  assert again.latest_step == 1
  again.close()
  # Interrupted after the new one was complete: the new one stays.
  shutil.copytree(tmp_path / '1', tmp_path / '.replaced-1')
  checkpointing.Checkpoints(tmp_path).close()
  assert _found(tmp_path) == ['1']


def test_half_removed_checkpoint_is_never_used(tmp_path):
  # Killed while the worst was being removed, after the others were saved.
  _save(tmp_path, [0.5]).close()
  shutil.copytree(tmp_path / '1', tmp_path / 'copy')
  worst = tmp_path.with_name('worst')
  (tmp_path / 'copy').rename(worst)
  _save(tmp_path / 'run', [0.5, 0.9, 0.7]).close()
  files = sorted(p.relative_to(worst) for p in worst.rglob('*') if p.is_file())
  rng = random.Random(0)
  for _ in range(8):
    half = tmp_path / 'run' / '1'
    shutil.copytree(worst, half)
    for name in rng.sample(files, rng.randrange(1, len(files) + 1)):
      (half / name).unlink()
    checkpoints = checkpointing.Checkpoints(tmp_path / 'run')
    assert checkpoints.resolve('last') == 3
    assert checkpoints.resolve('best') == 2
    like = _checkpoint(0.0)
    step, _ = checkpoints.restore_latest(
      checkpointing.Checkpoint(like.model, like.optimizer, None, None)
    )
    assert step == 3
    checkpoints.close()
    shutil.rmtree(half)


def test_half_written_checkpoint_is_never_used(tmp_path):
  _save(tmp_path, [0.5]).close()
  (tmp_path / '1').rename(tmp_path / '2.orbax-checkpoint-tmp')
  checkpoints = checkpointing.Checkpoints(tmp_path)
  assert checkpoints.latest_step is None
  checkpoints.save(1, _checkpoint(1.0), None)
  checkpoints.close()
  assert _found(tmp_path) == ['1']


@pytest.mark.parametrize('step', [1, 2])  # Replaces the first, or is new.
def test_full_disk_while_saving(tmp_path, monkeypatch, step):
  # Without a score, a newer checkpoint would replace it.
  checkpoints = _save(tmp_path, [None])

  def fill(name):
    whole = getattr(os, name)

    def full(source, *args, **kwargs):
      if 'orbax-checkpoint-tmp' in str(source):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      return whole(source, *args, **kwargs)

    monkeypatch.setattr(os, name, full)

  fill('rename')
  fill('replace')
  with pytest.raises(errors.InputError, match='No space left.*are intact'):
    _save_and_wait(checkpoints, step)
  monkeypatch.undo()
  assert _found(tmp_path) == ['1']
  model = _read_model(tmp_path)
  np.testing.assert_array_equal(model['w'], jnp.full((3, 2), 1.0))


def _save_and_wait(checkpoints, step):
  checkpoints.save(step, _checkpoint(2.0), None)
  checkpoints.wait()


def test_each_flipped_bit_is_noticed(tmp_path):
  _save(tmp_path / 'good', [0.5, 0.7]).close()
  files = sorted(p for p in (tmp_path / 'good/2').rglob('*') if p.is_file())
  names = [p.relative_to(tmp_path / 'good') for p in files]
  # Only the presence of these files matters; the record is tested below.
  names = [
    n for n in names if n.name not in ('commit_success.txt', 'digests.json')
  ]
  assert len(names) > 10
  rng = random.Random(0)
  for number, name in enumerate(names):
    directory = tmp_path / str(number)
    shutil.copytree(tmp_path / 'good', directory)
    data = bytearray((directory / name).read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    (directory / name).write_bytes(data)
    with pytest.raises(errors.InputError, match='damaged'):
      _read_best(directory, name)


def _read_best(directory, name):
  checkpoints = checkpointing.Checkpoints(directory, read_only=True)
  assert checkpoints.resolve('best') == 2
  like = _checkpoint(0.0)
  checkpoints.restore_latest(
    checkpointing.Checkpoint(like.model, like.optimizer, None, None)
  )
  pytest.fail(f'a flipped bit of {name} went unnoticed')


def _read_model(directory):
  checkpoints = checkpointing.Checkpoints(directory, read_only=True)
  return checkpoints.restore_model(1, _checkpoint(0.0).model)


def test_missing_file_is_noticed(tmp_path):
  _save(tmp_path, [0.5]).close()
  next((tmp_path / '1/model').rglob('d/*')).unlink()
  with pytest.raises(
    errors.InputError, match='model/.* differs from what was written'
  ):
    _read_model(tmp_path)


@pytest.mark.parametrize(
  'change',
  [
    lambda found: list(found),
    lambda found: {},
    lambda found: {n: d for n, d in found.items() if 'manifest' not in n},
    lambda found: found | {'model/../../../dev/zero': 'of an endless file'},
    lambda found: found | {'model/more': 'of a file that is not there'},
  ],
)
def test_changed_record_is_noticed(tmp_path, change):
  _save(tmp_path, [0.5]).close()
  record = tmp_path / '1/digests.json'
  record.write_text(json.dumps(change(json.loads(record.read_text()))))
  with pytest.raises(errors.InputError, match='1 is damaged'):
    _read_model(tmp_path)


def test_damaged_score_is_noticed_before_it_removes_the_best(tmp_path):
  _save(tmp_path, [0.9, 0.7]).close()
  score = tmp_path / '1/metrics/metrics'
  text = score.read_text().replace('0.9', '0.1')
  assert '0.1' in text
  score.write_text(text)
  with pytest.raises(errors.InputError, match='1 is damaged.*metrics'):
    checkpointing.Checkpoints(tmp_path)
  assert _found(tmp_path) == ['1', '2']
  # Reads that need no score ignore a damaged score of another checkpoint.
  reader = checkpointing.Checkpoints(tmp_path, read_only=True)
  assert reader.resolve('last') == 2


def test_resuming_records_what_a_killed_process_did_not(tmp_path):
  _save(tmp_path, [0.9, 0.7]).close()
  for step in '12':
    (tmp_path / step / 'digests.json').unlink()
  checkpoints = checkpointing.Checkpoints(tmp_path)
  like = _checkpoint(0.0)
  checkpoints.restore_latest(
    checkpointing.Checkpoint(like.model, like.optimizer, None, None)
  )
  checkpoints.close()
  assert all((tmp_path / step / 'digests.json').exists() for step in '12')


def test_checkpoint_without_digests_loads(tmp_path):
  # The process ended after the checkpoint was renamed, before its record.
  _save(tmp_path, [0.5]).close()
  (tmp_path / '1/digests.json').unlink()
  checkpoints = checkpointing.Checkpoints(tmp_path, read_only=True)
  model = checkpoints.restore_model(1, _checkpoint(0.0).model)
  np.testing.assert_array_equal(model['w'], jnp.full((3, 2), 1.0))
