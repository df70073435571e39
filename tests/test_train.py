"""The loop end to end, on a tiny U-Net and generated lesions."""

import csv
import dataclasses
import errno
import functools
import json
import os
import pathlib
import signal

import grain
import jax
import numpy as np
import pytest

from skinseg_jax import (
  checkpointing,
  errors,
  evaluate,
  faults,
  metric_writer,
  metrics,
  run_folder,
  scoring,
  stop_signals,
  train,
  train_state,
  train_step,
  trained_model,
  trainer,
)
from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, input_pipeline, sources, splits

_VALIDATION_IMAGES = 7  # Not a multiple of the batch: the last is padded.
_PIXELS = 32 * 32


@pytest.fixture
def config(tiny_config):
  return tiny_config


@pytest.fixture
def run(tiny_run):
  return tiny_run


def _checkpoint(workdir, config):
  """Model, optimiser and position of the last checkpoint, as numpy arrays."""
  state = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  ).state
  checkpoints = checkpointing.Checkpoints(run_folder.checkpoints_dir(workdir))
  like = checkpointing.Checkpoint(state[0], state[1], None, None)
  step, checkpoint = checkpoints.restore_latest(like)
  checkpoints.close()
  leaves = jax.tree.leaves((checkpoint.model, checkpoint.optimizer))
  return step, [np.asarray(leaf) for leaf in leaves], checkpoint.data


def test_run_folder_is_whole(run):
  workdir, _ = run
  for name in (
    'config.json',
    'environment.json',
    'split.csv',
    'split.json',
    'parameters.txt',
    'metrics.jsonl',
    'checkpoints/10/model',
    'checkpoints/10/optimizer',
    'checkpoints/10/data',
    'evaluation/validation/summary.json',
    'evaluation/validation/per_image.csv',
    'report.html',
    'review.html',
    'figures/curve_dice.png',
  ):
    assert (workdir / name).exists(), name
  assert list(workdir.glob('events.out.tfevents.*'))
  assert not list(workdir.rglob('*.tmp'))


def test_environment_says_what_ran(run):
  workdir, _ = run
  environment = json.loads((workdir / 'environment.json').read_text())
  assert environment['packages']['jax'] == jax.__version__
  assert environment['platform'] == 'cpu'
  assert len(environment['split_sha256']) == 64


def test_no_validation_image_is_lost_or_doubled(run):
  workdir, summary = run
  assert summary['num_images'] == _VALIDATION_IMAGES
  assert sum(summary['counts'].values()) == _VALIDATION_IMAGES * _PIXELS
  with (workdir / 'evaluation/validation/per_image.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert len({row['image_id'] for row in rows}) == _VALIDATION_IMAGES
  for name in metrics.COUNTS:
    assert sum(int(row[name]) for row in rows) == summary['counts'][name]
  means = [
    np.mean([float(row[name]) for row in rows])
    for name in ('dice', 'iou', 'threshold_jaccard')
  ]
  assert means == pytest.approx(
    [
      summary['per_image'][name]['mean']
      for name in ('dice', 'iou', 'threshold_jaccard')
    ],
    abs=1e-6,
  )


def test_metrics_of_both_epochs_and_every_window(run):
  # 21 training images in batches of 4: five updates an epoch, logged at
  # steps 3, 5, 6, 9 and 10, and an epoch's sums at 5 and 10.
  workdir, summary = run
  records = metric_writer.read(workdir)
  windows = [r for r in records if 'train/loss' in r]
  epochs = [r for r in records if 'epoch/number' in r]
  assert [r['step'] for r in windows] == [3, 5, 6, 9, 10]
  assert [(r['step'], r['epoch/number']) for r in epochs] == [(5, 1), (10, 2)]
  # An epoch's loss is the mean over its five updates: 3 and 2 of them.
  assert epochs[0]['epoch/loss'] == pytest.approx(
    (3 * windows[0]['train/loss'] + 2 * windows[1]['train/loss']) / 5
  )
  assert epochs[1]['validation/dice'] == summary['pooled']['dice']
  assert summary['best_checkpoint']['dice'] == max(
    r['validation/dice'] for r in epochs
  )


def test_event_file_holds_the_scalars_of_the_jsonl(run):
  workdir, _ = run
  event_accumulator = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator'
  )
  tensor_util = pytest.importorskip('tensorboard.util.tensor_util')
  accumulator = event_accumulator.EventAccumulator(str(workdir))
  accumulator.Reload()
  found = {
    (event.step, name): tensor_util.make_ndarray(event.tensor_proto).item()
    for name in accumulator.Tags()['tensors']
    for event in accumulator.Tensors(name)
  }
  written = {
    (record['step'], name): value
    for record in metric_writer.read(workdir)
    for name, value in record.items()
    if name != 'step'
  }
  assert found == pytest.approx(written, rel=1e-6)  # Events are float32.


def test_one_compilation_for_training_and_one_for_evaluation(
  config, tmp_path, caplog
):
  jax.clear_caches()
  with jax.log_compiles(), caplog.at_level('WARNING'):
    train.train_and_evaluate(config, tmp_path / 'run')
  compiled = [
    record.getMessage()
    for record in caplog.records
    if record.getMessage().startswith('Compiling')
  ]
  for step in ('train_step', 'forward', 'image_scores'):
    times = sum(f'jit({step})' in message for message in compiled)
    assert times == 1, step


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
  """Same weights, optimiser, position, log and event files; bit for bit."""
  step, leaves, data = _checkpoint(workdir, config)
  expected_step, expected, expected_data = _checkpoint(whole, config)
  assert (step, data) == (expected_step, expected_data)
  assert all(map(np.array_equal, leaves, expected))
  timeless = lambda workdir: [
    {k: v for k, v in r.items() if 'seconds' not in k and 'per_s' not in k}
    for r in metric_writer.read(workdir)
  ]
  assert timeless(workdir) == timeless(whole)
  assert _events(workdir) == _events(whole)


def _events(workdir):
  """Step and name of each scalar in all event files, doubles too."""
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
  # Five updates an epoch, logged at 3, 5, 6, 9 and 10. Step 2 is within a line
  # of the log, 5 is the last of an epoch, before its validation; 8 is both
  # within a line and after a resumption.
  whole, _ = run
  stops = (2, 5, 8)
  _stop_at(monkeypatch, stops)
  for step in stops:
    with pytest.raises(errors.StoppedError, match='SIGTERM'):
      train.train_and_evaluate(config, tmp_path / 'run')
    assert f'saved step {step}' in capsys.readouterr().out
  train.train_and_evaluate(config, tmp_path / 'run')
  assert 'resuming at step 8' in capsys.readouterr().out
  _assert_as(tmp_path / 'run', whole, config)


def test_two_and_two_epochs_equal_four(config, tmp_path, monkeypatch):
  # The first two are stopped while they are scored, the last of them.
  four = _changed(config, epochs=4, checkpoint_every_steps=2)
  train.train_and_evaluate(four, tmp_path / 'four')
  score, calls = scoring.score, []

  def stop_while_scoring(*args, **kwargs):
    calls.append(1)
    if len(calls) == 2:
      os.kill(os.getpid(), signal.SIGINT)
    return score(*args, **kwargs)

  monkeypatch.setattr(scoring, 'score', stop_while_scoring)
  with pytest.raises(errors.StoppedError, match='SIGINT'):
    train.train_and_evaluate(config, tmp_path / 'two')
  checkpoints = run_folder.checkpoints_dir(tmp_path / 'two')
  assert {p.name for p in checkpoints.iterdir()} == {'5', '10'}
  train.train_and_evaluate(config, tmp_path / 'two')
  assert len(calls) == 3  # The second epoch was scored anew, nothing else.
  train.train_and_evaluate(four, tmp_path / 'two')
  _assert_as(tmp_path / 'two', tmp_path / 'four', four)


def _changed(config, **fields):
  return dataclasses.replace(
    config, train=dataclasses.replace(config.train, **fields)
  )


def test_finished_run_started_again_trains_no_more(run, config, capsys):
  workdir, summary = run
  before = (workdir / 'metrics.jsonl').read_text()
  assert train.train_and_evaluate(config, workdir) == summary
  assert (workdir / 'metrics.jsonl').read_text() == before


def test_folder_of_another_run_is_refused(run, config):
  workdir, _ = run
  other = _changed(config, learning_rate=0.5)
  with pytest.raises(
    errors.InputError, match=r'train.learning_rate: 0.01 there, 0.5 now'
  ):
    train.train_and_evaluate(other, workdir)


@pytest.mark.parametrize('checkpoint', ['last', 'best', '10'])
def test_checkpoint_scored_again_from_the_folder_alone(run, checkpoint):
  workdir, summary = run
  again = evaluate.evaluate_run(
    workdir, checkpoint=checkpoint, subset='validation'
  )
  records = metric_writer.read(workdir)
  (expected,) = (
    r['validation/dice']
    for r in records
    if r['step'] == again['checkpoint_step'] and 'epoch/number' in r
  )
  assert again['pooled']['dice'] == expected
  if checkpoint != 'best':
    assert again['counts'] == summary['counts']


def test_padding_changes_no_score(run, config):
  # 7 images in batches of 4, 7 and 16 make 1, 0 and 9 rows of padding.
  workdir, summary = run
  path = workdir / 'config.json'
  original = path.read_text()
  try:
    for batch_size in (7, 16):
      values = json.loads(original)
      values['evaluation']['batch_size'] = batch_size
      path.write_text(json.dumps(values))
      again = evaluate.evaluate_run(
        workdir, checkpoint='last', subset='validation'
      )
      assert again['counts'] == summary['counts']
  finally:
    path.write_text(original)


def test_unknown_checkpoint_is_refused(run):
  workdir, _ = run
  with pytest.raises(errors.InputError, match="no checkpoint '3'.*10"):
    evaluate.evaluate_run(workdir, checkpoint='3', subset='validation')


def test_not_a_run_folder(tmp_path):
  with pytest.raises(errors.InputError, match='holds config.json'):
    evaluate.evaluate_run(tmp_path, checkpoint='last', subset='validation')


def test_divergence_names_the_batch_and_saves_nothing_bad(config, tmp_path):
  # The first update makes weights of 1e38, finite; the second does not.
  diverging = _changed(config, learning_rate=1e38, checkpoint_every_steps=1)
  with pytest.raises(errors.DivergenceError) as caught:
    train.train_and_evaluate(diverging, tmp_path / 'run')
  message = str(caught.value)
  assert 'between steps 2 and 2, first after step 2' in message
  assert 'the checkpoint of step 1 is intact' in message
  # Grain's order, drawn here by itself; ids are sorted.
  split = splits.read_split(tmp_path / 'run' / 'split.csv')
  order = grain.MapDataset.source(sorted(split.train)).shuffle(0)
  batches = order.batch(4, drop_remainder=True)
  assert message.endswith(''.join(f'\n  {name}' for name in batches[1]))
  step, leaves, _ = _checkpoint(tmp_path / 'run', diverging)
  assert step == 1
  assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_full_disk_while_logging_leaves_the_checkpoint(
  config, tmp_path, monkeypatch
):
  def full(self, step, scalars):
    if step > 5:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write(self, step, scalars)

  write = metric_writer.MetricWriter.write
  monkeypatch.setattr(metric_writer.MetricWriter, 'write', full)
  with pytest.raises(errors.InputError, match='No space left.*Make'):
    train.train_and_evaluate(config, tmp_path / 'run')
  assert _checkpoint(tmp_path / 'run', config)[0] == 5


def test_out_of_memory_says_what_to_change(config, tmp_path, monkeypatch):
  def exhausted(*args):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

  monkeypatch.setattr(trainer.Trainer, '_compile', lambda *args: exhausted)
  with pytest.raises(errors.InputError) as caught:
    train.train_and_evaluate(config, tmp_path / 'run')
  for field in ('remat', 'accumulation_steps', 'batch_size'):
    assert f'train.{field}' in str(caught.value)


def test_folder_in_use_is_refused(config, tmp_path):
  with (
    run_folder.locked(tmp_path),
    pytest.raises(errors.InputError, match='another process trains in'),
  ):
    train.train_and_evaluate(config, tmp_path)


def test_folder_that_cannot_be_written(config, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.InputError, match='cannot write to the run folder'):
    train.train_and_evaluate(config, tmp_path / 'file' / 'run')


def test_two_epochs_of_one_answer_are_told_once(capsys):
  background = {'tp': 0, 'fp': 0, 'fn': 5, 'tn': 11}
  lesion = {'tp': 5, 'fp': 11, 'fn': 0, 'tn': 0}
  both = {'tp': 5, 'fp': 10, 'fn': 0, 'tn': 1}
  row = 0
  for counts in (background, both, lesion):
    row = faults.count_one_sided(counts, row)
  assert row == 1
  assert not capsys.readouterr().err
  for _ in range(3):
    row = faults.count_one_sided(lesion, row)
  assert row == 4
  assert capsys.readouterr().err.count('called lesion') == 1


def test_unknown_xla_option_is_refused(config, tmp_path):
  unknown = _changed(config, xla_options='xla_nope=1')
  with pytest.raises(errors.InputError, match='train.xla_options.*xla_nope'):
    train.train_and_evaluate(unknown, tmp_path / 'run')


def test_overfits_one_batch(run, config):
  state = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  )
  rng = np.random.default_rng(0)
  masks = np.zeros((4, 32, 32), np.uint8)
  masks[:, 8:24, 8:24] = 1
  images = 60 + 120 * masks[..., None] + rng.integers(0, 20, (4, 32, 32, 3))
  batch = {'image': images.astype(np.uint8), 'mask': masks}
  arrays, losses = state.state, []
  for _ in range(60):
    arrays, step_metrics = train_step.train_step(
      state.graphdef, arrays, batch, config=config
    )
    losses.append(float(step_metrics['loss']))
  assert losses[-1] < 0.4 * losses[0]


def _recipe(config):
  """All that the paper's recipe is not, on top of another config."""
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
  source = sources.open_source(config.data)
  split = splits.make_split(config.data, source.metadata)
  data = cache.open_cache(
    source, config.data.image_size, pathlib.Path(config.data.data_dir)
  )
  run_folder.begin(workdir, config, source, split)
  return trainer.Trainer(
    config, workdir, data, split, stop_signals.StopSignals()
  )


def test_whole_recipe_resumes_to_the_bit_and_its_average_predicts(
  config, tmp_path, monkeypatch
):
  # Compiled once for the three trainers.
  monkeypatch.setattr(
    train.compilation,
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
  first = _trainer(recipe, tmp_path / 'parts')
  first.train_epoch()
  first.close()
  second = _trainer(recipe, tmp_path / 'parts')
  assert second.step == 5
  second.train_epoch()
  second.close()
  expected = _checkpoint(tmp_path / 'whole', recipe)
  found = _checkpoint(tmp_path / 'parts', recipe)
  assert found[0] == expected[0] == 10
  assert found[2] == expected[2]
  assert all(map(np.array_equal, found[1], expected[1]))

  # What is loaded alone is the average: not what was learned last.
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

  # One step more: update 11 keeps 12 / 21 of the average, less than .9.
  state, _ = second._train_step(
    second._static.graphdef, second._state, _random_batch()
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
  source = sources.open_source(recipe.data)
  split = splits.make_split(recipe.data, source.metadata)
  run_folder.begin(tmp_path / 'run', recipe, source, split)
  longer = lambda config: dataclasses.replace(
    config, train=dataclasses.replace(config.train, epochs=3)
  )
  with pytest.raises(errors.InputError, match='train.epochs: 2 there, 3 now'):
    run_folder.begin(tmp_path / 'run', longer(recipe), source, split)
  # Without a schedule it goes on.
  run_folder.begin(tmp_path / 'constant', config, source, split)
  run_folder.begin(tmp_path / 'constant', longer(config), source, split)
