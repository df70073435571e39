"""Messages of the comparison: doing what they say compares the runs."""

import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from skinseg_jax import compare, evaluate
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import errors

_FAST = ('--skip_report', '--skip_native_size', '--skip_training_side')


@pytest.fixture
def runs(tiny_run, tmp_path):
  """Two copies of a run that was scored on its validation images."""
  return [
    str(shutil.copytree(tiny_run[0], tmp_path / name)) for name in ('a', 'b')
  ]


@pytest.fixture
def folder(tmp_path):
  """Images and masks of 32 x 32."""
  for name in ('images', 'masks'):
    (tmp_path / name).mkdir()
  for index in range(3):
    mask = np.zeros((32, 32), np.uint8)
    mask[5 : 15 + index, 10:25] = 255
    Image.fromarray(mask).save(tmp_path / f'masks/p{index}.png')
    image = np.where(mask[..., None], 60, 200).repeat(3, axis=2)
    path = tmp_path / f'images/p{index}.png'
    Image.fromarray(image.astype(np.uint8)).save(path)
  return tmp_path


def _compare(capsys, *args):
  compare.main(['compare', *args])
  assert 'pooled dice' in capsys.readouterr().out


def _refused(action, *args) -> str:
  with pytest.raises(errors.InputError) as caught:
    action(['program', *args])
  return str(caught.value)


def _command(message, folder=None) -> list[str]:
  """The flags of the proposed command, with paths in place of words."""
  (command,) = re.findall(r'python -m skinseg_jax\.evaluate (.+)', message)
  if folder:
    command = command.replace('IMAGES', f'{folder}/images')
    command = command.replace('MASKS', f'{folder}/masks')
  return shlex.split(command)


def test_remedy_of_one_run(runs, capsys):
  assert 'give two or more' in _refused(compare.main, runs[0])
  _compare(capsys, *runs)


@pytest.mark.parametrize('split', ['validation', 'train'])
def test_remedy_of_a_run_that_is_not_scored(runs, capsys, split):
  flags = ['--split', split]
  for run in runs:
    directory = run_folder.evaluation_dir(pathlib.Path(run), split)
    shutil.rmtree(directory, ignore_errors=True)
  for _ in runs:
    message = _refused(compare.main, *runs, *flags)
    evaluate.main(['evaluate', *_command(message), *_FAST])
  _compare(capsys, *runs, *flags)


def test_remedies_of_damaged_scores_of_other_images(runs, folder, capsys):
  flags = ['--split', 'clinic']
  for _ in runs:
    message = _refused(compare.main, *runs, *flags)
    evaluate.main(['evaluate', *_command(message, folder), *_FAST])
  _compare(capsys, *runs, *flags)
  path = folder / 'b/evaluation/clinic/summary.json'
  path.write_text('{')
  again = _command(_refused(compare.main, *runs, *flags), folder)
  message = _refused(evaluate.main, *again, *_FAST)
  assert message.startswith(str(path))
  assert message.endswith('remove it to score again.')
  path.unlink()
  evaluate.main(['evaluate', *again, *_FAST])
  _compare(capsys, *runs, *flags)


def _score(run, folder, name):
  evaluate.main(
    ['evaluate', '--workdir', run, '--images', f'{folder}/images', '--masks',
     f'{folder}/masks', '--name', name, *_FAST]
  )  # fmt: skip


def test_remedy_of_other_images(runs, folder, capsys):
  _score(runs[0], folder, 'clinic')
  for name in ('images', 'masks'):
    (folder / name / 'p2.png').unlink()
  _score(runs[1], folder, 'clinic')
  message = _refused(compare.main, *runs, '--split', 'clinic')
  assert '1 images are in only one run' in message
  assert 'on the same data with python -m skinseg_jax.evaluate' in message
  for run in runs:
    _score(run, folder, 'same')
  _compare(capsys, *runs, '--split', 'same')
