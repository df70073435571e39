import json

import fake_evaluation
import numpy as np
import pytest

from skinseg_jax.evaluation import result_files
from skinseg_jax.runtime import errors


@pytest.fixture
def run(tmp_path):
  workdir = tmp_path / 'run'
  return workdir, fake_evaluation.write_run(
    workdir, num_images=6, size=(16, 32)
  )


def test_reads_what_was_scored(run):
  workdir, data = run
  evaluation = result_files.read(workdir, 'validation')
  assert evaluation.image_ids == data.image_ids
  assert evaluation.home == workdir
  for i, truth in enumerate(data.masks):
    predicted = evaluation.prediction(i)
    assert predicted.shape == (16, 32)
    # The unpacked masks give the counts in the csv file.
    tp, fp = np.sum(predicted & truth), np.sum(predicted & ~truth & 1)
    assert evaluation.column('tp')[i] == tp
    assert evaluation.column('fp')[i] == fp
  iou = evaluation.column('iou')[evaluation.ranked()]
  assert list(iou) == sorted(iou)


def test_pixels_that_fill_no_whole_byte(tmp_path):
  masks = np.random.default_rng(0).integers(0, 2, (2, 3, 5), np.uint8)
  evaluation = result_files.Evaluation(
    name='validation',
    home=tmp_path,
    summary={'image_size': [3, 5]},
    rows=[],
    subgroups={},
    failures=[],
    packed=np.packbits(masks.reshape(2, -1), axis=1),
  )
  np.testing.assert_array_equal(evaluation.prediction(1), masks[1])


@pytest.mark.parametrize(
  'name',
  [
    'summary.json',
    'per_image.csv',
    'predictions.npz',
    'subgroups.json',
    'failures.json',
  ],
)
@pytest.mark.parametrize('harm', ['missing', 'cut'])
def test_what_is_not_whole_is_refused(run, name, harm):
  workdir, _ = run
  path = workdir / 'evaluation' / 'validation' / name
  if harm == 'missing':
    path.unlink()
  else:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(errors.InputError, match='skinseg_jax.evaluate'):
    result_files.read(workdir, 'validation')


def test_files_of_two_evaluations_are_refused(run):
  workdir, _ = run
  path = workdir / 'evaluation' / 'validation' / 'per_image.csv'
  lines = path.read_text().splitlines(keepends=True)
  path.write_text(''.join([lines[0], lines[2], lines[1], *lines[3:]]))
  with pytest.raises(errors.InputError, match='list different images'):
    result_files.read(workdir, 'validation')


def test_other_evaluations_have_a_home_of_their_own(tmp_path):
  fake_evaluation.write_run(tmp_path, name='train', num_images=4, size=(16, 16))
  evaluation = result_files.read(tmp_path, 'train')
  assert evaluation.home == tmp_path / 'evaluation' / 'train'
  assert json.loads((evaluation.home / 'summary.json').read_text())
