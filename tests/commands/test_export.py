"""A model in a folder of its own: complete, and equal to the run's."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from skinseg_jax import compare, evaluate, export, main, predict
from skinseg_jax import config as config_lib
from skinseg_jax.inference import trained_model
from skinseg_jax.runtime import errors
from skinseg_jax.weights import model_folder

_FILES = ['README.md', 'config.json', 'model.json', 'model.safetensors']


@pytest.fixture(scope='module')
def folder(tiny_run, tmp_path_factory) -> pathlib.Path:
  workdir, _ = tiny_run
  output = tmp_path_factory.mktemp('export') / 'model'
  export.main(
    ['export', f'--workdir={workdir}', '--format=huggingface',
     f'--output={output}'],
  )  # fmt: skip
  return output


def _predict(workdir, tmp_path, name):
  output = tmp_path / name
  predict.main(
    ['predict', f'--workdir={workdir}', f'--input={tmp_path / "in"}',
     f'--output={output}', '--probability'],
  )  # fmt: skip
  return {
    path.name: np.asarray(Image.open(path)).astype(int)
    for path in (output / 'probability').iterdir()
  }


def test_it_predicts_as_the_run(tiny_run, folder, tmp_path):
  workdir, _ = tiny_run
  (tmp_path / 'in').mkdir()
  rng = np.random.default_rng(0)
  for name in 'ab':
    picture = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / 'in' / f'{name}.png')
  run = _predict(workdir, tmp_path, 'run')
  shared = _predict(folder, tmp_path, 'shared')
  assert run.keys() == shared.keys()
  for name, probability in run.items():
    assert np.abs(probability - shared[name]).max() <= 2


def test_kernels_are_rounded_to_float16_and_nothing_else(tiny_run, folder):
  workdir, _ = tiny_run
  run, shared = (trained_model.load(w, 'last') for w in (workdir, folder))
  assert run.step == shared.step
  values, read = (jax.tree.leaves(model.state) for model in (run, shared))
  for expected, found in zip(values, read, strict=True):
    if expected.ndim > 1:
      expected = expected.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found, expected)


def test_it_holds_no_path_of_this_machine(tiny_run, folder):
  workdir, _ = tiny_run
  config = config_lib.load(workdir / 'config.json')
  for path in folder.iterdir():
    data = path.read_bytes()
    assert config.data.data_dir.encode() not in data
    assert str(workdir).encode() not in data


def test_the_card_is_what_the_hub_expects(tiny_run, folder):
  hub = pytest.importorskip('huggingface_hub')
  card = hub.ModelCard.load(folder / 'README.md')
  assert card.data.license == 'apache-2.0'
  _, summary = tiny_run
  results = {
    result.metric_name: result.metric_value for result in card.data.eval_results
  }
  pooled = summary['pooled']['dice']
  assert results['Dice, pooled over all pixels'] == pytest.approx(
    pooled, abs=1e-4
  )
  # And written again, the head is the same.
  again = hub.ModelCard(str(card))
  assert again.data.to_dict() == card.data.to_dict()


def test_it_scores_other_images(folder, tmp_path, capsys):
  for name in ('images', 'masks'):
    (tmp_path / name).mkdir()
  mask = np.zeros((40, 40), np.uint8)
  mask[10:30, 10:30] = 255
  for i in range(3):
    Image.fromarray(255 - mask // 2).convert('RGB').save(
      tmp_path / 'images' / f'{i}.png'
    )
    Image.fromarray(mask).save(tmp_path / 'masks' / f'{i}.png')
  evaluate.main(
    ['evaluate', f'--workdir={folder}', f'--images={tmp_path / "images"}',
     f'--masks={tmp_path / "masks"}', f'--output={tmp_path / "scores"}'],
  )  # fmt: skip
  assert '3 images' in capsys.readouterr().out
  home = tmp_path / 'scores' / 'evaluation' / 'images'
  assert (home / 'report.html').exists()
  summary = json.loads((home / 'summary.json').read_text())
  # Both come with the model: its run is not needed.
  assert summary['operating_point']['chosen_on'] == 'train'
  assert summary['shift']['training']
  assert sorted(path.name for path in folder.iterdir()) == _FILES


def _lower_threshold(config):
  text = config.read_text()
  assert '"threshold": 0.5' in text
  config.write_text(text.replace('"threshold": 0.5', '"threshold": 0.1'))


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda path: (path / 'model.safetensors').unlink(), 'is missing'),
    (lambda path: (path / 'model.json').unlink(), 'is missing'),
    (
      lambda path: _lower_threshold(path / 'config.json'),
      'config.json is missing or has changed',
    ),
    (
      lambda path: (path / 'model.safetensors').write_bytes(b'0' * 100),
      'is missing or not the file',
    ),
    (lambda path: (path / 'model.json').write_text('{}'), 'is damaged'),
  ],
)
def test_a_damaged_folder_is_refused(folder, tmp_path, damage, message):
  copy = shutil.copytree(folder, tmp_path / 'copy')
  damage(copy)
  with pytest.raises(
    errors.InputError, match=f'{message}.*et the folder again'
  ):
    trained_model.load(copy, 'last')


def test_another_checkpoint_is_refused(folder):
  step = json.loads((folder / 'model.json').read_text())['step']
  for name in ('best', 'last', str(step)):
    assert trained_model.load(folder, name).step == step
  with pytest.raises(errors.InputError, match='leave --checkpoint 7 out'):
    trained_model.load(folder, '7')


def test_a_copy_of_a_model_holds_its_own_files_alone(folder, tmp_path):
  given = shutil.copytree(folder, tmp_path / 'given')
  (given / 'evaluation').mkdir()
  (given / 'evaluation' / 'patient.png').touch()
  argv = ['export', f'--workdir={given}', '--format=huggingface']
  with pytest.raises(errors.InputError, match='which is only read'):
    export.main([*argv, f'--output={given / "copy"}'])
  export.main([*argv, f'--output={tmp_path / "copy"}'])
  assert sorted(path.name for path in (tmp_path / 'copy').iterdir()) == _FILES


def test_a_folder_that_is_not_empty_is_refused(tiny_run, folder):
  workdir, _ = tiny_run
  with pytest.raises(errors.InputError, match='give a new folder as --output'):
    export.main(
      ['export', f'--workdir={workdir}', '--format=huggingface',
       f'--output={folder}'],
    )  # fmt: skip


def test_after_a_refusal_the_second_try_writes(tiny_run, tmp_path, monkeypatch):
  output = tmp_path / 'model'
  argv = ['export', f'--workdir={tiny_run[0]}', '--format=huggingface',
          f'--output={output}']  # fmt: skip

  def refuse(name, values):
    raise errors.InputError(f'{name} has weights up to 1e+06')

  with monkeypatch.context() as patch:
    patch.setattr(model_folder, '_halved', refuse)
    with pytest.raises(errors.InputError, match='weights up to'):
      export.main(argv)
  assert not list(output.iterdir())
  (output / '.partial').mkdir()  # As if killed.
  (output / '.partial/README.md').write_text('')
  export.main(argv)
  assert sorted(path.name for path in output.iterdir()) == _FILES


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--images=x', '--masks=x'], 'give --output DIR'),
    (['--output={0}/out'], 'Give --images and --masks.$'),
    (
      ['--output={0}/out', '--data_dir=x'],
      'give --images and --masks in place',
    ),
    (
      ['--output={2}/scores', '--images=x', '--masks=x'],
      'is in the folder of the model, .*, which is only read',
    ),
    (
      ['--output={0}/full', '--images=x', '--masks=x'],
      'is not empty; give a new folder',
    ),
    (
      ['--output={1}', '--images=x', '--masks=x'],
      'holds another model or its scores',
    ),
  ],
)
def test_scores_of_a_shared_model_need_a_place_and_data(
  tiny_run, folder, tmp_path, flags, message
):
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'notes.txt').write_text('')
  flags = [flag.format(tmp_path, tiny_run[0], folder) for flag in flags]
  with pytest.raises(errors.InputError, match=message):
    evaluate.main(['evaluate', f'--workdir={folder}', *flags])


@pytest.mark.parametrize('flag', ['--output', '--data_dir'])
def test_a_run_keeps_its_scores(tiny_run, tmp_path, flag):
  argv = ['evaluate', f'--workdir={tiny_run[0]}', f'{flag}={tmp_path}']
  with pytest.raises(errors.InputError, match=f'leave {flag} out'):
    evaluate.main(argv)


def test_what_needs_a_run_refuses_the_folder(tiny_run, folder):
  workdir, _ = tiny_run
  config = config_lib.load(workdir / 'config.json')
  for call in (
    lambda: compare.main(['compare', str(workdir), str(folder)]),
    lambda: main.train_and_evaluate(config, folder),
  ):
    with pytest.raises(errors.InputError, match='holds an exported model'):
      call()
