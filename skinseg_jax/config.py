"""The schema of an experiment: every field, its default and its unit.

A file in `configs/` returns a `Config` that differs from these defaults.
`--config.train.batch_size=16` on the command line overrides a field. The
classes hash by value, so a jitted step can take a config as a static argument.
Do not change a config after training has started.
"""

import dataclasses
import difflib
import json
import operator
import os
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from skinseg_jax.runtime import errors

# Splits with a name; any other value of `data.split` is a file.
SPLITS = ('paper', 'lesion', 'random')
# Of `data`; a name of a split stays as it is.
_PATH_FIELDS = (
  'raw_dir', 'data_dir', 'images_dir', 'masks_dir', 'metadata_csv', 'split'
)  # fmt: skip


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class DataConfig:
  """Which images to use, how to split them and at what size."""

  # Where images come from: 'ham10000', 'folder' (your own images and masks) or
  # 'synthetic' (generated lesions).
  source: str = 'ham10000'
  # Directory with the HAM10000 files from Harvard Dataverse, as zips or
  # unpacked, or in one of two Kaggle layouts. Only for source 'ham10000'.
  # Empty: use the data set prepared in `data_dir`; if there is none, download
  # 2.8 GB.
  raw_dir: str = ''
  # Directory for prepared data sets and caches.
  data_dir: str = 'data'
  # Directory of images. Required for source 'folder', otherwise unused. For
  # PH2, or a folder that holds both folders of an ISIC challenge, give that
  # folder here and as masks_dir.
  images_dir: str = ''
  # Directory of masks. Required for source 'folder', otherwise unused.
  masks_dir: str = ''
  # Optional csv for source 'folder', with a column image_id, image, image_name,
  # isic_id or filename, and any of lesion_id, patient_id, dx, sex, age,
  # localization and others. Empty: no metadata.
  metadata_csv: str = ''
  # Grey value, 0 to 254: mask pixels above it are lesion. 0 is strict: a mask
  # with values other than background and white is an error.
  mask_threshold: int = 0
  # Swap lesion and skin in all masks, for masks with a white background.
  mask_invert: bool = False
  # Endings that the name of a mask may have after that of its image, in any
  # case and separated by commas; no ending is always allowed. Only for source
  # 'folder'.
  mask_suffixes: str = (
    '_segmentation,_mask,_masks,_seg,_gt,_groundtruth,_ground_truth,_label,'
    '_labels,_lesion,_annotation,-mask,-seg,-gt'
  )
  # Number of generated images, at least 2. Only for source 'synthetic'.
  num_synthetic: int = 480
  # Height and width after resizing, in pixels, at most 4096: multiples of 16
  # for U-Net and Attention U-Net, of 8 for ResUNet++, of 32 for SegNet and for
  # networks with an encoder. One number means a square.
  image_size: tuple[int, int] = (224, 224)
  # How to split images into training and validation: 'paper' (HAM10000 only),
  # 'lesion' (keeps images of a lesion together, stratified by dx), 'random' (by
  # image, so the same lesion can be on both sides), or the path of a csv with
  # the columns image_id,subset.
  split: str = 'lesion'
  # Share of images used for validation, between 0 and 1 (both excluded). For
  # the splits 'lesion' and 'random' without folds.
  validation_fraction: float = 0.2
  # Number of folds for k-fold cross-validation: 0 (off) or at least 2. Requires
  # the split 'lesion' or 'random'.
  folds: int = 0
  # Fold used for validation, 0 to folds - 1. Must be 0 if folds is 0.
  fold: int = 0
  # Random seed of the split and of the synthetic images.
  seed: int = 0


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class ModelConfig:
  """The network."""

  # Network: 'unet' (the paper's, or with an encoder), 'attention_unet',
  # 'segnet' or 'resunetplusplus'; or, always with an encoder, 'unetplusplus',
  # 'fpn', 'manet', 'linknet', 'pspnet', 'fcn', 'deeplabv3' or 'deeplabv3plus'.
  architecture: str = 'unet'
  # Encoder of the network: 'resnet18', 'resnet34', 'resnet50',
  # 'efficientnet_lite0', 'efficientnet_lite1' or 'efficientnet_lite2'. Empty:
  # none.
  encoder: str = ''
  # Initial weights of the encoder: empty (random), 'imagenet', or the path of a
  # file with its weights.
  encoder_weights: str = ''
  # Channels at the first level, 1 to 1024; each level below has twice as many
  # as the one above it. Only for networks without an encoder.
  width: int = 64
  # Number type of the convolutions: 'float32' or 'bfloat16'. Parameters,
  # batch-norm statistics, loss and optimiser always use float32.
  compute_dtype: str = 'float32'
  # How initial weights of the paper's U-Net are drawn: 'torch' (PyTorch's
  # defaults) or 'flax' (Flax's defaults). Other networks start as their PyTorch
  # twins do, and SegNet with He's initial weights.
  initializer: str = 'torch'


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class AugmentationConfig:
  """Random changes to training images, made on the device."""

  # Largest rotation, in degrees, 0 to 180. Angles are uniform between minus and
  # plus this value.
  rotation_degrees: float = 35.0
  # How to fill pixels from outside the image: 'mirror' (reflect, without
  # repeating the edge pixel) or 'constant' (black in the image, background in
  # the mask).
  border: str = 'mirror'
  # Probability of flipping an image left to right, 0 to 1.
  horizontal_flip: float = 0.5
  # Probability of flipping an image upside down, 0 to 1.
  vertical_flip: float = 0.1
  # Probability of a turn by 90, 180 or 270 degrees (equally likely), 0 to 1.
  quarter_turn: float = 0.0
  # Zoom strength, 0 (off) to 1. The size changes by a factor between
  # 1 / (1 + scale) and 1 + scale.
  scale: float = 0.0
  # Largest shift, as a share of each side, 0 to 1. Shifts are uniform between
  # minus and plus this value.
  translation: float = 0.0
  # Largest shear along the rows, in degrees, 0 to 60. Angles are uniform
  # between minus and plus this value.
  shear_degrees: float = 0.0
  # Largest change of brightness, 0 (off) to 1: the share of the full value
  # range that is added or subtracted.
  brightness: float = 0.0
  # Largest change of contrast, 0 (off) to 1: the factor lies between
  # 1 - contrast and 1 + contrast.
  contrast: float = 0.0
  # Largest change of colour saturation, 0 (off) to 1: the factor lies between
  # 1 - saturation and 1 + saturation.
  saturation: float = 0.0
  # Largest shift of hue in either direction, in degrees, 0 (off) to 180.
  hue_degrees: float = 0.0
  # Gamma strength, 0 (off) to 1: the exponent lies between 1 / (1 + gamma) and
  # 1 + gamma.
  gamma: float = 0.0
  # Strength of a simulated change of lighting, 0 (off) to 1: red, green and
  # blue are each multiplied by their own factor, between 1 minus and 1 plus
  # this value.
  colour_constancy: float = 0.0
  # Largest standard deviation of Gaussian blur, in pixels: 0 (off) or 0.2 to 2.
  # Values are uniform from 0 to this.
  blur: float = 0.0
  # Largest standard deviation of noise, as a share of the full value range,
  # 0 (off) to 1. Values are uniform from 0 to this.
  noise: float = 0.0
  # Probability of drawing dark hairs over an image, 0 to 1.
  hair: float = 0.0
  # Probability of dark corners, as from the tube of a dermatoscope, 0 to 1.
  vignette: float = 0.0
  # Probability of JPEG compression, at a quality from 25 to 95; 0 to 1.
  jpeg: float = 0.0


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class TrainConfig:
  """Optimisation, logging and checkpoints."""

  # Images per update, summed over all devices; at least 1.
  batch_size: int = 32
  # Number of passes over the training images, at least 1.
  epochs: int = 20
  # Step size of the optimiser, above 0. With a schedule, its highest value.
  learning_rate: float = 1e-3
  # Step size of the encoder, as a multiple of the learning rate, 0 to 1. 0
  # keeps its weights, while its batch-norm statistics still follow the images.
  encoder_rate: float = 1.0
  # Folder of a run whose best checkpoint gives the initial weights. The
  # optimiser starts fresh. Empty: none.
  init_from: str = ''
  # Optimiser: 'adam', or 'adamw' (Adam with decoupled weight decay of the
  # convolution kernels).
  optimizer: str = 'adam'
  # Decoupled weight decay, 0 (off) to 1. Each update reduces the kernels by
  # this value times the learning rate. Requires optimizer 'adamw'.
  weight_decay: float = 0.0
  # Learning-rate schedule: 'constant', or 'cosine' (decays to 0 at the last
  # update).
  schedule: str = 'constant'
  # Share of all updates, 0 to 0.5, during which the learning rate first rises
  # from 0. Requires schedule 'cosine'.
  warmup: float = 0.0
  # Training loss: 'bce' (binary cross-entropy), 'bce_dice' (binary
  # cross-entropy plus soft Dice) or 'focal_tversky'.
  loss: str = 'bce'
  # Standard deviation, in pixels, of the blur that softens mask outlines in the
  # training loss: 0 (off, hard outlines) or 0.2 to 4.
  border_smoothing: float = 0.0
  # Decay of a moving average of the weights, 0 (off) to below 1, such as 0.99.
  # If it is on, predictions use the averaged weights.
  ema: float = 0.0
  # Random seed of initial weights, image order and augmentation, 0 to
  # 2**32 - 1.
  seed: int = 0
  # XLA compiler options of the training step, as 'name=value,name=value'.
  # 'auto': the options known to help on this platform, listed in
  # skinseg_jax/runtime/compilation.py. Empty: none.
  xla_options: str = 'auto'
  # Updates between two log entries of training metrics, at least 1.
  log_every_steps: int = 50
  # Updates between two checkpoints within an epoch. 0: save a checkpoint only
  # at the end of each epoch.
  checkpoint_every_steps: int = 0
  # Number of parts to split a batch into. They are computed one after the other
  # to save memory. Must divide batch_size. Batch norm sees one part at a time.
  accumulation_steps: int = 1
  # Recompute activations in the backward pass instead of storing them: uses
  # less memory and more time.
  remat: bool = False
  # Give bit-identical results in repeated runs on one machine. Slower on a GPU.
  deterministic: bool = False


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class EvaluationConfig:
  """How a model is scored."""

  # Images per forward pass, summed over all devices; at least 1.
  batch_size: int = 32
  # Pixels with a predicted probability above this value are lesion; between 0
  # and 1 (both excluded).
  threshold: float = 0.5
  # Average the predictions of flipped and rotated copies of an image: 'off',
  # 'flips' (4 views) or 'dihedral' (8 views; square images only). Scores after
  # each training epoch always use one view.
  test_time_augmentation: str = 'off'


@dataclasses.dataclass(slots=True, unsafe_hash=True)
class Config:
  """One experiment."""

  # Device to run on: 'cpu', 'gpu' or 'tpu'. 'auto' uses JAX's first choice. It
  # is an error if the chosen kind of device is missing.
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
  """Raises an `InputError` with the nearest real fields if any are unknown."""
  if unknown:
    raise errors.InputError(
      'no such config field:\n'
      + errors.listing(
        [f'{name} (nearest: {_nearest(name)})' for name in unknown]
      )
      + '\nskinseg_jax/config.py lists all fields.'
    )


def _nearest(name: str) -> str:
  """The real field closest to `name`, preferably with the same last part."""
  known = field_names()
  last = [
    field
    for field in known
    if field.rpartition('.')[2] == name.rpartition('.')[2]
  ]
  close = last or [nearest_name(name, known)]
  return close[0]


def complete(config: Config) -> None:
  """Fills in what a user may write in short, in place.

  `~` in a path becomes the home directory; one number as `data.image_size`
  becomes a square.
  """
  data = config.data
  for name in _PATH_FIELDS:
    value = getattr(data, name)
    if isinstance(value, str):  # Other types are for `validate` to refuse.
      setattr(data, name, os.path.expanduser(value))
  size = data.image_size
  if isinstance(size, int):
    size = (size,)
  if isinstance(size, tuple) and len(size) == 1:
    data.image_size = size * 2


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
  """Builds a config from `to_dict`'s result, also after a round trip via JSON.

  Raises:
    InputError: If a field is unknown.
  """
  return _build(Config, values, '')


def load(path) -> Config:
  """Reads a run's `config.json`.

  Raises:
    InputError: If it is missing, is not JSON or has unknown fields.
  """
  try:
    with open(path, encoding='utf-8') as file:
      return from_dict(json.load(file))
  except FileNotFoundError:
    raise errors.InputError(
      f'{path} does not exist; set --workdir to a run folder, which contains'
      ' config.json.'
    ) from None
  except errors.InputError:
    raise
  except (OSError, ValueError, AttributeError, RecursionError) as error:
    raise errors.InputError(
      f'{path} is not a valid run config: {error}'
    ) from None


def _build(schema: type, values: Mapping[str, Any], prefix: str):
  if not isinstance(values, Mapping):
    raise errors.InputError(
      f'{prefix.rstrip(".") or "the config"}: got {values!r}, expected an'
      ' object with named fields.'
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
