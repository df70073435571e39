"""From a run to expected Dice in the table of predictions."""

import csv
import json
import shlex
import shutil
from typing import ClassVar

import numpy as np
import predict_cases as cases
import pytest
from PIL import Image

import skinseg_jax
from skinseg_jax import calibrate_review, export
from skinseg_jax.quality import expected_dice, features, review
from skinseg_jax.run import review_file
from skinseg_jax.runtime import errors
from skinseg_jax.weights import shared_model


def _rows(out):
  with (out / 'predictions.csv').open(newline='') as file:
    return list(csv.DictReader(file))


@pytest.fixture
def folder(tiny_run, tmp_path, monkeypatch):
  """A copy of a run, calibrated on its seven validation images."""
  workdir = tmp_path / 'run'
  shutil.copytree(tiny_run[0], workdir)
  monkeypatch.setattr(expected_dice, 'LEAST', 5)
  monkeypatch.setattr(features, 'LEAST', 5)
  calibrate_review.main(['calibrate_review', f'--workdir={workdir}'])
  return workdir


def change_model(folder, **change):
  content = json.loads((folder / 'review.json').read_text())
  content['model'] |= change
  (folder / 'review.json').write_text(json.dumps(content))


def _typed(line):
  """The words of the command at the end of a message."""
  command = line[line.index('skinseg_jax.calibrate_review') :].split(';')[0]
  return shlex.split(command.strip())


def test_it_compares_with_the_scores_of_the_run(tiny_run):
  workdir, _ = tiny_run
  found = calibrate_review.examine(workdir, 'last')
  with (workdir / 'evaluation/validation/per_image.csv').open() as file:
    scores = [float(row['dice']) for row in csv.DictReader(file)]
  assert len(found.signs) == len(found.features) == 7
  assert found.dice == pytest.approx(scores, abs=1e-5)


def test_the_table_has_the_expected_dice(folder, tmp_path, capsys):
  from skinseg_jax import predict

  path = tmp_path / 'x.png'
  Image.fromarray(cases.picture(40, 60)[0]).save(path)
  out = tmp_path / 'out'
  flags = [f'--workdir={folder}', f'--input={path}', f'--output={out}']
  predict.main(['predict', *flags])
  (row,) = _rows(out)
  assert 0 <= float(row['expected_dice']) <= 1
  # Python gives the same.
  found = skinseg_jax.load(folder).predict(path)
  assert float(row['expected_dice']) == pytest.approx(
    found.expected_dice, abs=1e-4
  )
  assert row['needs_review'] == str(int(found.needs_review))
  assert row['reasons'] == '; '.join(found.reasons)
  assert 'not noticed' not in capsys.readouterr().out
  # Another calibration is not mixed in.
  (folder / 'review.json').unlink()
  with pytest.raises(errors.InputError, match='review: '):
    predict.main(['predict', *flags])
  (line,) = [
    line
    for line in capsys.readouterr().out.splitlines()
    if line.startswith('no review.json')
  ]
  assert 'unlike the training images are not noticed' in line
  argv = _typed(line)
  calibrate_review.main(argv)
  assert (folder / 'review.json').is_file()


def test_tiles_have_no_expected_dice_and_cleaning_is_noted(
  folder, tmp_path, capsys
):
  from skinseg_jax import predict

  path = tmp_path / 'x.png'
  Image.fromarray(cases.picture(40, 60)[0]).save(path)
  found = {}
  for name, more, note in (
    ('plain', [], ''),
    ('clean', ['--fill_holes'], 'the masks before they are cleaned'),
    ('tiles', ['--tiles=32'], 'with --tiles there is no expected Dice'),
  ):
    out = tmp_path / name
    flags = [f'--workdir={folder}', f'--input={path}', f'--output={out}']
    predict.main(['predict', *flags, *more])
    (found[name],) = _rows(out)
    printed = capsys.readouterr().out
    assert note in printed
    assert ('expected Dice' in printed) == bool(note)
  assert (
    found['clean']['expected_dice'] == found['plain']['expected_dice'] != ''
  )
  assert found['tiles']['expected_dice'] == ''
  assert review.LOW not in found['tiles']['reasons']


def test_python_has_none_of_another_checkpoint_or_of_several_models(
  folder, tmp_path, capsys
):
  picture = cases.picture(40, 60)[0]
  group = tmp_path / 'group'
  group.mkdir()
  for members, expected in (([folder], float), ([folder] * 2, type(None))):
    copies = [tmp_path / f'{len(members)}_{i}' for i in range(len(members))]
    for copy in copies:
      shutil.copytree(folder, copy)
    names = [f'../{copy.name}' for copy in copies]
    (group / 'ensemble.json').write_text(json.dumps({'members': names}))
    found = skinseg_jax.load(group).predict(picture)
    assert type(found.expected_dice) is expected
  assert 'no expected Dice' not in capsys.readouterr().out
  change_model(folder, step=99)
  found = skinseg_jax.load(folder).predict(picture)
  assert found.expected_dice is None
  assert 'is for another model (step 99, not ' in capsys.readouterr().out


def test_predict_says_what_several_models_do_not_notice(
  model, tmp_path, capsys
):
  path = tmp_path / 'x.png'
  Image.fromarray(cases.picture(40, 60)[0]).save(path)
  out = tmp_path / 'out'
  flags = ('--input', path, '--output', out, '--workdir', 'run', 'other')
  assert cases.run(*flags) == 0
  assert 'several models: low expected Dice' in capsys.readouterr().out
  assert _rows(out)[0]['expected_dice'] == ''


def test_export_copies_it(folder, tmp_path):
  output = tmp_path / 'model'
  flags = [f'--workdir={folder}', '--format=huggingface', f'--output={output}']
  export.main(['export', *flags])
  copied = expected_dice.read(output)
  assert copied.fingerprint() == expected_dice.read(folder).fingerprint()
  # One of another checkpoint stays behind.
  change_model(folder, step=99)
  flags[-1] = f'--output={tmp_path / "second"}'
  export.main(['export', *flags])
  assert not (tmp_path / 'second/review.json').exists()


def test_the_exported_model_uses_it(folder, tmp_path, capsys):
  picture = cases.picture(40, 60)[0]
  found = skinseg_jax.load(folder).predict(picture)
  output = tmp_path / 'model'
  flags = [f'--workdir={folder}', '--format=huggingface', f'--output={output}']
  export.main(['export', *flags])
  # Its kernels are float16, so its weights are not quite those of the run.
  exported = skinseg_jax.load(output).predict(picture)
  assert exported.expected_dice == pytest.approx(found.expected_dice, abs=0.01)
  assert 'no expected Dice' not in capsys.readouterr().out


def test_the_remedy_for_a_shared_model_works(
  folder, tiny_run, tmp_path, capsys
):
  from skinseg_jax import predict

  output = tmp_path / 'a model'
  flags = [f'--workdir={folder}', '--format=huggingface', f'--output={output}']
  export.main(['export', *flags])
  change_model(output, weights='0' * 64)
  picture = cases.picture(40, 60)[0]
  Image.fromarray(picture).save(tmp_path / 'x.png')

  def repaired():
    argv = _typed(capsys.readouterr().out)
    assert argv[-1] == 'RUN'
    calibrate_review.main([*argv[:-1], str(tiny_run[0])])
    assert skinseg_jax.load(output).predict(picture).expected_dice is not None

  capsys.readouterr()
  assert skinseg_jax.load(output).predict(picture).expected_dice is None
  repaired()
  (output / 'review.json').unlink()
  capsys.readouterr()
  flags = [f'--workdir={output}', f'--input={tmp_path / "x.png"}']
  predict.main(['predict', *flags, f'--output={tmp_path / "out"}'])
  repaired()


def test_the_remedy_for_a_damaged_file_works(folder):
  (folder / 'review.json').write_text('[1, 2')
  with pytest.raises(errors.InputError, match='is damaged') as caught:
    skinseg_jax.load(folder)
  calibrate_review.main(_typed(str(caught.value)))
  picture = cases.picture(40, 60)[0]
  assert skinseg_jax.load(folder).predict(picture).expected_dice is not None


def test_a_file_of_another_version_is_left_out(folder, capsys):
  content = json.loads((folder / 'review.json').read_text())
  (folder / 'review.json').write_text(json.dumps({**content, 'version': 2}))
  picture = cases.picture(40, 60)[0]
  assert skinseg_jax.load(folder).predict(picture).expected_dice is None
  line = capsys.readouterr().out
  assert 'of version 2' in line
  calibrate_review.main(_typed(line))
  assert skinseg_jax.load(folder).predict(picture).expected_dice is not None


@pytest.mark.parametrize(
  ('shipped', 'remedy'),
  [(False, 'get the folder again.'), (True, 'install skinseg_jax again.')],
)
def test_the_remedy_for_a_damaged_file_of_a_shared_model(
  tmp_path, monkeypatch, shipped, remedy
):
  folder = tmp_path / 'model'
  shutil.copytree(shared_model.SHIPPED, folder)
  (folder / 'review.json').write_text('')
  if shipped:
    monkeypatch.setattr(shared_model, 'SHIPPED', folder)
  with pytest.raises(errors.InputError) as caught:
    skinseg_jax.load(folder)
  assert str(caught.value).endswith(remedy)


def test_a_run_with_few_validation_images_needs_others(
  folder, tiny_run, monkeypatch, capsys
):
  monkeypatch.setattr(expected_dice, 'LEAST', 8)
  words = _typed(review_file.command(folder, 10))
  assert words[-2:] == ['--runs', 'RUN']
  both = [str(folder), str(tiny_run[0])]
  monkeypatch.setattr(features, 'LEAST', 15)
  calibrate_review.main([*words[:-1], *both])
  found = expected_dice.read(folder)
  assert (found.images, found.features) == (14, None)
  said = 'unusual features are not noticed: 14 images are fewer than 15'
  assert said in capsys.readouterr().out


def test_features_are_those_of_the_network_of_the_folder(
  folder, tiny_run, tmp_path
):
  own = expected_dice.read(folder)
  output = tmp_path / 'model'
  flags = [f'--workdir={folder}', '--format=huggingface', f'--output={output}']
  export.main(['export', *flags])
  flags = [f'--workdir={output}', f'--runs={tiny_run[0]}']
  calibrate_review.main(['calibrate_review', *flags])
  again = expected_dice.read(output)
  # Its kernels are float16, so it sees nearly the same.
  np.testing.assert_allclose(again.features.mean, own.features.mean, rtol=0.01)
  assert not np.array_equal(again.features.mean, own.features.mean)
  np.testing.assert_array_equal(again.weights, own.weights)


def test_another_model_of_the_same_step_has_no_expected_dice(folder, capsys):
  picture = cases.picture(40, 60)[0]
  path = folder / 'config.json'
  before = path.read_text()
  for section, field, value, differs in (
    ('evaluation', 'threshold', 0.3, 'threshold 0.5, not 0.3'),
    ('evaluation', 'test_time_augmentation', 'flips', 'views off, not flips'),
    ('data', 'image_size', [64, 96], ', not [64, 96]'),
  ):
    config = json.loads(before)
    config[section][field] = value
    path.write_text(json.dumps(config))
    assert skinseg_jax.load(folder).predict(picture).expected_dice is None
    line = capsys.readouterr().out
    assert differs in line
    assert f'calibrate_review --workdir {folder} --checkpoint ' in line
  path.write_text(before)
  assert skinseg_jax.load(folder).predict(picture).expected_dice is not None
  change_model(folder, weights='0' * 64)
  assert skinseg_jax.load(folder).predict(picture).expected_dice is None
  assert '(other weights)' in capsys.readouterr().out


def test_few_images_are_refused(tiny_run):
  workdir, _ = tiny_run
  with pytest.raises(errors.InputError, match='7 images are too few'):
    calibrate_review.main(['calibrate_review', f'--workdir={workdir}'])
  assert not (workdir / 'review.json').exists()


def test_every_run_is_checked_first(tiny_run, tmp_path):
  workdir, _ = tiny_run
  with pytest.raises(errors.InputError, match='nowhere'):
    calibrate_review.main(
      ['calibrate_review', f'--workdir={workdir}', '--runs', str(workdir),
       str(tmp_path / 'nowhere')],
    )  # fmt: skip


def test_runs_that_predict_in_another_way_are_refused(tiny_run, tmp_path):
  workdir, _ = tiny_run
  config = json.loads((workdir / 'config.json').read_text())
  width = config['model']['width']
  config['model'] |= {'width': 2 * width, 'encoder_weights': 'imagenet'}
  config['data']['image_size'] = [64, 96]
  config['evaluation'] |= {'threshold': 0.3, 'test_time_augmentation': 'flips'}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  argv = ['calibrate_review', f'--workdir={workdir}', '--runs']
  with pytest.raises(errors.InputError) as caught:
    calibrate_review.main([*argv, str(workdir), str(tmp_path)])
  _, *lines = str(caught.value).splitlines()
  assert lines == [
    f'  {tmp_path}: {line}'
    for line in (
      f'model.width is {2 * width}, not {width}',
      'data.image_size is (64, 96), not (32, 32)',
      'evaluation.test_time_augmentation is flips, not off',
      'evaluation.threshold is 0.3, not 0.5',
    )
  ]


@pytest.fixture
def model(monkeypatch, tmp_path):
  return cases.make_model(monkeypatch, tmp_path)


def test_pictures_that_need_a_review_without_a_calibration(model, tmp_path):
  source = tmp_path / 'in'
  source.mkdir()
  black = np.zeros((60, 80, 3), np.uint8)
  Image.fromarray(black).save(source / 'black.png')
  Image.fromarray(black + 255).save(source / 'white.png')
  out = tmp_path / 'out'
  assert cases.run('--input', source, '--output', out) == 0
  rows = {row['image_id']: row for row in _rows(out)}
  assert {row['expected_dice'] for row in rows.values()} == {''}
  assert {row['needs_review'] for row in rows.values()} == {'1'}
  assert review.DARK in rows['black']['reasons']
  assert review.NOTHING in rows['white']['reasons']


@pytest.mark.parametrize('tiles', [(), ('--tiles', '64')])
def test_uncertainty_is_the_entropy_with_16_bits(model, tmp_path, tiles):
  path = tmp_path / 'x.png'
  grey = np.tile(np.linspace(60, 200, 160).astype(np.uint8), (120, 1))
  Image.fromarray(grey).save(path)
  out = tmp_path / 'out'
  flags = ('--uncertainty', '--probability', *tiles)
  assert cases.run('--input', path, '--output', out, *flags) == 0
  with Image.open(out / 'uncertainty/x.png') as image:
    assert image.mode == 'I;16'
    found = np.asarray(image) / 65535
  p = np.asarray(Image.open(out / 'probability/x.png')) / 255
  clipped = p.clip(1e-9, 1 - 1e-9)
  expected = -p * np.log2(clipped) - (1 - p) * np.log2(1 - clipped)
  sure = np.minimum(p, 1 - p) > 0.1  # Elsewhere 8 bits say too little.
  np.testing.assert_allclose(found[sure], expected[sure], atol=0.01)
  # Not 8 bits that were stretched.
  assert (np.round(found * 65535) % 257 != 0).mean() > 0.9


def test_a_calibration_of_another_step_is_left_out(
  model, tmp_path, monkeypatch, capsys
):
  class Other:
    model: ClassVar = {}

  monkeypatch.setattr(expected_dice, 'read', lambda folder: Other())
  path = tmp_path / 'x.png'
  Image.fromarray(cases.picture(40, 60)[0]).save(path)
  assert cases.run('--input', path, '--output', tmp_path / 'out') == 0
  assert 'no expected Dice' in capsys.readouterr().out
  assert _rows(tmp_path / 'out')[0]['expected_dice'] == ''
