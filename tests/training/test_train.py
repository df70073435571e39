"""The training loop end to end, with a tiny U-Net and generated lesions."""

import csv
import errno
import json
import os

import grain
import jax
import numpy as np
import pytest
import run_files

from skinseg_jax import evaluate, main
from skinseg_jax.data import input_pipeline, splits
from skinseg_jax.metrics import confusion
from skinseg_jax.run import metric_writer, run_folder
from skinseg_jax.runtime import errors
from skinseg_jax.training import (
  diagnosis,
  experiment,
  train_state,
  train_step,
  trainer,
)

_VALIDATION_IMAGES = 7  # Not a multiple of the batch: the last is padded.
_PIXELS = 32 * 32


@pytest.fixture
def config(tiny_config):
  return tiny_config


@pytest.fixture
def run(tiny_run):
  return tiny_run


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
  for name in confusion.COUNTS:
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
  # 21 training images in batches of 4 make five updates per epoch. Lines are
  # logged at steps 3, 5, 6, 9 and 10, and the sums of an epoch at 5 and 10.
  workdir, summary = run
  records = metric_writer.read(workdir)
  windows = [r for r in records if 'train/loss' in r]
  epochs = [r for r in records if 'epoch/number' in r]
  assert [r['step'] for r in windows] == [3, 5, 6, 9, 10]
  assert [(r['step'], r['epoch/number']) for r in epochs] == [(5, 1), (10, 2)]
  # The loss of an epoch is the mean over its five updates; its two lines of the
  # log hold 3 and 2 of them.
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
    main.train_and_evaluate(config, tmp_path / 'run')
  compiled = [
    record.getMessage()
    for record in caplog.records
    if record.getMessage().startswith('Compiling')
  ]
  for step in ('train_step', 'each_view', 'mean_of_views', 'image_scores'):
    times = sum(f'jit({step})' in message for message in compiled)
    assert times == 1, step


def test_folder_of_another_run_is_refused(run, config):
  workdir, _ = run
  other = run_files.changed(config, learning_rate=0.5)
  with pytest.raises(
    errors.InputError, match=r'train.learning_rate: 0.01 there, 0.5 now'
  ):
    main.train_and_evaluate(other, workdir)


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
  with pytest.raises(errors.InputError, match='contains config.json'):
    evaluate.evaluate_run(tmp_path, checkpoint='last', subset='validation')


def test_divergence_names_the_batch_and_saves_nothing_bad(config, tmp_path):
  # The weights are finite (1e38) after the first update, not after the second.
  diverging = run_files.changed(
    config, learning_rate=1e38, checkpoint_every_steps=1
  )
  with pytest.raises(errors.DivergenceError) as caught:
    main.train_and_evaluate(diverging, tmp_path / 'run')
  message = str(caught.value)
  assert 'between steps 2 and 2, first after step 2' in message
  assert 'the checkpoint of step 1 is intact' in message
  # Grain's order, drawn again here; ids are sorted.
  split = splits.read_split(tmp_path / 'run' / 'split.csv')
  order = grain.MapDataset.source(sorted(split.train)).shuffle(0)
  batches = order.batch(4, drop_remainder=True)
  assert message.endswith(''.join(f'\n  {name}' for name in batches[1]))
  step, leaves, _ = run_files.checkpoint(tmp_path / 'run', diverging)
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
  with pytest.raises(errors.InputError, match='No space left.*Free some space'):
    main.train_and_evaluate(config, tmp_path / 'run')
  assert run_files.checkpoint(tmp_path / 'run', config)[0] == 5
  # The remedy: some space, and the same command.
  monkeypatch.undo()
  with experiment.prepared(config, tmp_path / 'run') as prepared:
    experiment.train(prepared)
  assert run_files.checkpoint(tmp_path / 'run', config)[0] == 10


def test_out_of_memory_says_what_to_change(config, tmp_path, monkeypatch):
  def exhausted(*args):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

  monkeypatch.setattr(trainer.Trainer, '_compile', lambda *args: exhausted)
  with pytest.raises(errors.InputError) as caught:
    main.train_and_evaluate(config, tmp_path / 'run')
  for field in ('remat', 'accumulation_steps', 'batch_size'):
    assert f'train.{field}' in str(caught.value)
  # The first remedy: the run goes on in the same folder.
  remat = run_files.changed(config, remat=True)
  with experiment.prepared(remat, tmp_path / 'run') as prepared:
    assert prepared.config.train.remat


def test_folder_in_use_is_refused(config, tmp_path):
  with (
    run_folder.locked(tmp_path),
    pytest.raises(errors.InputError, match='another process trains in'),
  ):
    main.train_and_evaluate(config, tmp_path)


def test_folder_that_cannot_be_written(config, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.InputError, match='cannot write to the run folder'):
    main.train_and_evaluate(config, tmp_path / 'file' / 'run')


def test_two_epochs_of_one_answer_are_told_once(capsys):
  background = {'tp': 0, 'fp': 0, 'fn': 5, 'tn': 11}
  lesion = {'tp': 5, 'fp': 11, 'fn': 0, 'tn': 0}
  both = {'tp': 5, 'fp': 10, 'fn': 0, 'tn': 1}
  row = 0
  for counts in (background, both, lesion):
    row = diagnosis.count_one_sided(counts, row)
  assert row == 1
  assert not capsys.readouterr().err
  for _ in range(3):
    row = diagnosis.count_one_sided(lesion, row)
  assert row == 4
  assert capsys.readouterr().err.count('called lesion') == 1


def test_unknown_xla_option_is_refused(config, tmp_path):
  unknown = run_files.changed(config, xla_options='xla_nope=1')
  with pytest.raises(errors.InputError, match='train.xla_options.*xla_nope'):
    main.train_and_evaluate(unknown, tmp_path / 'run')


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
