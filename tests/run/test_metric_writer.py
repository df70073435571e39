import builtins
import json
import os

import pytest

from skinseg_jax.run import metric_writer
from skinseg_jax.runtime import errors


def _event_scalars(workdir):
  """Scalars of all event files by step and name."""
  event_accumulator = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator'
  )
  tensor_util = pytest.importorskip('tensorboard.util.tensor_util')
  accumulator = event_accumulator.EventAccumulator(str(workdir))
  accumulator.Reload()
  scalars = {}
  for name in accumulator.Tags()['tensors']:
    for event in accumulator.Tensors(name):
      value = tensor_util.make_ndarray(event.tensor_proto)
      scalars[event.step, name] = value.item()
  return scalars


def test_event_file_holds_the_scalars_of_the_jsonl(tmp_path):
  writer = metric_writer.MetricWriter(tmp_path)
  writer.write(5, {'train/loss': 0.25, 'train/dice': 0.5})
  writer.write(10, {'validation/loss': 0.125})
  writer.close()
  assert metric_writer.read(tmp_path) == [
    {'step': 5, 'train/loss': 0.25, 'train/dice': 0.5},
    {'step': 10, 'validation/loss': 0.125},
  ]
  assert _event_scalars(tmp_path) == {
    (5, 'train/loss'): 0.25,
    (5, 'train/dice'): 0.5,
    (10, 'validation/loss'): 0.125,
  }


def test_lines_after_the_checkpoint_and_half_lines_go(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "a": 1}\n{"step": 3')
  writer = metric_writer.MetricWriter(tmp_path, lines=2)
  writer.write(3, {'train/loss': 1.0})
  writer.close()
  assert writer.lines == 3
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert lines == [{'step': 1}, {'step': 2}, {'step': 3, 'train/loss': 1.0}]


def _events(workdir):
  """Step, name and time of each scalar in all event files, with duplicates."""
  loader = pytest.importorskip(
    'tensorboard.backend.event_processing.event_file_loader'
  )
  return [
    (event.step, value.tag, event.wall_time)
    for path in sorted(workdir.glob('events.out.tfevents.*'))
    for event in loader.LegacyEventFileLoader(str(path)).Load()
    for value in event.summary.value
  ]


def test_event_files_hold_each_scalar_once_after_resuming(tmp_path):
  writer = metric_writer.MetricWriter(tmp_path)
  for step in (1, 2, 3):
    writer.write(step, {'train/loss': step / 4})
  writer.close()
  before = _events(tmp_path)
  (file,) = tmp_path.glob('events.out.tfevents.*')
  os.truncate(file, file.stat().st_size - 5)  # Killed while it was written.
  for lines in (2, 2, 3):  # Twice from step 2 on, then from step 3 on.
    writer = metric_writer.MetricWriter(tmp_path, lines=lines)
    writer.write(lines + 1, {'train/loss': (lines + 1) / 4})
    writer.close()
  found = _events(tmp_path)
  assert [event[:2] for event in found] == [
    (step, 'train/loss') for step in (1, 2, 3, 4)
  ]
  assert found[:2] == before[:2]  # With the times of the first writing.
  assert _event_scalars(tmp_path) == {
    (step, 'train/loss'): step / 4 for step in (1, 2, 3, 4)
  }
  assert not list(tmp_path.glob('*.tmp'))


def test_what_is_not_finite_is_null(tmp_path):
  writer = metric_writer.MetricWriter(tmp_path)
  writer.write(1, {'train/loss': float('nan')})
  writer.close()
  assert metric_writer.read(tmp_path) == [{'step': 1, 'train/loss': None}]


@pytest.mark.parametrize('remedy', ['restore', 'remove'])
def test_remedies_of_a_damaged_log(tmp_path, remedy):
  path = tmp_path / 'metrics.jsonl'
  whole = '{"step": 1}\n{"step": 2}\n'
  path.write_text('{"step": 1\n{"stop": 2}\n')
  with pytest.raises(errors.InputError, match='restore it, or remove it'):
    metric_writer.MetricWriter(tmp_path, lines=2)
  if remedy == 'restore':
    path.write_text(whole)
  else:
    path.unlink()
  writer = metric_writer.MetricWriter(tmp_path, lines=2)
  writer.write(3, {'train/loss': 1.0})
  writer.close()
  kept = [{'step': 1}, {'step': 2}] if remedy == 'restore' else []
  assert metric_writer.read(tmp_path) == [*kept, {'step': 3, 'train/loss': 1.0}]


@pytest.fixture
def no_tensorflow(monkeypatch):
  real_import = builtins.__import__

  def no_clu_writers(name, *args, **kwargs):
    if name == 'clu' and 'metric_writers' in (args[2] or ()):
      raise ImportError("No module named 'tensorflow'")
    return real_import(name, *args, **kwargs)

  monkeypatch.setattr(builtins, '__import__', no_clu_writers)


@pytest.mark.usefixtures('no_tensorflow')
def test_pictures_without_tensorflow_are_left_out_silently(tmp_path, capsys):
  metric_writer.write_images(tmp_path, 1, {'a': b''})
  assert not list(tmp_path.iterdir())
  assert capsys.readouterr() == ('', '')


@pytest.mark.usefixtures('no_tensorflow')
def test_without_tensorflow_it_says_so_once_and_works(tmp_path, capsys):
  writer = metric_writer.MetricWriter(tmp_path)
  writer.write(1, {'train/loss': 1.0})
  writer.close()
  assert metric_writer.read(tmp_path) == [{'step': 1, 'train/loss': 1.0}]
  assert capsys.readouterr().err.count('TensorBoard is off') == 1
