import importlib.util
import json
import pathlib

import pytest

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.runtime import errors

_CONFIGS = sorted((pathlib.Path(__file__).parents[1] / 'configs').glob('*.py'))


def _get_config(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


@pytest.mark.parametrize('path', _CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_names_its_command(path):
  config_rules.validate(_get_config(path))
  command = f'python -m skinseg_jax.main --config configs/{path.name}'
  assert command in path.read_text()


def test_the_papers_config_is_the_papers_recipe():
  (path,) = (p for p in _CONFIGS if p.stem == 'ham10000_paper')
  values = config_lib.flat(_get_config(path))
  assert {
    name: values[name]
    for name in (
      'data.image_size',
      'data.split',
      'model.width',
      'train.batch_size',
      'train.epochs',
      'train.learning_rate',
      'augmentation.horizontal_flip',
      'augmentation.vertical_flip',
      'evaluation.threshold',
      'train.optimizer',
      'train.schedule',
      'train.loss',
      'train.ema',
      'evaluation.test_time_augmentation',
    )
  } == {
    'data.image_size': (224, 224),
    'data.split': 'paper',
    'model.width': 64,
    'train.batch_size': 32,
    'train.epochs': 20,
    'train.learning_rate': 1e-3,
    'augmentation.horizontal_flip': 0.5,
    'augmentation.vertical_flip': 0.1,
    'evaluation.threshold': 0.5,
    'train.optimizer': 'adam',
    'train.schedule': 'constant',
    'train.loss': 'bce',
    'train.ema': 0.0,
    'evaluation.test_time_augmentation': 'off',
  }
  # Everything that the paper does not use is off.
  papers = ('rotation_degrees', 'border', 'horizontal_flip', 'vertical_flip')
  assert not any(
    value
    for name, value in values.items()
    if name.startswith('augmentation.') and name.split('.')[1] not in papers
  )
  assert values['train.border_smoothing'] == values['train.weight_decay'] == 0


def test_json_round_trip():
  config = config_lib.Config()
  config.data.image_size = (32, 48)
  text = json.dumps(config_lib.to_dict(config))
  assert config_lib.from_dict(json.loads(text)) == config


def test_equal_configs_hash_alike_and_differing_ones_do_not():
  one, two = config_lib.Config(), config_lib.Config()
  assert hash(one) == hash(two)
  two.augmentation.rotation_degrees = 1.0
  assert one != two


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('data.image_size', (224, 100), r'\(224, 96\)'),
    ('data.image_size', 224, '2 integers'),
    ('data.source', 'isic', "'ham10000' or 'folder' or 'synthetic'"),
    ('data.split', 'paper', "'paper' requires data.source 'ham10000'"),
    ('data.folds', 1, 'at least 2'),
    ('data.fold', 5, '0 to data.folds - 1'),
    ('data.validation_fraction', 1.0, r'\(0, 1\)'),
    ('model.compute_dtype', 'float16', "'float32' or 'bfloat16'"),
    ('train.batch_size', 0, 'at least 1'),
    ('train.epochs', 2.5, 'allowed: type int'),
    ('train.learning_rate', -1.0, 'above 0'),
    ('train.learning_rate', float('inf'), 'finite'),
    ('augmentation.horizontal_flip', 1.5, '0 to 1'),
    ('augmentation.hue_degrees', -1.0, '0 to 180'),
    ('augmentation.blur', 3.0, '0 or 0.2 to 2'),
    # Cut at three standard deviations, the Gaussian would be a single pixel.
    ('augmentation.blur', 0.1, '0 or 0.2 to 2'),
    ('train.border_smoothing', 0.1, '0 or 0.2 to 4'),
    ('train.loss', 'dice', "'bce' or 'bce_dice' or 'focal_tversky'"),
    ('train.optimizer', 'sgd', "'adam' or 'adamw'"),
    ('train.schedule', 'step', "'constant' or 'cosine'"),
    ('train.warmup', 0.9, '0 to 0.5'),
    ('train.warmup', 0.1, "other values require train.schedule 'cosine'"),
    ('train.weight_decay', 0.1, "other values require train.optimizer 'adamw'"),
    ('train.ema', 1.0, 'below 1'),
    ('evaluation.test_time_augmentation', 'all', "'off' or 'flips'"),
    ('evaluation.threshold', 0.0, r'\(0, 1\)'),
  ],
)
def test_what_does_not_fit_is_refused(field, value, message):
  config = config_lib.Config()
  config.data.source = 'synthetic'
  section, name = field.split('.')
  setattr(getattr(config, section), name, value)
  with pytest.raises(errors.InputError, match=message) as caught:
    config_rules.validate(config)
  assert field in str(caught.value)


def test_quarter_turns_of_predictions_need_square_images():
  config = config_lib.Config()
  config.data.image_size = (64, 96)
  config.evaluation.test_time_augmentation = 'flips'
  config_rules.validate(config)
  config.evaluation.test_time_augmentation = 'dihedral'
  with pytest.raises(errors.InputError, match='not square'):
    config_rules.validate(config)


def test_all_problems_are_listed_at_once():
  config = config_lib.Config()
  config.train.epochs, config.model.width = 0, 0
  with pytest.raises(errors.InputError, match=r'(?s)width.*epochs'):
    config_rules.validate(config)


def test_unknown_override_names_the_nearest_field():
  with pytest.raises(errors.InputError, match='nearest: data.image_size'):
    config_lib.check_overrides(['--config.data.image_sise=(32,32)'])
  with pytest.raises(errors.InputError, match='nearest: train.epochs'):
    config_lib.check_overrides(['--config.epochs=3'])
  config_lib.check_overrides(['--config.train.epochs=3', '--workdir=x'])


def test_run_config_with_unknown_field(tmp_path):
  values = config_lib.to_dict(config_lib.Config())
  values['train']['epoch'] = 3
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(values))
  with pytest.raises(errors.InputError, match='nearest: train.epochs'):
    config_lib.load(path)


def test_missing_and_broken_run_config(tmp_path):
  with pytest.raises(errors.InputError, match='--workdir'):
    config_lib.load(tmp_path / 'config.json')
  (tmp_path / 'config.json').write_text('{')
  with pytest.raises(errors.InputError, match='is not a valid run config'):
    config_lib.load(tmp_path / 'config.json')


def test_booleans_may_be_negated_and_must_exist():
  config_lib.check_overrides(['--config.train.remat', '--noconfig.train.remat'])
  with pytest.raises(errors.InputError, match='nearest: train.remat'):
    config_lib.check_overrides(['--noconfig.train.remmat'])
