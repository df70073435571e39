"""predict, evaluate and compare with a classical method by name."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from skinseg_jax import compare, evaluate, predict
from skinseg_jax.evaluation import comparison, result_files
from skinseg_jax.runtime import errors

pytest.importorskip('cv2', reason="needs the extra 'classical'")
pytest.importorskip('skimage', reason="needs the extra 'classical'")


@pytest.fixture
def pictures(tmp_path):
  """A folder of images with a dark disc, and one of their masks."""
  y, x = np.mgrid[:60, :80]
  for name in ('images', 'masks'):
    (tmp_path / name).mkdir()
  for i in range(3):
    mask = np.hypot(y - 28, x - 36 - 4 * i) < 18
    image = np.where(mask[..., None], (120, 75, 60), (225, 180, 165))
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / f'images/p{i}.png')
    grey = 255 * mask.astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / f'masks/p{i}.png')
  return tmp_path


def _read(path):
  with Image.open(path) as image:
    return np.asarray(image) > 0


def _end(capsys, main, *flags):
  with pytest.raises(SystemExit) as end:
    errors.exit_with_message(main, ['x', *map(str, flags)])
  assert end.value.code == 2
  message = capsys.readouterr().err
  assert message.count('error: ') == 1
  return message


def test_predict_writes_the_masks_of_a_method(pictures):
  out = pictures / 'out'
  flags = ['--input', pictures / 'images', '--output', out, '--probability']
  predict.main(['x', '--method', 'otsu_blue', *map(str, flags)])
  for i in range(3):
    found, true = _read(out / f'p{i}.png'), _read(pictures / f'masks/p{i}.png')
    assert found.shape == true.shape
    assert (found & true).sum() / (found | true).sum() > 0.8
    assert _read(out / f'probability/p{i}.png').shape == (60, 80)


def test_a_method_is_scored_and_compared_with_a_run(
  tiny_run, pictures, tmp_path, capsys
):
  run = tmp_path / 'run'
  shutil.copytree(tiny_run[0], run)
  before = sorted(path.name for path in run.rglob('*'))
  home = tmp_path / 'otsu'
  flags = ['--method', 'otsu_blue', '--workdir', run, '--output', home]
  evaluate.main(['x', *map(str, flags)])
  assert sorted(path.name for path in run.rglob('*')) == before
  found = result_files.read(home, 'validation')
  assert found.image_ids == result_files.read(run, 'validation').image_ids
  # Probabilities are 0 and 1, so no threshold changes the masks.
  assert (
    len({round(dice, 12) for dice in found.summary['sweep']['dice'][1:-1]}) == 1
  )
  rows = {
    row.name: row for row in comparison.compare([run, home], 'validation')
  }
  assert rows['pooled dice'].values[1] == found.summary['pooled']['dice']
  compare.main(['x', str(run), str(home)])
  assert 'pooled dice' in capsys.readouterr().out
  about = json.loads((home / 'method.json').read_text())
  assert about['method'] == 'otsu_blue'
  other = ['--method', 'otsu_grey', '--workdir', run, '--output', home]
  assert 'give a new folder' in _end(capsys, evaluate.main, *other)


def test_a_method_is_scored_on_other_images_without_a_run(pictures):
  home = pictures / 'scores'
  flags = ['--images', pictures / 'images', '--masks', pictures / 'masks']
  flags += ['--method', 'otsu_grey', '--output', home]
  evaluate.main(['x', *map(str, flags)])
  found = result_files.read(home, 'images')
  assert found.summary['pooled']['dice'] > 0.85
  assert found.summary['image_size'] == [224, 224]


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    ('--method otsublue --output o --images i --masks m', 'nearest: otsu_blue'),
    ('--method edges --images i --masks m', '--output DIR'),
    ('--method edges --output o', '--workdir, a run'),
    ('--method edges --output o --workdir w --checkpoint 3', '--checkpoint'),
    ('--method edges --output o --workdir nowhere', 'nowhere/config.json'),
  ],
)
def test_evaluate_refuses_what_does_not_fit(capsys, flags, words):
  assert words in _end(capsys, evaluate.main, *flags.split())


def test_predict_refuses_a_model_beside_a_method(capsys):
  flags = '--method edges --workdir w --input x --output y'
  assert '--workdir' in _end(capsys, predict.main, *flags.split())
  flags = '--method gabcut --input x --output y'
  assert 'nearest: grabcut_kmeans' in _end(capsys, predict.main, *flags.split())
