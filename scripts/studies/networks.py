"""Compares all networks under one protocol: is U-Net the best?

python scripts/studies/networks.py --output_dir docs/benchmarks/networks
  --data_dir DIR [--setting cpu] [--only NAME ...] [--seeds 0 1]

Two views. `scratch`: every network starts from random weights. Those without
an encoder have widths at which a step costs about what it costs U-Net of width
16, by forward pass and gradient at 128 px on one core: Attention U-Net .8,
SegNet 1.0. ResUNet++ has its least width and costs 1.9. `pretrained`: every
network that takes an encoder has the same one, EfficientNet-Lite0 with ImageNet
weights.

For each network the learning rate is chosen on lesions of the paper's training
set that are kept out; the paper's validation images are scored once for each
seed, after the last epoch. Everything else is the same for all networks.

Each training leaves a small file with the counts of each image. Started again,
the script trains what is missing. Then it writes `networks.csv`, `networks.md`
and `networks.png` from all files that are there. A training that fails leaves a
file with its error, which these tables show; remove it to try again.
"""

import argparse
import copy
import json
import pathlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import measured
import networks_report
import numpy as np
from absl import logging

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.data import splits
from skinseg_jax.data.sources import catalog, interface
from skinseg_jax.runtime import errors

_LITE = 'efficientnet_lite0'
# Training images, and others to score on, for the choice of the rate.
_CHOICE = (2000, 400)
RATES = (3e-4, 1e-3, 3e-3)


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


class Network(NamedTuple):
  """One row of the study."""

  view: str
  model: config_lib.ModelConfig


def _scratch(architecture: str, width: int = 0) -> Network:
  encoder = {} if width else {'encoder': _LITE}
  return Network(
    'scratch',
    config_lib.ModelConfig(
      architecture=architecture, width=width or 64, **encoder
    ),
  )


def _pretrained(architecture: str) -> Network:
  return Network(
    'pretrained',
    config_lib.ModelConfig(
      architecture=architecture, encoder=_LITE, encoder_weights='imagenet'
    ),
  )


_ON_ENCODER = (
  'unet', 'unetplusplus', 'fpn', 'manet', 'linknet', 'pspnet', 'fcn',
  'deeplabv3', 'deeplabv3plus',
)  # fmt: skip
# The first of each view is the one that others are compared with.
NETWORKS = {
  'unet': _scratch('unet', 16),
  'attention_unet': _scratch('attention_unet', 8),
  'segnet': _scratch('segnet', 16),
  'resunetplusplus': _scratch('resunetplusplus', 8),
  **{f'{name}_lite0_scratch': _scratch(name) for name in _ON_ENCODER},
  **{f'{name}_lite0': _pretrained(name) for name in _ON_ENCODER},
}


def config(
  network: Network, setting: Setting, rate: float, data_dir: pathlib.Path
) -> config_lib.Config:
  """The config of a training on the paper's split, seed 0."""
  made = config_lib.Config()
  made.data.data_dir = str(data_dir)
  made.data.split = 'paper'
  made.data.image_size = (setting.image_size, setting.image_size)
  made.model = copy.deepcopy(network.model)
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


def choose_rate(
  name: str,
  setting: Setting,
  folder: pathlib.Path,
  source: interface.Source,
  data_dir: pathlib.Path,
) -> float:
  """The rate with the best Dice per image on lesions that are kept out."""
  split_csv = folder / 'choice_split.csv'
  splits.write_split(choice_split(source.metadata), split_csv)
  found: dict[float, float] = {}
  for rate in RATES:
    each = config(NETWORKS[name], setting, rate, data_dir)
    each.data.split = str(split_csv)
    each.train.epochs = 1
    path = _measured(f'{name}_rate{rate:g}', each, folder, source)
    _, scores = measured.read([path])
    found[rate] = float(scores['dice'].mean())
  return max(found, key=lambda rate: found[rate])


def _measured(
  name: str,
  each: config_lib.Config,
  folder: pathlib.Path,
  source: interface.Source,
) -> pathlib.Path:
  """Trains and scores, unless that was done; the file with the counts."""
  path = folder / f'{name}.npz'
  split = splits.make_split(each.data, source.metadata)
  if not measured.is_measured(path, measured.fingerprint(each, split)):
    print(name, flush=True)
    measured.measure({name: each}, folder, source, recompute=False)
  return path


def study(
  name: str,
  seeds: Sequence[int],
  setting: Setting,
  folder: pathlib.Path,
  source: interface.Source,
  data_dir: pathlib.Path,
) -> None:
  """Chooses the rate of a network, then trains and scores each seed.

  An error of the training is kept in `<name>.failed`; the others go on.
  """
  failed = folder / f'{name}.failed'
  if failed.exists():
    return
  try:
    rate = choose_rate(name, setting, folder, source, data_dir)
    for seed in seeds:
      each = config(NETWORKS[name], setting, rate, data_dir)
      each.train.seed = seed
      _measured(f'{name}_seed{seed}', each, folder, source)
  except errors.InputError:
    raise  # Of the data or the folder, not of the network.
  except Exception as error:
    print(traceback.format_exc(), file=sys.stderr)
    failed.write_text(f'{type(error).__name__}: {error}\n', encoding='utf-8')
    return
  about: Mapping[str, object] = {
    'view': NETWORKS[name].view,
    'learning_rate': rate,
    **setting._asdict(),
  }
  (folder / f'{name}.json').write_text(json.dumps(about, indent=2) + '\n')


def main(argv: list[str]) -> None:
  """Trains what is missing, then writes table and figure."""
  args = _parse(argv)
  logging.set_verbosity(logging.ERROR)
  source = catalog.open_source(
    config_lib.DataConfig(data_dir=str(args.data_dir)), download=False
  )
  folder = args.output_dir / args.setting
  folder.mkdir(parents=True, exist_ok=True)
  for name in args.only or NETWORKS:
    study(
      name, args.seeds, SETTINGS[args.setting], folder, source, args.data_dir
    )
  paper = splits.make_split(
    config_lib.DataConfig(split='paper'), source.metadata
  )
  lesions = {row['image_id']: row['lesion_id'] for row in source.metadata}
  views = {
    view: [name for name, each in NETWORKS.items() if each.view == view]
    for view in ('scratch', 'pretrained')
  }
  networks_report.write(
    folder, views, args.seeds, [lesions[name] for name in paper.validation]
  )
  print((folder / 'networks.md').read_text())


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  path = pathlib.Path
  add('--output_dir', type=path, required=True, help='for the results')
  add('--data_dir', type=path, default=path('data'))
  add('--setting', choices=list(SETTINGS), default='cpu')
  add('--seeds', nargs='+', type=int, default=[0, 1], help='of the trainings')
  add('--only', nargs='+', choices=list(NETWORKS), help='networks to train')
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
