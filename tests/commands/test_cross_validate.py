"""Every image scored once, by a model that never saw its lesion."""

import copy
import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import skinseg_jax
from skinseg_jax import compare, cross_validate, main, predict
from skinseg_jax.data.sources import catalog
from skinseg_jax.evaluation import result_files
from skinseg_jax.folds import plan, pooled
from skinseg_jax.reporting import report
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import errors

pytestmark = pytest.mark.slow

_FOLDS = 3


@pytest.fixture(scope='module')
def config(tiny_config):
  config = copy.deepcopy(tiny_config)
  config.data.split = 'paper'  # Becomes folds by lesion.
  config.train.epochs = 1
  return plan.first_config(config, _FOLDS)


@pytest.fixture(scope='module')
def root(config, tmp_path_factory):
  """Jobs: fold 2 alone, then the rest, killed when fold 0 has ended."""
  root = tmp_path_factory.mktemp('folds') / 'root'
  cross_validate.cross_validate(config, root, only=2)
  assert not (root / 'evaluation').exists()
  with pytest.MonkeyPatch.context() as patch:
    train = main.train_and_evaluate

    def killed(config, workdir):
      if config.data.fold == 1:
        raise KeyboardInterrupt
      return train(config, workdir)

    patch.setattr(main, 'train_and_evaluate', killed)
    with pytest.raises(KeyboardInterrupt):
      cross_validate.cross_validate(config, root)
  cross_validate.cross_validate(config, root, ensemble=True)
  return root


def _table(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def _per_image(folder):
  return _table(folder / 'evaluation/validation/per_image.csv')


def test_each_image_is_scored_once_by_a_model_without_its_lesion(root, config):
  lesion_of = {
    row['image_id']: row['lesion_id']
    for row in catalog.open_source(config.data).metadata
  }
  scored = []
  for fold in range(_FOLDS):
    rows = _per_image(root / f'fold_{fold}')
    split = _table(root / f'fold_{fold}/split.csv')
    trained = {
      lesion_of[r['image_id']] for r in split if r['subset'] == 'train'
    }
    assert not trained & {lesion_of[row['image_id']] for row in rows}
    scored += [row['image_id'] for row in rows]
  assert sorted(scored) == sorted(lesion_of)
  assert [row['image_id'] for row in _per_image(root)] == sorted(lesion_of)
  assert {row['image_id']: row['lesion_id'] for row in _per_image(root)} == (
    lesion_of
  )


def test_pooled_scores_are_those_of_the_rows_of_all_folds(root):
  rows = [row for k in range(_FOLDS) for row in _per_image(root / f'fold_{k}')]
  tp, fp, fn, tn = (
    sum(int(row[name]) for row in rows) for name in ('tp', 'fp', 'fn', 'tn')
  )
  summary = json.loads(
    (root / 'evaluation/validation/summary.json').read_text()
  )
  assert summary['counts'] == {'tp': tp, 'fp': fp, 'fn': fn, 'tn': tn}
  assert summary['pooled']['dice'] == pytest.approx(2 * tp / (2 * tp + fp + fn))
  mean = sum(float(row['iou']) for row in rows) / len(rows)
  assert summary['per_image']['iou']['mean'] == pytest.approx(mean, abs=1e-6)
  assert summary['clusters'] == len({row['lesion_id'] for row in rows})
  by_fold = [row['mean iou'] for row in summary['folds']]
  assert summary['spread']['mean iou']['sd'] == pytest.approx(
    np.std(by_fold, ddof=1)
  )
  # Rows of the joined table are the rows of the folds.
  assert _per_image(root) == sorted(rows, key=lambda row: row['image_id'])


def test_one_after_the_other_is_the_same(root, config, tmp_path, monkeypatch):
  # The pages of `root` are enough.
  monkeypatch.setattr(
    report, 'write_all', lambda folder, *_: (folder / 'report.html').touch()
  )
  cross_validate.cross_validate(config, tmp_path / 'whole')
  name = 'evaluation/validation'
  for file in ('per_image.csv', 'summary.json', 'failures.json'):
    ours, theirs = (
      (folder / name / file).read_bytes()
      for folder in (root, tmp_path / 'whole')
    )
    assert ours == theirs, file


def test_report_and_compare_read_it_as_a_run(root, capsys):
  assert 'Between folds' in (root / 'report.html').read_text()
  compare.main(['compare', str(root), str(root)])
  assert 'pooled dice' in capsys.readouterr().out


def test_a_finished_one_only_joins_again(root, config, monkeypatch):
  monkeypatch.setattr(main, 'train_and_evaluate', None)
  cross_validate.cross_validate(config, root)


def test_a_fold_is_finished_by_the_scores_of_its_last_epoch(
  root, config, tmp_path
):
  copied = shutil.copytree(root, tmp_path / 'root')
  longer = copy.deepcopy(config)
  longer.train.epochs = 2
  again = plan.prepare(longer, copied)
  # Killed after fold 0 began again.
  run_folder.begin(
    again.workdir(0), again.fold_config(0), again.source, again.folds[0]
  )
  assert not again.finished(0)
  found = plan.prepare(config, root)
  assert all(found.finished(fold) for fold in range(_FOLDS))
  # A checkpoint that was chosen on the scored images.
  path = copied / 'fold_1/evaluation/validation/summary.json'
  summary = json.loads(path.read_text())
  path.write_text(json.dumps(summary | {'checkpoint_step': 1}))
  copied_plan = plan.Plan(copied, config, found.source, found.folds)
  assert copied_plan.finished(0)
  assert not copied_plan.finished(1)


@pytest.mark.parametrize(
  ('field', 'value'), [('data.folds', 2), ('train.learning_rate', 0.5)]
)
def test_a_change_is_refused_by_name(root, config, field, value):
  changed = copy.deepcopy(config)
  part, name = field.split('.')
  setattr(getattr(changed, part), name, value)
  with pytest.raises(errors.InputError, match=field):
    plan.prepare(changed, root)


def test_a_fold_of_other_images_is_refused(root, config, tmp_path):
  shutil.copytree(root, tmp_path / 'copy')
  swapped = tmp_path / 'copy'
  shutil.rmtree(swapped / 'fold_1')
  shutil.copytree(root / 'fold_0', swapped / 'fold_1')
  with pytest.raises(errors.InputError, match=r'data\.fold'):
    pooled.write(plan.prepare(config, swapped))


def test_the_assertions_can_fail(config):
  source = catalog.open_source(config.data)
  ids = source.image_ids
  with pytest.raises(AssertionError):
    plan.check_once(source, [ids, ids[:1]])
  with pytest.raises(AssertionError):
    plan.check_once(source, [ids[1:]])


def test_measurements_survive_the_file(root):
  read = result_files.read_measurements(root, 'validation')
  rows = _per_image(root)
  assert read.image_ids == [row['image_id'] for row in rows]
  assert read.counts['tp'].tolist() == [int(row['tp']) for row in rows]
  assert read.native_counts is not None


def test_the_folder_is_an_ensemble_of_its_folds(root, tmp_path):
  # Lesion-like noise whose size is not that of the networks.
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (6, 9, 3), np.uint8)
  Image.fromarray(pixels).resize((45, 37)).save(tmp_path / 'x.png')

  def grey(name, *folders):
    flags = ['--input', tmp_path / 'x.png', '--output', tmp_path / name]
    argv = ['p', '--workdir', *folders, *flags, '--probability']
    predict.main([str(word) for word in argv])
    return np.asarray(Image.open(tmp_path / name / 'probability/x.png'))

  members = [root / f'fold_{fold}' for fold in range(_FOLDS)]
  alone = [grey(f'm{i}', folder) for i, folder in enumerate(members)]
  together = grey('together', *members)
  assert together.shape == (37, 45)
  # Grey values of members are rounded: by at most half a step each.
  assert np.abs(together - np.mean(alone, axis=0)).max() <= 1.0
  assert np.array_equal(together, grey('root', root))
  found = skinseg_jax.load(root).predict(tmp_path / 'x.png')
  assert np.abs(together - 255 * found.probability).max() < 0.51


def test_too_many_folds_name_the_most(config, tmp_path):
  many = copy.deepcopy(config)
  many.data.folds = 1000
  with pytest.raises(errors.InputError, match='--folds 2 to'):
    plan.prepare(many, tmp_path / 'new')


def test_images_without_lesions_are_refused(config, tmp_path, monkeypatch):
  source = catalog.open_source(config.data)
  source.metadata = [{**row, 'lesion_id': ''} for row in source.metadata]
  monkeypatch.setattr(catalog, 'open_source', lambda *args, **flags: source)
  with pytest.raises(errors.InputError, match='split=random'):
    plan.prepare(config, tmp_path / 'new')
  by_image = copy.deepcopy(config)
  by_image.data.split = 'random'  # The remedy works.
  plan.prepare(by_image, tmp_path / 'new')


def test_a_folder_with_other_things_is_refused(config, tmp_path):
  (tmp_path / 'thesis.txt').write_text('mine')
  with pytest.raises(errors.InputError, match=r'thesis\.txt'):
    plan.prepare(config, tmp_path)


def test_a_split_file_is_refused(config):
  given = copy.deepcopy(config)
  given.data.split = 'mine.csv'
  with pytest.raises(errors.InputError, match='split=lesion'):
    plan.first_config(given, 2)
