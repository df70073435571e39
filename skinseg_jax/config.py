"""The one schema of an experiment: every field, its default and its unit.

A file in `configs/` returns a `Config` with differences from these defaults;
`--config.train.batch_size=16` on the command line overrides a field. The
classes hash by value, so that a jitted step can take a config as a static
argument: leave it alone once training has begun.
"""

import dataclasses
import difflib
import json
import operator
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from skinseg_jax import errors


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class DataConfig:
  """Which images, how they are divided, and at what size they are used."""

  # 'ham10000', 'folder' or 'synthetic'.
  source: str = 'ham10000'
  # ham10000: directory with the Dataverse files, as zips or unpacked (the
  # Kaggle layout is known too). Empty: use what `data_dir` holds, else
  # download 2.8 GB from Dataverse.
  raw_dir: str = ''
  # Where prepared data sets and caches are kept.
  data_dir: str = 'data'
  # folder: directory of images, directory of masks, optional csv with a column
  # `image_id` and any of lesion_id, dx, sex, age, localization, ...
  images_dir: str = ''
  masks_dir: str = ''
  metadata_csv: str = ''
  # Grey value (0 to 255) above which a mask pixel is lesion. 0 is strict: a
  # mask with more than the two values background and white is refused.
  mask_threshold: int = 0
  # synthetic: number of generated images.
  num_synthetic: int = 480
  # Height and width after resizing, in pixels; multiples of 16.
  image_size: tuple[int, int] = (224, 224)
  # 'paper' (HAM10000 only), 'lesion' (grouped by lesion, stratified by dx),
  # 'random' (by image; leaks lesions), or a csv with image_id,subset.
  split: str = 'lesion'
  # Share of images for validation, in (0, 1); for 'lesion' and 'random'.
  validation_fraction: float = 0.2
  # k-fold: number of folds (0: none) and which one validates, 0 to folds - 1;
  # with 'lesion' or 'random'.
  folds: int = 0
  fold: int = 0
  # Seed of the split and of the synthetic images.
  seed: int = 0


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class ModelConfig:
  """The U-Net."""

  # Channels of the first level; they double at each of four levels.
  width: int = 64
  # Type that convolutions compute in: 'float32' or 'bfloat16'. Parameters,
  # batch-norm statistics, loss and optimiser stay in float32.
  compute_dtype: str = 'float32'
  # Initial weights: 'torch' (PyTorch's defaults) or 'flax' (Flax's).
  initializer: str = 'torch'


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class AugmentationConfig:
  """Random changes of training images, on the device."""

  # Rotation is uniform in plus or minus this many degrees, 0 to 180.
  rotation_degrees: float = 35.0
  # What lies beyond the border: 'mirror' (reflection without repeating the
  # edge) or 'constant' (black skin-free pixels, background in the mask).
  border: str = 'mirror'
  # Probabilities of mirroring left-right and up-down.
  horizontal_flip: float = 0.5
  vertical_flip: float = 0.1


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class TrainConfig:
  """Optimisation and what is logged and kept."""

  # Images per update over all devices.
  batch_size: int = 32
  epochs: int = 20
  # Adam's step size.
  learning_rate: float = 1e-3
  # Seed of initial weights, order of images and augmentation.
  seed: int = 0
  # XLA options of the training step, 'name=value,name=value'; 'auto' takes what
  # helps on the platform (skinseg_jax/compilation.py), '' none.
  xla_options: str = 'auto'
  # Updates between two lines of training metrics.
  log_every_steps: int = 50


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class EvaluationConfig:
  """How a model is scored."""

  # Images per forward pass over all devices.
  batch_size: int = 32
  # Probability above which a pixel is lesion, in (0, 1).
  threshold: float = 0.5


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class Config:
  """One experiment."""

  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  augmentation: AugmentationConfig = dataclasses.field(
    default_factory=AugmentationConfig
  )
  train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
  evaluation: EvaluationConfig = dataclasses.field(
    default_factory=EvaluationConfig
  )


def field_names(schema: type = Config, prefix: str = '') -> list[str]:
  """Dotted names of all fields, such as 'train.batch_size'."""
  names = []
  for field in dataclasses.fields(schema):
    if dataclasses.is_dataclass(field.type):
      names += field_names(field.type, f'{prefix}{field.name}.')
    else:
      names.append(prefix + field.name)
  return names


def check_overrides(argv: Iterable[str]) -> None:
  """Refuses `--config.name=value` for a field that does not exist.

  Args:
    argv: Command-line arguments.

  Raises:
    InputError: Naming the unknown fields and the nearest real ones.
  """
  names = [
    arg.lstrip('-').removeprefix('config.').partition('=')[0]
    for arg in argv
    if arg.startswith(('--config.', '-config.'))
  ]
  known = set(field_names())
  # absl also reads --noconfig.x for booleans; the schema has none.
  check_field_names([name for name in names if name not in known])


def check_field_names(unknown: list[str]) -> None:
  """Raises an `InputError` that suggests the nearest fields, if any unknown."""
  if unknown:
    raise errors.InputError(
      'no such config field:\n'
      + errors.listing(
        [f'{name} (nearest: {_nearest(name)})' for name in unknown]
      )
      + '\nskinseg_jax/config.py lists all fields.'
    )


def _nearest(name: str) -> str:
  """The real field most like `name`; the last part counts where it is one."""
  known = field_names()
  last = [
    field
    for field in known
    if field.rpartition('.')[2] == name.rpartition('.')[2]
  ]
  close = last or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
  return close[0]


def to_dict(config: Config) -> dict[str, Any]:
  """The config as nested dicts that JSON can hold."""
  return dataclasses.asdict(config)


def flat(config: Config) -> dict[str, Any]:
  """All values by dotted name, such as 'train.batch_size'."""
  return {name: operator.attrgetter(name)(config) for name in field_names()}


def from_dict(values: Mapping[str, Any]) -> Config:
  """The inverse of `to_dict`, also for what went through JSON.

  Raises:
    InputError: If a field is unknown.
  """
  return _build(Config, values, '')


def load(path) -> Config:
  """Reads a run's `config.json`.

  Raises:
    InputError: If it is missing, is no JSON, or holds unknown fields.
  """
  try:
    with open(path, encoding='utf-8') as file:
      return from_dict(json.load(file))
  except FileNotFoundError:
    raise errors.InputError(
      f'{path} does not exist; give --workdir the folder of a run, which'
      ' holds config.json.'
    ) from None
  except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
    raise errors.InputError(f'{path} is no run config: {error}') from None


def _build(schema: type, values: Mapping[str, Any], prefix: str):
  types_by_name = typing.get_type_hints(schema)
  check_field_names(
    [prefix + name for name in values if name not in types_by_name]
  )
  built = {}
  for name, value in values.items():
    if dataclasses.is_dataclass(types_by_name[name]):
      value = _build(types_by_name[name], value, f'{prefix}{name}.')
    elif isinstance(value, list):  # JSON has no tuples.
      value = tuple(value)
    built[name] = value
  return schema(**built)


def validate(config: Config) -> None:
  """Checks every field once, before anything is done with it.

  Raises:
    InputError: Listing all fields that do not fit, what they hold and what is
      allowed.
  """
  problems = [*_type_problems(config, '')]
  if not problems:  # Comparisons below need the right types.
    problems = [
      f'{name}: got {value!r}, allowed is {allowed}'
      for name, value, ok, allowed in _rules(config)
      if not ok
    ]
  if problems:
    raise errors.InputError(
      'the config does not fit:\n' + errors.listing(problems)
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
        yield f'{prefix}{name}: got {value!r}, allowed is {len(inner)} integers'
    elif hint is float and type(value) is int:
      continue
    elif type(value) is not hint:
      yield f'{prefix}{name}: got {value!r}, allowed is a {hint.__name__}'


def _rules(config: Config) -> list[tuple[str, Any, bool, str]]:
  """Rows of field, value, whether it fits, and what is allowed."""
  data, model, augment = config.data, config.model, config.augmentation
  train, evaluation = config.train, config.evaluation
  one_of = lambda *names: ' or '.join(repr(name) for name in names)
  sources = ('ham10000', 'folder', 'synthetic')
  dtypes, inits = ('float32', 'bfloat16'), ('torch', 'flax')
  borders, splits = ('mirror', 'constant'), ('paper', 'lesion', 'random')
  rows = [
    ('data.source', data.source, data.source in sources, one_of(*sources)),
    (
      'data.mask_threshold',
      data.mask_threshold,
      0 <= data.mask_threshold < 255,
      '0 (strict) to 254',
    ),
    (
      'data.num_synthetic',
      data.num_synthetic,
      data.num_synthetic >= 2,
      'at least 2',
    ),
    (
      'data.image_size',
      data.image_size,
      all(n > 0 and n % 16 == 0 for n in data.image_size),
      'height and width in multiples of 16 (four poolings halve them), such'
      ' as ' + _round_to_16(data.image_size),
    ),
    (
      'data.split',
      data.split,
      data.split in splits or data.split.endswith('.csv'),
      one_of(*splits) + ' or a path that ends in .csv',
    ),
    (
      'data.split',
      data.split,
      data.split != 'paper' or data.source == 'ham10000',
      "'lesion', 'random' or a csv: 'paper' is a split of HAM10000",
    ),
    (
      'data.validation_fraction',
      data.validation_fraction,
      0 < data.validation_fraction < 1,
      'in (0, 1)',
    ),
    (
      'data.folds',
      data.folds,
      data.folds == 0 or data.folds >= 2,
      '0 (none) or at least 2',
    ),
    (
      'data.folds',
      data.folds,
      data.folds == 0 or data.split in ('lesion', 'random'),
      f"0 with data.split '{data.split}'; k-fold goes with 'lesion' or"
      " 'random'",
    ),
    (
      'data.fold',
      data.fold,
      0 <= data.fold < max(data.folds, 1),
      '0 to data.folds - 1',
    ),
    ('model.width', model.width, model.width >= 1, 'at least 1'),
    (
      'model.compute_dtype',
      model.compute_dtype,
      model.compute_dtype in dtypes,
      one_of(*dtypes),
    ),
    (
      'model.initializer',
      model.initializer,
      model.initializer in inits,
      one_of(*inits),
    ),
    (
      'augmentation.rotation_degrees',
      augment.rotation_degrees,
      0 <= augment.rotation_degrees <= 180,
      '0 to 180',
    ),
    (
      'augmentation.border',
      augment.border,
      augment.border in borders,
      one_of(*borders),
    ),
    (
      'train.learning_rate',
      train.learning_rate,
      train.learning_rate > 0,
      'above 0',
    ),
    (
      'evaluation.threshold',
      evaluation.threshold,
      0 < evaluation.threshold < 1,
      'in (0, 1)',
    ),
  ]
  for name in ('horizontal_flip', 'vertical_flip'):
    value = getattr(augment, name)
    rows.append((f'augmentation.{name}', value, 0 <= value <= 1, '0 to 1'))
  for name in ('batch_size', 'epochs', 'log_every_steps'):
    value = getattr(train, name)
    rows.append((f'train.{name}', value, value >= 1, 'at least 1'))
  rows.append(
    (
      'evaluation.batch_size',
      evaluation.batch_size,
      evaluation.batch_size >= 1,
      'at least 1',
    )
  )
  if data.source == 'folder':
    for name in ('images_dir', 'masks_dir'):
      value = getattr(data, name)
      rows.append(
        (
          f'data.{name}',
          value,
          bool(value),
          "a directory, where data.source is 'folder'",
        )
      )
  return rows


def _round_to_16(size: tuple[int, int]) -> str:
  return str(tuple(max(16, 16 * round(n / 16)) for n in size))
