"""What looks wrong with the masks is said before training, and kept."""

import copy
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from skinseg_jax import config_rules, evaluate
from skinseg_jax.data.sources import synthetic
from skinseg_jax.runtime import errors
from skinseg_jax.training import experiment


def _write(directory, change):
  """28 generated images with changed masks, as folders."""
  source = synthetic.SyntheticSource(num_images=28, size=(32, 32), seed=0)
  for name in ('images', 'masks'):
    (directory / name).mkdir(parents=True)
  for index in range(len(source)):
    example = source[index]
    name = f'{example["image_id"]}.png'
    Image.fromarray(example['image']).save(directory / 'images' / name)
    mask = change(example['mask']).astype(np.uint8)
    Image.fromarray(255 * mask).save(directory / 'masks' / name)
  return directory


@pytest.fixture
def config(tiny_config, tmp_path):
  made = copy.deepcopy(tiny_config)
  made.data.source = 'folder'
  made.data.images_dir = str(tmp_path / 'set' / 'images')
  made.data.masks_dir = str(tmp_path / 'set' / 'masks')
  return made


def _prepare(config, workdir):
  with experiment.prepared(config, workdir):
    pass
  return json.loads((workdir / 'split.json').read_text())['mask_check']


def test_inverted_masks_are_reported_and_the_remedy_works(
  config, tmp_path, capsys
):
  _write(tmp_path / 'set', lambda mask: 1 - mask)
  (found,) = _prepare(config, tmp_path / 'a')['findings']
  assert found['kind'] == 'inverted'
  err = capsys.readouterr().err
  assert 'WARNING: these masks look inverted' in err
  assert '--config.data.mask_invert=true' in err
  config.data.mask_invert = True
  config_rules.validate(config)
  assert _prepare(config, tmp_path / 'b')['findings'] == []
  assert 'WARNING' not in capsys.readouterr().err


def test_empty_masks_are_refused_before_the_run_begins(config, tmp_path):
  _write(tmp_path / 'set', np.zeros_like)
  with pytest.raises(errors.InputError, match='28 of 28 masks hold no lesion'):
    _prepare(config, tmp_path / 'run')
  assert not (tmp_path / 'run' / 'config.json').exists()


def _score(workdir, directory, *flags):
  evaluate.main([
    'evaluate', '--workdir', str(workdir), '--name', 'other',
    '--images', str(directory / 'images'),
    '--masks', str(directory / 'masks'), *flags,
  ])  # fmt: skip


def test_empty_masks_are_not_scored_and_the_remedy_works(
  tiny_run, tmp_path, capsys
):
  workdir = shutil.copytree(tiny_run[0], tmp_path / 'run')
  directory = _write(tmp_path / 'set', lambda mask: mask)
  for path in (directory / 'masks').iterdir():
    grey = np.asarray(Image.open(path)) // 4  # Up to 63.
    grey[0, 0] = 9  # A third value, so that a threshold applies.
    Image.fromarray(grey).save(path)
  words = '28 of 28 masks hold no lesion.*another --mask_threshold and --name'
  with pytest.raises(errors.InputError, match=words):
    _score(workdir, directory, '--mask_threshold', '127')
  assert not (workdir / 'evaluation' / 'other').exists()
  assert 'WARNING' not in capsys.readouterr().err  # The error says it all.
  _score(workdir, directory, '--mask_threshold', '30', '--skip_report')
  summary = workdir / 'evaluation' / 'other' / 'summary.json'
  assert json.loads(summary.read_text())['mask_check']['findings'] == []


def test_scores_carry_the_warning(tiny_run, tmp_path, capsys):
  workdir = shutil.copytree(tiny_run[0], tmp_path / 'run')
  directory = _write(tmp_path / 'set', lambda mask: 1 - mask)
  _score(workdir, directory)
  assert 'WARNING: these masks look inverted' in capsys.readouterr().err
  home = workdir / 'evaluation' / 'other'
  summary = json.loads((home / 'summary.json').read_text())
  (found,) = summary['mask_check']['findings']
  assert '--mask_invert' in found['text']
  page = (home / 'report.html').read_text()
  assert page.index('these masks look inverted') < page.index('id="scores"')
