"""Allowed values of every config field.

Each rule returns rows of: field name, value, whether the value is valid, and a
description of the allowed values.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from skinseg_jax import config as config_lib
from skinseg_jax.runtime import errors

# Longest side of images in the cache, in pixels.
_MAX_SIDE = 4096
# A model of this width has about 8 billion parameters.
_MAX_WIDTH = 1024

_Row = tuple[str, Any, Any, str]


class _Network(NamedTuple):
  """What an architecture needs.

  Attributes:
    encoder: Whether it has one: 'never', 'always' or 'maybe'.
    divisor: Of height and width, where it has no encoder.
    width_step: Divisor of model.width.
  """

  encoder: str
  divisor: int = 16
  width_step: int = 1


_ALWAYS = 'fcn deeplabv3 deeplabv3plus unetplusplus fpn manet linknet pspnet'
_NETWORKS = {
  'unet': _Network('maybe'),
  'segnet': _Network('never', divisor=32),
  'attention_unet': _Network('never', width_step=2),
  'resunetplusplus': _Network('never', divisor=8, width_step=8),
  **dict.fromkeys(_ALWAYS.split(), _Network('always')),
}
# Their batch norm sees one value per image, so a batch needs two images.
_POOL_IMAGES = ('deeplabv3', 'deeplabv3plus')
_ENCODERS = (
  *(f'resnet{depth}' for depth in (18, 34, 50)),
  *(f'efficientnet_lite{size}' for size in (0, 1, 2)),
)
# Encoders halve height and width five times.
_ENCODER_DIVISOR = 32


def validate(config: config_lib.Config) -> None:
  """Checks every field.

  Raises:
    InputError: If any value is invalid; lists all of them with the allowed
      values.
  """
  problems = [*_type_problems(config, '')]
  if not problems:  # The rules compare values, so the types must be right.
    problems = [
      f'{name}: got {value!r}, allowed: {allowed}'
      for rules in _RULES
      for name, value, ok, allowed in rules(config)
      if not ok
    ]
  if problems:
    raise errors.InputError(
      'the config is not valid:\n' + errors.listing(problems)
    )


def _type_problems(node: Any, prefix: str) -> Iterable[str]:
  for name, hint in typing.get_type_hints(type(node)).items():
    value = getattr(node, name)
    if dataclasses.is_dataclass(hint):
      yield from _type_problems(value, f'{prefix}{name}.')
    elif isinstance(hint, types.GenericAlias):  # tuple[int, int]
      inner = typing.get_args(hint)
      if not (
        isinstance(value, tuple)
        and len(value) == len(inner)
        and all(map(isinstance, value, inner))
      ):
        yield f'{prefix}{name}: got {value!r}, allowed: {len(inner)} integers'
    elif hint is float and type(value) is int:
      continue
    elif type(value) is not hint:
      yield f'{prefix}{name}: got {value!r}, allowed: type {hint.__name__}'


def _device_rules(config: config_lib.Config) -> list[_Row]:
  kinds = ('auto', 'cpu', 'gpu', 'tpu')
  return [('device', config.device, config.device in kinds, _one_of(kinds))]


def _data_rules(config: config_lib.Config) -> list[_Row]:
  data, divisor = config.data, _divisor(config.model)
  sources = ('ham10000', 'folder', 'synthetic')
  rows = [
    ('data.source', data.source, data.source in sources, _one_of(sources)),
    _within('data.mask_threshold', data.mask_threshold, 0, 254, '(0: strict)'),
    (
      'data.mask_suffixes',
      data.mask_suffixes,
      not set('/\\') & set(data.mask_suffixes),
      'endings of file names with commas between, such as _mask,_gt',
    ),
    _at_least('data.num_synthetic', data.num_synthetic, 2),
    (
      'data.image_size',
      data.image_size,
      all(0 < n <= _MAX_SIDE and n % divisor == 0 for n in data.image_size),
      f'height and width in multiples of {divisor} with'
      f' {_network(config.model)}, at most {_MAX_SIDE}, such as '
      + _rounded(data.image_size, divisor),
    ),
  ]
  if data.source == 'folder':
    rows += [
      (
        f'data.{name}',
        getattr(data, name),
        bool(getattr(data, name)),
        "a directory (required by data.source 'folder')",
      )
      for name in ('images_dir', 'masks_dir')
    ]
  return rows


def _split_rules(config: config_lib.Config) -> list[_Row]:
  data, named = config.data, config_lib.SPLITS
  split, share, folds = data.split, data.validation_fraction, data.folds
  return [
    ('data.split', split, split in named or split.endswith('.csv'),
     _one_of(named) + ' or a path that ends in .csv'),
    ('data.split', split, split != 'paper' or data.source == 'ham10000',
     "'lesion', 'random' or a csv; the split 'paper' requires data.source"
     " 'ham10000'"),
    ('data.validation_fraction', share, 0 < share < 1, 'in (0, 1)'),
    ('data.folds', folds, folds == 0 or folds >= 2, '0 (off) or at least 2'),
    ('data.folds', folds, folds == 0 or split in ('lesion', 'random'),
     f"0 with data.split '{split}'; k-fold requires 'lesion' or 'random'"),
    ('data.fold', data.fold, 0 <= data.fold < max(folds, 1),
     '0 to data.folds - 1'),
  ]  # fmt: skip


def _model_rules(config: config_lib.Config) -> list[_Row]:
  model = config.model
  dtypes, dtype = ('float32', 'bfloat16'), model.compute_dtype
  rows = [
    ('model.compute_dtype', dtype, dtype in dtypes, _one_of(dtypes)),
    _known('model.architecture', model.architecture, _NETWORKS),
  ]
  if model.encoder:
    rows.append(_known('model.encoder', model.encoder, _ENCODERS))
  if model.architecture not in _NETWORKS:
    return rows
  needs = _NETWORKS[model.architecture].encoder
  name = f"model.architecture='{model.architecture}'"
  row = lambda ok, allowed: ('model.encoder', model.encoder, ok, allowed)
  return [
    *rows,
    row(
      model.encoder or needs != 'always', f'{_one_of(_ENCODERS)} with {name}'
    ),
    row(not model.encoder or needs != 'never', f'empty with {name}'),
    *_encoder_rules(config),
    *(
      _rules_with_encoder
      if model.encoder and needs != 'never'
      else _rules_of_width
    )(model),
  ]


def _encoder_rules(config: config_lib.Config) -> list[_Row]:
  """Fields that only an encoder gives a meaning."""
  encoder, rate = config.model.encoder, config.train.encoder_rate
  file, alone = config.model.encoder_weights, 'without model.encoder'
  return [
    ('model.encoder_weights', file, encoder or not file, f'empty {alone}'),
    (
      'model.encoder_weights',
      file,
      not (file and config.train.init_from),
      'empty with train.init_from, which gives all weights',
    ),
    _within('train.encoder_rate', rate, 0, 1),
    ('train.encoder_rate', rate, encoder or rate == 1, f'1 {alone}'),
  ]


def _rules_with_encoder(model: config_lib.ModelConfig) -> list[_Row]:
  """Fields that have no effect with an encoder."""
  default = config_lib.ModelConfig()
  return [
    (
      f'model.{name}',
      getattr(model, name),
      getattr(model, name) == getattr(default, name),
      f'{getattr(default, name)!r}, the default: it does nothing with'
      ' model.encoder',
    )
    for name in ('width', 'initializer')
  ]


def _rules_of_width(model: config_lib.ModelConfig) -> list[_Row]:
  step = _NETWORKS[model.architecture].width_step
  init = model.initializer
  inits = ('torch', 'flax') if model.architecture == 'unet' else ('torch',)
  return [
    (
      'model.width',
      model.width,
      0 < model.width <= _MAX_WIDTH and model.width % step == 0,
      f'{step} to {_MAX_WIDTH}' + (f' in steps of {step}' if step > 1 else ''),
    ),
    (
      'model.initializer',
      init,
      init in inits,
      _one_of(inits) + f" with model.architecture='{model.architecture}'",
    ),
  ]


def _augmentation_rules(config: config_lib.Config) -> list[_Row]:
  augment, borders = config.augmentation, ('mirror', 'constant')
  most = {
    'rotation_degrees': 180,
    'shear_degrees': 60,
    'hue_degrees': 180,
  }
  return [
    *(
      _within(f'augmentation.{name}', value, 0, most.get(name, 1))
      for name, value in dataclasses.asdict(augment).items()
      if name not in ('border', 'blur')
    ),
    _off_or_within('augmentation.blur', augment.blur, 0.2, 2),
    (
      'augmentation.border',
      augment.border,
      augment.border in borders,
      _one_of(borders),
    ),
  ]


def _train_rules(config: config_lib.Config) -> list[_Row]:
  train = config.train
  rate, warmup, ema = train.learning_rate, train.warmup, train.ema
  choices = {
    'optimizer': ('adam', 'adamw'),
    'schedule': ('constant', 'cosine'),
    'loss': ('bce', 'bce_dice', 'focal_tversky'),
  }
  return [
    ('train.learning_rate', rate, 0 < rate < math.inf, 'above 0, finite'),
    _within('train.seed', train.seed, 0, 2**32 - 1),
    *(
      _at_least(f'train.{name}', getattr(train, name), 1)
      for name in (
        'batch_size',
        'epochs',
        'log_every_steps',
        'accumulation_steps',
      )
    ),
    _at_least('train.checkpoint_every_steps', train.checkpoint_every_steps, 0),
    (
      'train.accumulation_steps',
      train.accumulation_steps,
      train.batch_size % max(1, train.accumulation_steps) == 0,
      f'a divisor of train.batch_size, {train.batch_size}',
    ),
    (
      'train.batch_size',
      train.batch_size,
      config.model.architecture not in _POOL_IMAGES
      or train.batch_size >= 2 * max(1, train.accumulation_steps),
      'at least 2 images in each of the train.accumulation_steps parts with'
      f" model.architecture='{config.model.architecture}', which normalises one"
      ' value of each image',
    ),
    *(
      (f'train.{name}', value, value in allowed, _one_of(allowed))
      for name, allowed in choices.items()
      for value in [getattr(train, name)]
    ),
    _off_or_within('train.border_smoothing', train.border_smoothing, 0.2, 4),
    ('train.ema', ema, 0 <= ema < 1, '0 (off) to below 1'),
    _within('train.warmup', warmup, 0, 0.5),
    _goes_with(
      'train.warmup', warmup, train.schedule == 'cosine', "schedule 'cosine'"
    ),
    _within('train.weight_decay', train.weight_decay, 0, 1),
    _goes_with(
      'train.weight_decay',
      train.weight_decay,
      train.optimizer == 'adamw',
      "optimizer 'adamw'",
    ),
  ]


def _evaluation_rules(config: config_lib.Config) -> list[_Row]:
  threshold = config.evaluation.threshold
  views = config.evaluation.test_time_augmentation
  kinds = ('off', 'flips', 'dihedral')
  height, width = config.data.image_size
  return [
    _at_least('evaluation.batch_size', config.evaluation.batch_size, 1),
    ('evaluation.threshold', threshold, 0 < threshold < 1, 'in (0, 1)'),
    (
      'evaluation.test_time_augmentation',
      views,
      views in kinds,
      _one_of(kinds),
    ),
    (
      'evaluation.test_time_augmentation',
      views,
      views != 'dihedral' or height == width,
      "'off' or 'flips' if data.image_size is not square, because a quarter"
      ' turn changes the shape',
    ),
  ]


_RULES = (
  _device_rules,
  _data_rules,
  _split_rules,
  _model_rules,
  _augmentation_rules,
  _train_rules,
  _evaluation_rules,
)


def _one_of(names: Iterable[str]) -> str:
  return ' or '.join(repr(name) for name in names)


def _goes_with(name: str, value: float, ok: bool, what: str) -> _Row:
  """Rejects a value that would have no effect."""
  return name, value, ok or not value, f'0; other values require train.{what}'


def _at_least(name: str, value: float, least: int) -> _Row:
  return name, value, value >= least, f'at least {least}'


def _within(name: str, value: float, low: float, high: float, note='') -> _Row:
  return name, value, low <= value <= high, f'{low} to {high} {note}'.rstrip()


def _off_or_within(name: str, value: float, low: float, high: float) -> _Row:
  return name, value, not value or low <= value <= high, f'0 or {low} to {high}'


def _known(name: str, value: str, known: Collection[str]) -> _Row:
  nearest = config_lib.nearest_name(value, list(known))
  allowed = f'{_one_of(known)} (nearest: {nearest!r})'
  return name, value, value in known, allowed


def _divisor(model: config_lib.ModelConfig) -> int:
  """What height and width must be multiples of."""
  if model.encoder:
    return _ENCODER_DIVISOR
  network = _NETWORKS.get(model.architecture)
  return network.divisor if network else 1  # Unknown: refused by name.


def _network(model: config_lib.ModelConfig) -> str:
  name = f"model.architecture='{model.architecture}'"
  return name + (' and an encoder' if model.encoder else '')


def _rounded(size: tuple[int, int], divisor: int) -> str:
  most = _MAX_SIDE - _MAX_SIDE % divisor
  fits = lambda n: min(max(divisor, divisor * round(n / divisor)), most)
  return str(tuple(map(fits, size)))
