"""Evaluates a model with known answers: own data, other data, reviews."""

import dataclasses
import json
import shutil

import fake_model
import numpy as np
import pytest

from skinseg_jax.data import input_pipeline, splits
from skinseg_jax.data.sources import synthetic
from skinseg_jax.evaluation import (
  evaluator,
  result_files,
  scoring,
  training_images,
)
from skinseg_jax.metrics import calibration, confusion
from skinseg_jax.runtime import errors

_FAST = evaluator.Options(native_size=False)


@pytest.fixture
def model(monkeypatch, tmp_path):
  return fake_model.make(monkeypatch, tmp_path / 'data')


@pytest.fixture
def own(model):
  return fake_model.run_data(model)


@pytest.fixture
def workdir(tmp_path):
  path = tmp_path / 'run'
  path.mkdir()
  return path


def _evaluate(workdir, model, own, *, subset='validation', options=_FAST):
  return evaluator.evaluate_subset(
    workdir, model, own, subset=subset, options=options
  ).summary


def _histogram(own, image_ids):
  places = input_pipeline.select(own.data, image_ids)
  logits = fake_model.logits(own.data.images[places])
  counted = calibration.probability_histogram(
    logits, own.data.masks[places], np.ones(len(places), bool)
  )
  return np.asarray(counted, np.int64)


def test_threshold_is_chosen_on_training_images_alone(workdir, model, own):
  summary = _evaluate(workdir, model, own)
  train = _histogram(own, own.split.train)
  best = calibration.best_threshold(train)
  point = summary['operating_point']
  assert point['threshold'] == best
  assert point['chosen_on'] == 'train'
  assert point['train_images'] == 8
  # The validation images are scored at that threshold.
  index = round(best * calibration.BINS)
  above = calibration.counts_above(_histogram(own, own.split.validation))
  scores = confusion.ratios({name: n[index] for name, n in above.items()})
  assert point['pooled']['dice'] == scores['dice']
  of_train = {n: c[index] for n, c in calibration.counts_above(train).items()}
  assert point['train_dice'] == confusion.ratios(of_train)['dice']
  # The best threshold on the validation images is another one.
  assert best != calibration.best_threshold(
    _histogram(own, own.split.validation)
  )


def test_of_many_training_images_some_choose_the_threshold(
  workdir, model, own, monkeypatch
):
  monkeypatch.setattr(training_images, '_MOST_IMAGES', 3)
  point = _evaluate(workdir, model, own)['operating_point']
  sample = _histogram(own, own.split.train[::3])  # Of 8: 0, 3 and 6.
  assert point['train_images'] == 3
  assert point['threshold'] == calibration.best_threshold(sample)


def test_threshold_is_kept_for_the_checkpoint(workdir, model, own, monkeypatch):
  first = _evaluate(workdir, model, own)
  monkeypatch.setattr(scoring, 'histogram', lambda *x, **y: 1 / 0)
  assert _evaluate(workdir, model, own) == first
  later = dataclasses.replace(model, step=20)
  with pytest.raises(ZeroDivisionError):
    _evaluate(workdir, later, own)


def test_no_pass_over_training_images_when_told(workdir, model, own):
  options = dataclasses.replace(_FAST, training_side=False)
  summary = _evaluate(workdir, model, own, options=options)
  assert summary['operating_point'] is None
  assert not (workdir / 'operating_point.json').exists()


def test_training_images_give_their_threshold_in_the_same_pass(
  workdir, model, own, monkeypatch
):
  monkeypatch.setattr(scoring, 'histogram', lambda *x, **y: 1 / 0)
  summary = _evaluate(workdir, model, own, subset='train')
  point = summary['operating_point']
  assert point['pooled']['dice'] == point['train_dice']
  assert point['train_dice'] >= summary['pooled']['dice']
  assert training_images.stored_point(workdir, model.step)['train_images'] == 8


def test_summary_says_what_was_scored(workdir, model, own):
  summary = _evaluate(workdir, model, own)
  path = workdir / 'evaluation/validation/summary.json'
  assert json.loads(path.read_text()) == summary
  assert summary['num_images'] == 7
  assert summary['checkpoint_step'] == 10
  assert summary['data']['fingerprint'] == own.source.fingerprint
  assert len(summary['data']['split_sha256']) == 64
  # Each group of four images ends with two images of one lesion. The lesion is
  # on both sides only if the split divides such a pair; 8 is a multiple of 4.
  assert summary['leakage']['leaked_images'] == 0
  assert summary['leakage']['images'] == {'train': 8, 'validation': 7}


def _other(**changes):
  options = {'num_images': 5, 'size': (64, 64), 'seed': 9, **changes}
  return synthetic.SyntheticSource(**options)


def test_other_data_beside_the_training_images(workdir, model, own):
  _evaluate(workdir, model, own)  # Stores the threshold.
  training_images.profile(workdir, own)
  splits.write_split(own.split, workdir / 'split.csv')
  summary = evaluator.evaluate_source(
    workdir, model, _other(), name='clinic', options=_FAST
  ).summary
  assert summary['num_images'] == 5
  assert sum(summary['counts'].values()) == 5 * 32 * 32
  assert summary['data']['split'] is None
  assert summary['leakage'] is None
  # Generated images are numbered, so these five share ids with training images.
  assert summary['trained_on'] == 5
  stored = training_images.stored_point(workdir, model.step)
  assert summary['operating_point']['threshold'] == stored['threshold']
  shift = summary['shift']
  assert shift['training']['image_sizes'] == {'40 x 48': 8}
  assert shift['here']['image_sizes'] == {'64 x 64': 5}
  assert any(
    '64 x 64 here and 40 x 48 in training' in note for note in shift['notes']
  )
  read = result_files.read(workdir, 'clinic')
  assert read.image_ids == _other().image_ids


def test_other_data_without_the_training_images(workdir, model, own, capsys):
  shutil.rmtree(workdir)  # No split.csv, so nothing about the run's own data.
  workdir.mkdir()
  summary = evaluator.evaluate_source(
    workdir, model, _other(), name='clinic', options=_FAST
  ).summary
  assert 'no comparison with the training images' in capsys.readouterr().err
  assert summary['operating_point'] is None
  assert summary['trained_on'] is None
  assert summary['shift']['training'] is None
  assert summary['shift']['notes'] == []


def test_name_taken_by_other_data_is_refused(workdir, model):
  options = dataclasses.replace(_FAST, training_side=False)
  score = lambda source: evaluator.evaluate_source(
    workdir, model, source, name='images', options=options
  )
  score(_other())
  score(_other())  # A second time on the same data.
  with pytest.raises(errors.InputError, match='--name'):
    score(_other(seed=10))


def _review(tmp_path, rows):
  path = tmp_path / 'review.csv'
  lines = ['image_id,decision,comment', *(f'{i},{d},' for i, d in rows)]
  path.write_text('\n'.join(lines) + '\n')
  return path


@pytest.fixture
def rows(own):
  first, second, third, *_ = own.split.validation
  return [(first, 'accept'), (second, 'reject'), (third, 'correct')]


def test_review_is_summarised(workdir, model, own, tmp_path, rows):
  options = dataclasses.replace(_FAST, review=_review(tmp_path, rows))
  summary = _evaluate(workdir, model, own, options=options)
  judged = summary['review']
  assert judged['counts'] == {'accept': 1, 'correct': 1, 'reject': 1}
  assert judged['excluded'] == []
  assert summary['num_images'] == 7
  read = result_files.read(workdir, 'validation')
  dice = read.column('dice')
  assert judged['mean_dice'] == pytest.approx(
    {'accept': dice[0], 'reject': dice[1], 'correct': dice[2]}, abs=1e-6
  )


def test_rejected_truths_are_left_out_while_saying_so(
  workdir, model, own, tmp_path, rows
):
  whole = _evaluate(workdir, model, own)
  options = dataclasses.replace(
    _FAST, review=_review(tmp_path, rows), exclude_rejected=True
  )
  summary = _evaluate(workdir, model, own, options=options)
  rejected = rows[1][0]
  assert summary['review']['excluded'] == [rejected]
  assert summary['review']['counts']['reject'] == 1
  assert summary['num_images'] == 6
  # The scores on all images are still there, unchanged.
  read = result_files.read(workdir, 'validation')
  assert read.summary == whole
  left = result_files.read(workdir, 'validation_reviewed')
  assert left.image_ids == [i for i in read.image_ids if i != rejected]
  at = read.image_ids.index(rejected)
  for name in confusion.COUNTS:
    gone = int(read.column(name)[at])
    assert summary['counts'][name] == whole['counts'][name] - gone


def test_reviewed_training_side_does_not_set_the_threshold(
  workdir, model, own, tmp_path
):
  rows = [(own.split.train[0], 'reject')]
  options = dataclasses.replace(
    _FAST,
    review=_review(tmp_path, rows),
    exclude_rejected=True,
    training_side=False,
  )
  summary = _evaluate(workdir, model, own, subset='train', options=options)
  assert summary['num_images'] == 7
  assert summary['operating_point'] is None


def test_review_of_other_images_is_refused(workdir, model, own, tmp_path):
  path = _review(tmp_path, [('nobody', 'accept')])
  options = dataclasses.replace(_FAST, review=path)
  with pytest.raises(errors.InputError, match='nobody'):
    _evaluate(workdir, model, own, options=options)


def test_review_that_rejects_everything_is_refused(
  workdir, model, own, tmp_path
):
  path = _review(tmp_path, [(i, 'reject') for i in own.split.validation])
  options = dataclasses.replace(_FAST, review=path, exclude_rejected=True)
  with pytest.raises(errors.InputError, match='rejects every image'):
    _evaluate(workdir, model, own, options=options)
