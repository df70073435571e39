"""Comparison of two runs: equal, different, and not comparable."""

import csv
import dataclasses

import fake_model
import numpy as np
import pytest

from skinseg_jax import compare
from skinseg_jax.evaluation import comparison, evaluator
from skinseg_jax.metrics import confusion
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import errors

_FAST = evaluator.Options(native_size=False, training_side=False)


@pytest.fixture
def make_run(monkeypatch, tmp_path):
  """Makes a run folder with an evaluation at a threshold."""
  model = fake_model.make(monkeypatch, tmp_path / 'data')

  def make(name, threshold=0.5, validation=slice(8, 15)):
    model.config.evaluation.threshold = threshold
    own = fake_model.run_data(model)
    ids = own.source.image_ids
    split = dataclasses.replace(own.split, validation=ids[validation])
    workdir = tmp_path / name
    evaluator.evaluate_subset(
      workdir,
      model,
      dataclasses.replace(own, split=split),
      subset='validation',
      options=_FAST,
    )
    return workdir

  (tmp_path / 'data').mkdir()
  return make


def _edit(workdir, change):
  path = run_folder.evaluation_dir(workdir, 'validation') / 'per_image.csv'
  with path.open(newline='') as file:
    rows = list(csv.DictReader(file))
  change(rows)
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def test_a_run_does_not_differ_from_itself(make_run):
  workdir = make_run('a')
  for row in comparison.compare([workdir, workdir], 'validation'):
    (difference,) = row.differences
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert difference.p_value == 1


def test_values_and_differences(make_run):
  runs = [make_run('a'), make_run('b', 0.3), make_run('c', 0.7)]
  rows = {row.name: row for row in comparison.compare(runs, 'validation')}
  files = []
  for run in runs:
    path = run_folder.evaluation_dir(run, 'validation') / 'per_image.csv'
    with path.open(newline='') as file:
      files.append(list(csv.DictReader(file)))
  for i, file in enumerate(files):
    counts = {
      name: sum(int(row[name]) for row in file) for name in confusion.COUNTS
    }
    pooled, means = rows['pooled dice'], rows['mean dice']
    assert pooled.values[i] == confusion.ratios(counts)['dice']
    assert means.values[i] == pytest.approx(
      np.mean([float(row['dice']) for row in file])
    )
    if i:
      for row in (pooled, means):
        difference = row.differences[i - 1]
        # Difference from the first run: above 0 if the other is better.
        assert difference.value == pytest.approx(row.values[i] - row.values[0])
        assert difference.low <= difference.value <= difference.high
  text = comparison.table(['a', 'b', 'c'], list(rows.values()))
  assert f'{rows["pooled recall"].values[1]:.4f}' in text


def test_a_difference_in_every_image_is_marked(make_run):
  runs = [make_run('a'), make_run('b')]

  def halve_true_skin(rows):
    for row in rows:
      tn = int(row['tn'])
      row['tn'], row['fp'] = tn // 2, int(row['fp']) + tn - tn // 2

  _edit(runs[1], halve_true_skin)
  rows = comparison.compare(runs, 'validation')
  (difference,) = next(
    row.differences for row in rows if row.name == 'pooled specificity'
  )
  assert difference.high < 0
  # No draw reaches 0, so the p-value is the smallest possible for 2,000 draws,
  # widened for few lesions.
  assert difference.p_value < 0.05
  lines = comparison.table(['a', 'b'], rows).splitlines()
  marked = {line.split('  ')[0] for line in lines[1:-1] if '*' in line}
  assert 'pooled specificity' in marked
  assert 'pooled recall' not in marked


def test_table_marks_nothing_where_nothing_differs(make_run):
  workdir = make_run('a')
  rows = comparison.compare([workdir, workdir], 'validation')
  lines = comparison.table(['a', 'a'], rows).splitlines()
  assert not any('*' in line for line in lines[:-1])


def test_other_images_are_refused(make_run):
  runs = [make_run('a'), make_run('b', validation=slice(9, 15))]
  with pytest.raises(errors.InputError, match='1 images are in only one run'):
    comparison.compare(runs, 'validation')


def test_other_truths_are_refused(make_run):
  runs = [make_run('a'), make_run('b')]

  def change(rows):
    rows[2]['fn'] = str(int(rows[2]['fn']) + 1)

  _edit(runs[1], change)
  with pytest.raises(errors.InputError, match='1 true masks differ'):
    comparison.compare(runs, 'validation')


def test_run_without_that_evaluation_is_refused(make_run, tmp_path):
  with pytest.raises(errors.InputError, match=r'skinseg_jax\.evaluate'):
    comparison.compare([make_run('a'), tmp_path / 'nowhere'], 'validation')


def test_one_run_is_too_few(tmp_path):
  with pytest.raises(errors.InputError, match='two or more'):
    compare.main(['compare', str(tmp_path)])


def test_command_line(make_run, capsys):
  runs = [str(make_run('a')), str(make_run('b', 0.3))]
  compare.main(['compare', *runs, '--split', 'validation'])
  out = capsys.readouterr().out
  assert 'pooled dice' in out
  assert 'mean hd95' in out
