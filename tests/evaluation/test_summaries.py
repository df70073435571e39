"""Files of an evaluation: their content, and that they are complete."""

import dataclasses
import json

import fake_model
import numpy as np
import pytest

from skinseg_jax.evaluation import assessment, result_files, summaries
from skinseg_jax.metrics import confusion


@pytest.fixture
def assessed(monkeypatch, tmp_path):
  model = fake_model.make(monkeypatch, tmp_path)
  own = fake_model.run_data(model)
  rows = {row['image_id']: row for row in own.source.metadata}
  made = assessment.assess(
    model, own.source, own.data, own.split.validation, native_size=True
  )
  return made, [rows[name] for name in made.image_ids]


def test_images_of_a_patient_belong_together_where_no_lesion_is_known():
  rows = [
    {'image_id': 'a', 'lesion_id': '', 'patient_id': 'p'},
    {'image_id': 'b', 'lesion_id': '', 'patient_id': 'p'},
    {'image_id': 'c', 'lesion_id': '', 'patient_id': ''},
  ]
  assert summaries.lesions(rows) == ['p', 'p', 'c']
  rows[0]['lesion_id'] = rows[2]['lesion_id'] = 'l'
  assert summaries.lesions(rows) == ['p', 'p', 'p']
  rows[1]['lesion_id'] = 'm'
  assert summaries.lesions(rows) == ['l', 'm', 'l']


def _summary(assessed, metadata):
  summary = summaries.summarise(
    assessed, metadata, image_size=(32, 32), threshold=0.5
  )
  return {**summary, 'checkpoint_step': 10}


def test_summary(assessed):
  made, metadata = assessed
  summary = _summary(made, metadata)
  json.dumps(summary, allow_nan=False)
  assert summary['counts'] == confusion.pool(made.counts)
  assert sum(summary['counts'].values()) == 7 * 32 * 32
  assert summary['clustered_by'] == 'lesion'
  assert summary['clusters'] == len({row['lesion_id'] for row in metadata})
  for name, ends in summary['pooled_intervals'].items():
    assert ends['value'] == summary['pooled'][name]
    assert ends['low'] <= ends['value'] <= ends['high']
  each = confusion.ratios(made.counts)
  assert summary['per_image']['dice']['mean'] == pytest.approx(
    each['dice'].mean()
  )
  assert summary['per_image']['hd95']['mean'] == pytest.approx(
    made.surface['hd95'].mean()
  )
  assert summary['isic']['jaccard']['value'] == pytest.approx(
    each['iou'].mean()
  )
  # .5 is the middle one of 127 thresholds.
  sweep = summary['sweep']
  assert sweep['threshold'][63] == 0.5
  assert sweep['dice'][63] == pytest.approx(summary['pooled']['dice'])
  mean_square = made.squared_error.sum() / (7 * 32 * 32)
  assert summary['calibration']['brier'] == pytest.approx(mean_square)
  native = summary['native_size']
  own = confusion.ratios(confusion.pool(made.native_counts))
  assert native['pooled']['iou'] == own['iou']


def test_summary_without_any_lesion_is_json(assessed):
  made, metadata = assessed
  number = len(made.image_ids)
  none = np.zeros(number, np.int64)
  counts = {'tp': none, 'fp': none, 'fn': none, 'tn': none + 1024}
  histogram = np.zeros_like(made.histogram)
  histogram[0, 0] = number * 1024
  empty = dataclasses.replace(
    made, counts=counts, native_counts=counts, histogram=histogram
  )
  summary = _summary(empty, metadata)
  json.dumps(summary, allow_nan=False)
  assert summary['both_empty_images'] == number
  assert summary['pooled']['dice'] == 1
  assert summary['calibration']['average_precision'] is None


def test_curve_is_thinned_but_keeps_its_ends():
  histogram = np.ones((2, 16384), np.int64)
  curve = summaries._curve(histogram)
  assert 2 < len(curve['recall']) <= 200
  # Recall starts with only the highest bin, 1 of 16,384 lesion pixels, and ends
  # with all of them.
  assert (curve['recall'][0], curve['recall'][-1]) == (1 / 16384, 1)
  assert curve['precision'] == pytest.approx([0.5] * len(curve['recall']))


def test_scores_at_a_threshold():
  # Skin at p in (.25, .25 + 1/BINS], lesion at (.75, ...]: three and one.
  histogram = np.zeros((2, 16384), np.int64)
  histogram[0, 4096], histogram[1, 12288] = 3, 1
  assert summaries.scores_at(histogram, 0.5)['accuracy'] == 1
  assert summaries.scores_at(histogram, 0.25)['precision'] == 0.25
  assert summaries.scores_at(histogram, 0.75 + 1 / 16384)['recall'] == 0


def test_files_read_back(assessed, tmp_path):
  made, metadata = assessed
  summary = _summary(made, metadata)
  directory = tmp_path / 'run/evaluation/validation'
  result_files.write(directory, summary, made, metadata)
  read = result_files.read(tmp_path / 'run', 'validation')
  assert read.image_ids == made.image_ids
  for name in confusion.COUNTS:
    assert read.column(name).tolist() == made.counts[name].tolist()
  for name, values in summaries.scores_per_image(made).items():
    assert read.column(name) == pytest.approx(values, abs=1e-6)
  assert read.column('brier') == pytest.approx(
    made.squared_error / 1024, abs=1e-6
  )
  assert [row['lesion_id'] for row in read.rows] == [
    row['lesion_id'] for row in metadata
  ]
  assert [row['dx'] for row in read.rows] == [row['dx'] for row in metadata]
  predicted = sum(int(read.prediction(i).sum()) for i in range(7))
  assert predicted == summary['counts']['tp'] + summary['counts']['fp']
  assert set(read.subgroups) >= {'dx', 'lesion_area', 'contrast', 'hair'}
  for name, rows in read.subgroups.items():
    assert sum(row['images'] for row in rows) == 7, name
  worst = made.image_ids[int(np.argmin(confusion.ratios(made.counts)['iou']))]
  assert read.failures[0]['image_id'] == worst
  assert not list(directory.glob('*.tmp'))


def test_interrupted_writing_leaves_no_summary(assessed, tmp_path, monkeypatch):
  made, metadata = assessed
  summary = _summary(made, metadata)
  result_files.write(tmp_path, summary, made, metadata)
  monkeypatch.setattr(np, 'savez_compressed', lambda *x, **y: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    result_files.write(tmp_path, summary, made, metadata)
  # Old scores must not stay next to new tables.
  assert not (tmp_path / 'summary.json').exists()


def test_description_says_what_was_chosen_and_left_out(assessed):
  made, metadata = assessed
  summary = _summary(made, metadata)
  summary |= {
    'operating_point': {'threshold': 0.375, 'pooled': {'dice': 0.5}},
    'review': {'counts': {'accept': 2, 'reject': 1}, 'excluded': ['x']},
    'shift': {'notes': ['red is higher']},
  }
  summary['skin_tone'] |= {
    'images': 6,
    'dice_rank_correlation': {'value': 0.25, 'low': -0.5, 'high': 0.75},
  }
  text = summaries.describe(summary)
  assert '(ITA) 0.2500 (-0.5000 to 0.7500), 6 images' in text
  summary['skin_tone']['dice_rank_correlation'] = None
  text = summaries.describe(summary)
  assert '(ITA) unknown, 6 images' in text
  for part in ('7 images', '0.375', '1 reject', 'left out', 'red is higher'):
    assert part in text
