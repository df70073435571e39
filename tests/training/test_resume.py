"""Runs that were stopped give the same result as uninterrupted runs."""

import dataclasses
import functools
import os
import pathlib
import re
import shutil
import signal
import types

import jax
import numpy as np
import pytest
import run_files

from skinseg_jax import config as config_lib
from skinseg_jax import main
from skinseg_jax.data import cache, input_pipeline, splits
from skinseg_jax.data.sources import catalog
from skinseg_jax.evaluation import scoring
from skinseg_jax.inference import trained_model
from skinseg_jax.run import checkpointing, metric_writer, run_folder
from skinseg_jax.runtime import errors, stop_signals
from skinseg_jax.training import trainer

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tiny_config):
  return tiny_config


@pytest.fixture
def run(tiny_run):
  return tiny_run


def _stop_at(monkeypatch, stops):
  """Sends SIGTERM after each of these numbers of updates, once."""
  left = set(stops)
  reached = stop_signals.StopSignals.reached

  def signalled(self, step):
    if step in left:
      left.remove(step)
      os.kill(os.getpid(), signal.SIGTERM)
    return reached(self, step)

  monkeypatch.setattr(stop_signals.StopSignals, 'reached', signalled)


def _assert_as(workdir, whole, config):
  """Checks that weights, optimiser, position, log and events are identical."""
  step, leaves, data = run_files.checkpoint(workdir, config)
  expected_step, expected, expected_data = run_files.checkpoint(whole, config)
  assert (step, data) == (expected_step, expected_data)
  assert all(map(np.array_equal, leaves, expected))
  timeless = lambda workdir: [
    {k: v for k, v in r.items() if 'seconds' not in k and 'per_s' not in k}
    for r in metric_writer.read(workdir)
  ]
  assert timeless(workdir) == timeless(whole)
  assert _events(workdir) == _events(whole)


def _events(workdir):
  """Step and name of each scalar in all event files, with duplicates."""
  loader = pytest.importorskip(
    'tensorboard.backend.event_processing.event_file_loader'
  )
  return sorted(
    (event.step, value.tag)
    for path in workdir.glob('events.out.tfevents.*')
    for event in loader.LegacyEventFileLoader(str(path)).Load()
    for value in event.summary.value
  )


def test_stopped_at_any_step_and_resumed_equals_undisturbed(
  run, config, tmp_path, monkeypatch, capsys
):
  # Each epoch has five updates; log lines are at 3, 5, 6, 9 and 10. Step 2 is
  # between two lines. Step 5 is the last of an epoch, before its validation.
  # Step 8 is between two lines and after a resumption.
  whole, _ = run
  stops = (2, 5, 8)
  _stop_at(monkeypatch, stops)
  for step in stops:
    with pytest.raises(errors.StoppedError, match='SIGTERM'):
      run_files.train(config, tmp_path / 'run')
    assert f'saved step {step}' in capsys.readouterr().out
  run_files.train(config, tmp_path / 'run')
  assert 'resuming at step 8' in capsys.readouterr().out
  _assert_as(tmp_path / 'run', whole, config)


def test_two_and_two_epochs_equal_four(config, tmp_path, monkeypatch):
  # The run of two epochs is stopped while its second epoch is scored.
  four = run_files.changed(config, epochs=4, checkpoint_every_steps=2)
  run_files.train(four, tmp_path / 'four')
  score, calls = scoring.score, []

  def stop_while_scoring(*args, **kwargs):
    calls.append(1)
    if len(calls) == 2:
      os.kill(os.getpid(), signal.SIGINT)
    return score(*args, **kwargs)

  monkeypatch.setattr(scoring, 'score', stop_while_scoring)
  with pytest.raises(errors.StoppedError, match='SIGINT'):
    run_files.train(config, tmp_path / 'two')
  checkpoints = run_folder.checkpoints_dir(tmp_path / 'two')
  assert {p.name for p in checkpoints.iterdir()} == {'5', '10'}
  run_files.train(config, tmp_path / 'two')
  assert len(calls) == 3  # Only the second epoch was scored again.
  run_files.train(four, tmp_path / 'two')
  _assert_as(tmp_path / 'two', tmp_path / 'four', four)


@pytest.mark.parametrize('during', ['restore_latest', 'wait'])
def test_signal_while_a_checkpoint_is_read_or_written_loses_nothing(
  run, config, tmp_path, monkeypatch, during
):
  whole, _ = run
  workdir = shutil.copytree(whole, tmp_path / 'run')
  action = getattr(checkpointing.Checkpoints, during)

  def signalled(self, *args):
    monkeypatch.undo()  # A second signal would end the program immediately.
    os.kill(os.getpid(), signal.SIGTERM)
    return action(self, *args)

  monkeypatch.setattr(checkpointing.Checkpoints, during, signalled)
  with pytest.raises(errors.StoppedError, match='SIGTERM'):
    run_files.train(config, workdir)
  _assert_as(workdir, whole, config)


def test_finished_run_started_again_trains_no_more(run, config, capsys):
  workdir, summary = run
  before = (workdir / 'metrics.jsonl').read_text()
  assert main.train_and_evaluate(config, workdir) == summary
  assert (workdir / 'metrics.jsonl').read_text() == before


def test_remedy_of_a_damaged_log(run, config, tmp_path):
  workdir = shutil.copytree(run[0], tmp_path / 'run')
  path = workdir / 'metrics.jsonl'
  path.write_text('{}\n' + path.read_text())
  with pytest.raises(errors.InputError, match='restore it, or remove it'):
    main.train_and_evaluate(config, workdir)
  path.unlink()
  assert main.train_and_evaluate(config, workdir) == run[1]  # And the report.


def test_remedy_of_a_damaged_checkpoint(run, config, tmp_path):
  workdir = shutil.copytree(run[0], tmp_path / 'run')
  checkpoints = run_folder.checkpoints_dir(workdir)
  for path in (checkpoints / '10/model').rglob('d/*'):
    path.write_bytes(bytes(path.stat().st_size))
  with pytest.raises(errors.InputError, match='remove the folder') as caught:
    main.train_and_evaluate(config, workdir)
  (named,) = set(re.findall(rf'{checkpoints}/\d+', str(caught.value)))
  shutil.rmtree(named)
  run_files.train(config, workdir)
  _assert_as(workdir, run[0], config)


def _recipe(config):
  """Adds everything that the paper's recipe does not use to a config."""
  return dataclasses.replace(
    config,
    augmentation=config_lib.AugmentationConfig(
      quarter_turn=0.5,
      scale=0.1,
      translation=0.1,
      shear_degrees=5.0,
      brightness=0.1,
      contrast=0.1,
      saturation=0.1,
      hue_degrees=5.0,
      gamma=0.1,
      colour_constancy=0.1,
      blur=0.5,
      noise=0.02,
      hair=0.5,
    ),
    train=dataclasses.replace(
      config.train,
      optimizer='adamw',
      weight_decay=0.01,
      schedule='cosine',
      warmup=0.2,
      loss='bce_dice',
      border_smoothing=0.5,
      ema=0.9,
    ),
    evaluation=dataclasses.replace(
      config.evaluation, test_time_augmentation='flips'
    ),
  )


def _trainer(config, workdir):
  source = catalog.open_source(config.data)
  split = splits.make_split(config.data, source.metadata)
  data = cache.open_cache(
    source, config.data.image_size, pathlib.Path(config.data.data_dir)
  )
  run_folder.begin(workdir, config, source, split)
  return trainer.Trainer(
    config, workdir, data, split, {}, stop_signals.StopSignals()
  )


def test_whole_recipe_resumes_to_the_bit_and_its_average_predicts(
  config, tmp_path, monkeypatch
):
  # Compiled once for the three trainers.
  monkeypatch.setattr(
    trainer.compilation,
    'compile_step',
    lambda step, *args, xla_options, **static: functools.partial(
      step, **static
    ),
  )
  recipe = _recipe(config)
  whole = _trainer(recipe, tmp_path / 'whole')
  whole.train_epoch()
  whole.train_epoch()
  scored = whole.score_validation()
  whole.close()
  for step in (2, 7):
    _train_until_stopped(_trainer(recipe, tmp_path / 'parts'), step)
  second = _trainer(recipe, tmp_path / 'parts')
  assert second.step == 7
  second.train_epoch()
  second.close()
  expected = run_files.checkpoint(tmp_path / 'whole', recipe)
  found = run_files.checkpoint(tmp_path / 'parts', recipe)
  assert found[0] == expected[0] == 10
  assert found[2] == expected[2]
  assert all(map(np.array_equal, found[1], expected[1]))

  # A loaded model is the average, not the latest weights.
  model = trained_model.load(tmp_path / 'parts', 'last')
  learned = second._state[1][0]
  averages = [np.asarray(x) for x in jax.tree.leaves(model.state)]
  assert not all(map(np.array_equal, averages, jax.tree.leaves(learned)))
  assert all(map(np.array_equal, averages, jax.tree.leaves(second._state[0])))
  again = scoring.score(
    model.graphdef,
    model.state,
    second._validation,
    threshold=0.5,
    views='off',
  )
  assert np.array_equal(again['tp'], scored['tp'])

  _assert_next_average(second, averages)


def _train_until_stopped(trainer, step):
  def reached(now):
    if now == step:
      trainer._stop.requested = 'SIGTERM'
    return now == step

  trainer._stop.reached = reached
  with pytest.raises(errors.StoppedError):
    _train_on(trainer)
  assert trainer.step == step
  trainer.close()


def _train_on(trainer):
  while True:
    trainer.train_epoch()


def _assert_next_average(trainer, averages):
  """Update 11 keeps 12 / 21 of the average, because that is less than .9."""
  state, _ = trainer._train_step(
    trainer._static.graphdef, trainer._state, _random_batch()
  )
  for average, before, after in zip(
    jax.tree.leaves(state[0]),
    averages,
    jax.tree.leaves(state[1][0]),
    strict=True,
  ):
    expected = before + (1 - 12 / 21) * (np.asarray(after) - before)
    np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)


def _random_batch():
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.integers(0, 256, (4, 32, 32, 3), np.uint8),
    'mask': rng.integers(0, 2, (4, 32, 32)).astype(np.uint8),
  }
  return jax.device_put(batch, input_pipeline.data_sharding())


def test_longer_training_changes_a_schedule(config, tmp_path):
  recipe = _recipe(config)
  source = catalog.open_source(recipe.data)
  split = splits.make_split(recipe.data, source.metadata)
  run_folder.begin(tmp_path / 'run', recipe, source, split)
  longer = lambda config: dataclasses.replace(
    config, train=dataclasses.replace(config.train, epochs=3)
  )
  with pytest.raises(errors.InputError, match='train.epochs: 2 there, 3 now'):
    run_folder.begin(tmp_path / 'run', longer(recipe), source, split)
  # Without a schedule the run resumes.
  run_folder.begin(tmp_path / 'constant', config, source, split)
  run_folder.begin(tmp_path / 'constant', longer(config), source, split)


def test_another_split_is_refused(config, tmp_path):
  rows = [
    {'image_id': f'i{n}', 'lesion_id': f'i{n}', 'dx': ''} for n in range(4)
  ]
  source = types.SimpleNamespace(name='x', fingerprint='y', metadata=rows)
  split = splits.Split(train=['i0', 'i1'], validation=['i2', 'i3'])
  run_folder.begin(tmp_path, config, source, split)
  moved = splits.Split(train=['i0', 'i2'], validation=['i1', 'i3'])
  with pytest.raises(errors.InputError, match='which images train'):
    run_folder.begin(tmp_path, config, source, moved)
  # The split from the start of the run stays.
  assert splits.read_split(tmp_path / 'split.csv') == split
