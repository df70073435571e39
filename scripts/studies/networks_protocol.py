"""What the study of networks compares, and what all networks share."""

import copy
import pathlib
from typing import NamedTuple

import measured
import networks_report
import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.classical import parameters
from skinseg_jax.data import splits

_LITE = 'efficientnet_lite0'
# Training images, and others to score on, for the choice of the rate.
_CHOICE = (2000, 400)
# While the largest rate is the best, the next of the others is tried.
RATES, LARGER_RATES = (3e-4, 1e-3, 3e-3), (1e-2, 3e-2)


class Setting(NamedTuple):
  """What all networks share."""

  image_size: int
  epochs: int
  batch_size: int
  compute_dtype: str


SETTINGS = {
  'smoke': Setting(32, 1, 16, 'float32'),
  'cpu': Setting(128, 3, 16, 'float32'),
  'gpu': Setting(224, 20, 32, 'bfloat16'),
}

_ON_ENCODER = (
  'unet', 'unetplusplus', 'fpn', 'manet', 'linknet', 'pspnet', 'fcn',
  'deeplabv3', 'deeplabv3plus',
)  # fmt: skip
_on_lite = lambda architecture: config_lib.ModelConfig(
  architecture=architecture, encoder=_LITE, encoder_weights='imagenet'
)
_of_width = lambda architecture, width: config_lib.ModelConfig(
  architecture=architecture, width=width
)
_BY_VIEW = {
  'scratch': {
    'unet': _of_width('unet', 16),
    'attention_unet': _of_width('attention_unet', 8),
    'segnet': _of_width('segnet', 16),
    'resunetplusplus': _of_width('resunetplusplus', 8),
  },
  'pretrained': {f'{name}_lite0': _on_lite(name) for name in _ON_ENCODER},
}
NETWORKS = {
  name: model for those in _BY_VIEW.values() for name, model in those.items()
}
# The first of a view is the one that the others are compared with.
VIEWS = {
  **{
    view: networks_report.View([*those], next(iter(those)))
    for view, those in _BY_VIEW.items()
  },
  'classical': networks_report.View([*parameters.METHODS], 'unet'),
}


def config(
  model: config_lib.ModelConfig,
  setting: Setting,
  rate: float,
  data_dir: pathlib.Path,
) -> config_lib.Config:
  """The config of a training on the paper's split, seed 0."""
  made = config_lib.Config()
  made.data.data_dir = str(data_dir)
  made.data.split = 'paper'
  made.data.image_size = (setting.image_size, setting.image_size)
  made.model = copy.deepcopy(model)
  made.model.compute_dtype = setting.compute_dtype
  made.augmentation.rotation_degrees = 0.0
  made.augmentation.vertical_flip = 0.5
  made.augmentation.quarter_turn = 0.75
  made.train.batch_size = setting.batch_size
  made.train.epochs = setting.epochs
  made.train.learning_rate = rate
  made.train.optimizer = 'adamw'
  made.train.weight_decay = 0.05
  made.train.schedule = 'cosine'
  made.train.warmup = 0.05
  made.train.loss = 'bce_dice'
  made.train.ema = 0.99
  config_rules.validate(made)
  return made


def choice_split(metadata: list[dict[str, str]]) -> splits.Split:
  """Training images of the paper; the two sides share no lesion."""
  inner = measured.inner_split(metadata)
  rng = np.random.default_rng(0)
  draw = lambda ids, count: sorted(rng.permutation(ids)[:count].tolist())
  return splits.Split(
    train=draw(inner.train, _CHOICE[0]),
    validation=draw(inner.validation, _CHOICE[1]),
  )
