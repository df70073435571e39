"""Several models: each as it is alone, then the mean of their probabilities."""

import copy
import json
import pathlib
import re

import fake_model
import numpy as np
import predict_cases as cases
import pytest
from PIL import Image

import skinseg_jax
from skinseg_jax import config as config_lib
from skinseg_jax import predict
from skinseg_jax.data import preprocessing
from skinseg_jax.inference import forward_pass, predictor, trained_model
from skinseg_jax.runtime import errors
from skinseg_jax.weights import ensemble_folder

# By the names of their folders: input size, and what is added to the logits.
_MEMBERS = {'a': ((64, 96), 2.0), 'b': ((64, 96), -1.5), 'c': ((32, 48), 0.5)}


@pytest.fixture
def members(monkeypatch, tmp_path):
  """Dark is lesion for all of them, but each has another threshold of grey."""
  base = fake_model.make(monkeypatch, tmp_path / 'data')
  models = {}
  for name, (size, bias) in _MEMBERS.items():
    config = copy.deepcopy(base.config)
    config.data.image_size = size
    models[name] = trained_model.TrainedModel(
      config, None, {'bias': np.float32(bias)}, 10, None
    )
  monkeypatch.setattr(
    forward_pass,
    'each_view',
    lambda graph, state, x, *, views: forward_pass.of_views(
      lambda x: fake_model.answer(x, state['bias']), x, views
    ),
  )
  load = lambda folder, checkpoint: models[folder.name]
  monkeypatch.setattr(trained_model, 'load', load)
  read = lambda path: models[path.parent.name].config
  monkeypatch.setattr(config_lib, 'load', read)
  return models


@pytest.fixture
def folder(tmp_path):
  """Pictures of different sizes, with all shades of grey."""
  (tmp_path / 'in').mkdir()
  for i in range(3):
    y, x = np.mgrid[: 50 + 10 * i, :70]
    grey = 128 + 90 * np.sin(y / 11 + i) * np.cos(x / 13)
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / f'in/{i}.png')
  return tmp_path / 'in'


def _run(folder, out, names, *flags):
  paths = ['--input', folder, '--output', out, '--workdir', *names]
  return cases.run(*paths, *flags, '--probability')


def _grey(out):
  return [
    np.asarray(Image.open(out / f'probability/{i}.png')).astype(float)
    for i in range(3)
  ]


@pytest.mark.parametrize(
  ('names', 'tolerance'),
  # Grey values are rounded, by at most half each. The small member's
  # probabilities are resized twice, which moves them by a little more.
  [(['a', 'b'], 1.0), (['a', 'c', 'b'], 4.0)],
)
@pytest.mark.parametrize('flags', [[], ['--tiles', '40']])
def test_the_mean_of_what_each_says_alone(
  members, folder, tmp_path, names, tolerance, flags
):
  alone = []
  for name in names:
    assert _run(folder, tmp_path / name, [name], *flags) == 0
    alone.append(_grey(tmp_path / name))
  assert _run(folder, tmp_path / 'all', names, *flags) == 0
  for i, found in enumerate(_grey(tmp_path / 'all')):
    expected = np.mean([each[i] for each in alone], axis=0)
    assert np.abs(found - expected).max() <= tolerance
    assert np.abs(found - alone[0][i]).max() > 20  # They do differ.
    mask = cases.read(tmp_path / f'all/{i}.png') > 0
    unsure = np.abs(found - 127.5) <= 1
    assert np.array_equal(mask[~unsure], (found > 127.5)[~unsure])


def test_each_member_sees_the_picture_at_its_own_size(members, monkeypatch):
  picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
  seen = []
  forward = forward_pass.each_view

  def watch(graph, state, images, *, views):
    seen.append(np.asarray(images))
    return forward(graph, state, images, views=views)

  monkeypatch.setattr(forward_pass, 'each_view', watch)
  model = trained_model.ensemble([members['c'], members['a']])
  assert model.config.data.image_size == (64, 96)
  parts = [predictor.resize(model, picture)]
  (found,) = predictor.answers(model, parts, 2)
  assert found.probability.shape == (64, 96)
  assert found.features is None
  resized = {
    size: preprocessing.resize_image(picture, size)
    for size in ((32, 48), (64, 96))
  }
  assert sorted(images.shape for images in seen) == [
    (2, 32, 48, 3),
    (2, 64, 96, 3),
  ]
  for images in seen:
    np.testing.assert_array_equal(images[0], resized[images.shape[1:3]])
  # By hand: the large member's probabilities, and the small one's, enlarged.
  small, large = (
    1 / (1 + np.exp(-(fake_model.logits(resized[size])[..., 0] + bias)))
    for size, bias in (((32, 48), 0.5), ((64, 96), 2.0))
  )
  enlarged = preprocessing.resize_probability(small, (64, 96))
  np.testing.assert_allclose(
    found.probability, (enlarged + large) / 2, atol=1e-6
  )


def test_the_same_models_resume_in_any_order(members, folder, tmp_path, capsys):
  out = tmp_path / 'out'
  assert _run(folder, out, 'abc') == 0
  assert 'wrote 3 masks' in (printed := capsys.readouterr().out)
  assert 'mean of 3 models' in printed
  before = {path: path.read_bytes() for path in out.rglob('*.png')}
  for path in (out / '1.png', out / 'probability/1.png'):
    path.unlink()
  assert _run(folder, out, 'cab') == 0
  assert 'wrote 1 masks' in capsys.readouterr().out
  assert {path: path.read_bytes() for path in out.rglob('*.png')} == before


@pytest.mark.parametrize('others', ['a', 'ac', 'abc'])
def test_resuming_with_other_members_is_refused(
  members, folder, tmp_path, capsys, others
):
  out = tmp_path / 'out'
  assert _run(folder, out, 'ab') == 0
  capsys.readouterr()
  assert _run(folder, out, others) == 2
  message = capsys.readouterr().err
  assert '  model: ' in message
  assert _run(folder, out, others, '--overwrite') == 0  # The remedy.


@pytest.mark.parametrize(
  ('field', 'value'),
  [('test_time_augmentation', 'flips'), ('image_size', (32, 48))],
)
def test_a_member_that_predicts_otherwise_is_another(members, field, value):
  model = trained_model.ensemble([members['a'], members['b']])
  changed = copy.deepcopy(members['b'].config)
  part = changed.data if field == 'image_size' else changed.evaluation
  setattr(part, field, value)
  other = trained_model.TrainedModel(
    changed, None, members['b'].state, 10, None
  )
  again = trained_model.ensemble([members['a'], other])
  assert again.fingerprint() != model.fingerprint()


def test_cleaning_follows_the_mean(members, tmp_path):
  # A grey that member a calls lesion and b skin: 2 - 1.5 + 2 * logit > 0.
  image = np.full((64, 96, 3), 236, np.uint8)
  image[10:50, 20:70] = 128
  image[25:30, 40:50] = 236  # A hole.
  Image.fromarray(image).save(tmp_path / 'x.png')
  flags = ('--input', tmp_path / 'x.png', '--workdir', 'a', 'b')
  assert cases.run(*flags, '--output', tmp_path / 'o', '--fill_holes') == 0
  mask = cases.read(tmp_path / 'o/x.png') > 0
  expected = np.zeros((64, 96), bool)
  expected[10:50, 20:70] = True
  np.testing.assert_array_equal(mask, expected)


def test_different_thresholds_are_refused(members, folder, tmp_path, capsys):
  members['b'].config.evaluation.threshold = 0.25
  assert _run(folder, tmp_path / 'out', 'ab') == 2
  assert 'these have 0.25, 0.5' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()
  assert _run(folder, tmp_path / 'out', 'ac') == 0


def test_several_folders_beside_a_method_are_refused(capsys):
  flags = ['--input', 'x', '--output', 'y', '--workdir', 'a', 'b']
  assert '--workdir' in cases.end(capsys, *flags, '--method', 'edges')


def test_a_folder_that_names_its_members(tmp_path):
  home = tmp_path / 'home'
  home.mkdir()
  file = home / ensemble_folder.FILE
  file.write_text(json.dumps({'members': ['fold_0', 'fold_1']}))
  names = [home / 'fold_0', home / 'fold_1']
  other = tmp_path / 'other'
  assert ensemble_folder.members([other, home]) == [other, *names]
  with pytest.raises(errors.InputError, match='twice'):
    ensemble_folder.members([home, tmp_path / 'home/fold_1'])
  for text in ('{', '{"members": []}', '{"members": [1]}', '[]', '{}'):
    file.write_text(text)
    with pytest.raises(errors.InputError, match=r'ensemble\.json is damaged'):
      ensemble_folder.members([home])
  with pytest.raises(errors.InputError, match=r'model as folder\.$') as caught:
    skinseg_jax.load(home)
  # What it says to write can be read.
  text = re.search(r'\{"members".*?\}', str(caught.value)).group()
  file.write_text(text)
  assert ensemble_folder.members([home]) == names
  file.write_text(json.dumps({'members': ['fold_0', 'fold_0']}))
  with pytest.raises(errors.InputError, match='^folder names a model twice'):
    skinseg_jax.load(home)


def test_no_folder_is_the_model_of_the_package(
  members, folder, tmp_path, monkeypatch, capsys
):
  from skinseg_jax.weights import shared_model

  monkeypatch.setattr(shared_model, 'SHIPPED', pathlib.Path('a'))
  flags = ['predict', '--input', str(folder), '--output', str(tmp_path / 'o')]
  predict.main(flags)
  assert 'using the model that comes with' in capsys.readouterr().out
  assert _run(folder, tmp_path / 'a', 'a') == 0
  expected = cases.read(tmp_path / 'a/0.png')
  np.testing.assert_array_equal(cases.read(tmp_path / 'o/0.png'), expected)
