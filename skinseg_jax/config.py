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
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from skinseg_jax.runtime import errors


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
  # Height and width after resizing, in pixels; multiples of 16 for the paper's
  # U-Net, of 32 for a network with an encoder.
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
  """The network; docs/networks.md describes each."""

  # 'unet' (the paper's, or with an encoder), 'attention_unet', 'segnet' or
  # 'resunetplusplus'; or, on an encoder, 'unetplusplus', 'fpn', 'manet',
  # 'linknet', 'pspnet', 'fcn', 'deeplabv3' or 'deeplabv3plus'.
  architecture: str = 'unet'
  # 'resnet18', 'resnet34', 'resnet50', 'efficientnet_lite0', '...1' or '...2';
  # empty: none.
  encoder: str = ''
  # What the encoder starts from: empty (random), 'imagenet', or a file of its
  # weights.
  encoder_weights: str = ''
  # Networks without an encoder: channels of the first level; they double from
  # level to level.
  width: int = 64
  # Type that convolutions compute in: 'float32' or 'bfloat16'. Parameters,
  # batch-norm statistics, loss and optimiser stay in float32.
  compute_dtype: str = 'float32'
  # Initial weights of the paper's U-Net: 'torch' (PyTorch's defaults) or 'flax'
  # (Flax's). The other networks start as their twins do.
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
  # Probability of a turn by 90, 180 or 270 degrees, each as likely.
  quarter_turn: float = 0.0
  # Size changes by a factor of 1 / (1 + scale) to 1 + scale; 0 to 1.
  scale: float = 0.0
  # Translation is uniform in plus or minus this share of each side, 0 to 1.
  translation: float = 0.0
  # Shear along the rows is uniform in plus or minus this many degrees, 0 to 60.
  shear_degrees: float = 0.0
  # Colours, each 0 (off) to 1 unless another unit is given. Brightness: this
  # share of the range is added or taken. Contrast, saturation: up to this much
  # more or less, as a factor 1 plus or minus it.
  brightness: float = 0.0
  contrast: float = 0.0
  saturation: float = 0.0
  # Hue turns by plus or minus this many degrees, 0 to 180.
  hue_degrees: float = 0.0
  # The exponent is 1 / (1 + gamma) to 1 + gamma.
  gamma: float = 0.0
  # Another light: each of red, green, blue by a factor 1 plus or minus it.
  colour_constancy: float = 0.0
  # Standard deviations of blur, in pixels, 0 to 2, and of noise, as a share of
  # the range, 0 to 1: uniform from 0 to this.
  blur: float = 0.0
  noise: float = 0.0
  # Probability that dark hairs are drawn over the image.
  hair: float = 0.0


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class TrainConfig:
  """Optimisation and what is logged and kept."""

  # Images per update over all devices.
  batch_size: int = 32
  epochs: int = 20
  # The optimiser's step size; with a schedule, its highest.
  learning_rate: float = 1e-3
  # Step size of the encoder, as a multiple of the rest's, 0 to 1; 0 keeps its
  # weights as they are, while its batch norms still follow the images.
  encoder_rate: float = 1.0
  # Folder of a run whose best checkpoint gives the initial weights, such as one
  # on other images; empty: none. The optimiser starts fresh.
  init_from: str = ''
  # 'adam', or 'adamw': Adam with decay of the kernels, apart from the gradient.
  optimizer: str = 'adam'
  # adamw: share of a kernel, times the step size, that each update takes off.
  weight_decay: float = 0.0
  # 'constant', or 'cosine': falling, to be 0 after the last update.
  schedule: str = 'constant'
  # cosine: share of all updates in which the step size first rises from 0.
  warmup: float = 0.0
  # 'bce' (cross-entropy), 'bce_dice' (plus soft Dice) or 'focal_tversky'.
  loss: str = 'bce'
  # Standard deviation, in pixels, of the blur that softens the masks which the
  # loss compares with, 0 to 4; 0: hard outlines.
  border_smoothing: float = 0.0
  # Decay of the moving average of the weights that predicts in their place,
  # such as 0.99; 0: none, the weights themselves predict.
  ema: float = 0.0
  # Seed of initial weights, order of images and augmentation.
  seed: int = 0
  # XLA options of the training step, 'name=value,name=value'; 'auto' takes what
  # helps on the platform (skinseg_jax/compilation.py), '' none.
  xla_options: str = 'auto'
  # Updates between two lines of training metrics.
  log_every_steps: int = 50
  # Updates between two checkpoints within an epoch; 0: only at its end.
  checkpoint_every_steps: int = 0
  # Parts that a batch is computed in, one after the other, for less memory: a
  # divisor of batch_size. Batch norm sees one part at a time.
  accumulation_steps: int = 1
  # Compute activations twice rather than keep them: less memory, more time.
  remat: bool = False
  # The same bits from each run on one machine; costs time on a GPU.
  deterministic: bool = False


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class EvaluationConfig:
  """How a model is scored."""

  # Images per forward pass over all devices.
  batch_size: int = 32
  # Probability above which a pixel is lesion, in (0, 1).
  threshold: float = 0.5
  # Mean probability over mirrored and turned images: 'off', 'flips' (4 views)
  # or 'dihedral' (8 views; square images). The scores after each epoch of
  # training are of one view.
  test_time_augmentation: str = 'off'


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class Config:
  """One experiment."""

  # What it must run on: 'cpu', 'gpu' or 'tpu'; 'auto' takes what JAX prefers.
  device: str = 'auto'
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  augmentation: AugmentationConfig = dataclasses.field(
    default_factory=AugmentationConfig
  )
  train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
  evaluation: EvaluationConfig = dataclasses.field(
    default_factory=EvaluationConfig
  )


def field_names(schema: Any = Config, prefix: str = '') -> list[str]:
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
    arg.partition('=')[0].partition('config.')[2]
    for arg in argv
    # absl reads --noconfig.x where x is a boolean.
    if arg.lstrip('-').startswith(('config.', 'noconfig.'))
    and arg.startswith('-')
  ]
  known = set(field_names())
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
  close = last or [nearest_name(name, known)]
  return close[0]


def nearest_name(name: str, known: Sequence[str]) -> str:
  """The one of the known names that is most like `name`."""
  return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


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
  except errors.InputError:
    raise
  except (OSError, ValueError, AttributeError, RecursionError) as error:
    raise errors.InputError(f'{path} is no run config: {error}') from None


def _build(schema: type, values: Mapping[str, Any], prefix: str):
  if not isinstance(values, Mapping):
    raise errors.InputError(
      f'{prefix.rstrip(".") or "the config"}: got {values!r}, allowed are'
      ' fields by name.'
    )
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
