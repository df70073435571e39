"""Compares networks and classical methods under one protocol.

python scripts/studies/networks.py --output_dir docs/benchmarks/networks
  --data_dir DIR [--setting cpu] [--only NAME ...] [--seeds 0 1]

Networks are compared in two views. `scratch`: every network starts from random
weights. Those without an encoder have widths at which a step costs about what
it costs U-Net of width 16, by forward pass and gradient at 128 px on one core:
Attention U-Net .8, SegNet 1.0. ResUNet++ has its least width and costs 1.9.
`pretrained`: every network that takes an encoder has the same one,
EfficientNet-Lite0 with ImageNet weights.

For each network the learning rate is chosen on lesions of the paper's training
set that are kept out; the paper's validation images are scored once for each
seed, after the last epoch. Everything else is the same for all networks.
Classical methods see the same images at the same size. Their parameters were
chosen on training images before (`classical.py`).

Each training leaves a small file with the counts of each image. Started again,
the script trains what is missing. Each network has a process of its own, which
also times its predictions. Then `networks.csv`, `networks.md` and
`networks.png` are written from all files that are there.

A training that fails leaves a file with its error, which these tables show;
remove it to try again. To time all predictions in one run, remove the `.json`
files and start the script again.
"""

import argparse
import copy
import functools
import json
import pathlib
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import measured
import networks_report
import numpy as np
from absl import logging
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.classical import catalog as methods
from skinseg_jax.classical import parameters
from skinseg_jax.data import cache, splits
from skinseg_jax.data.sources import catalog, interface
from skinseg_jax.inference import forward_pass
from skinseg_jax.models import build
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
NETWORKS = {
  'unet': _scratch('unet', 16),
  'attention_unet': _scratch('attention_unet', 8),
  'segnet': _scratch('segnet', 16),
  'resunetplusplus': _scratch('resunetplusplus', 8),
  **{f'{name}_lite0_scratch': _scratch(name) for name in _ON_ENCODER},
  **{f'{name}_lite0': _pretrained(name) for name in _ON_ENCODER},
}
_IN_VIEW = lambda view: [n for n, each in NETWORKS.items() if each.view == view]
VIEWS = {
  'scratch': networks_report.View(_IN_VIEW('scratch'), 'unet'),
  'pretrained': networks_report.View(_IN_VIEW('pretrained'), 'unet_lite0'),
  'classical': networks_report.View([*parameters.METHODS], 'unet'),
}
# Predictions are timed on so many images, this many times.
_TIMED_IMAGES, _TIMED_TURNS = 32, 5
_CRASHES = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)


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


def try_rates(
  name: str,
  setting: Setting,
  folder: pathlib.Path,
  source: interface.Source,
  data_dir: pathlib.Path,
) -> dict[float, float]:
  """Dice per image, on lesions that are kept out, by rate."""
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
  return found


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
) -> dict[str, object]:
  """Chooses the rate of a network, then trains and scores each seed.

  An error of the training is kept in `<name>.failed`; the others go on.

  Returns:
    What was chosen; empty if the training failed.
  """
  failed = folder / f'{name}.failed'
  if failed.exists():
    return {}
  try:
    tried = try_rates(name, setting, folder, source, data_dir)
    rate = max(tried, key=lambda each: tried[each])
    for seed in seeds:
      each = config(NETWORKS[name], setting, rate, data_dir)
      each.train.seed = seed
      _measured(f'{name}_seed{seed}', each, folder, source)
  except errors.InputError:
    raise  # Of the data or the folder, not of the network.
  except Exception as error:
    print(traceback.format_exc(), file=sys.stderr)
    failed.write_text(f'{type(error).__name__}: {error}\n', encoding='utf-8')
    return {}
  return {
    'learning_rate': rate,
    'tried': {f'{each:g}': round(dice, 4) for each, dice in tried.items()},
    **setting._asdict(),
  }


def score_classical(
  name: str,
  setting: Setting,
  folder: pathlib.Path,
  source: interface.Source,
  data_dir: pathlib.Path,
) -> None:
  """Scores a classical method on the images that networks are scored on."""
  path, method = folder / f'{name}.npz', methods.find(name)
  image_ids = _paper(source).validation
  fingerprint = measured.digest(method, setting.image_size, image_ids)
  if measured.is_measured(path, fingerprint):
    return
  print(name, flush=True)
  import classical  # Needs packages that are optional.

  images = classical.read_images(
    source, image_ids, setting.image_size, data_dir
  )
  counts, _ = classical.counts(method, images)
  measured.save(path, fingerprint=fingerprint, **counts)


def milliseconds(
  name: str,
  setting: Setting,
  source: interface.Source,
  data_dir: pathlib.Path,
) -> float:
  """Time of a prediction per image, of batches of 32.

  A network has random weights, which take the same time.
  """
  data = cache.open_cache(source, (setting.image_size,) * 2, data_dir)
  images = np.asarray(data.images[:: len(data.images) // _TIMED_IMAGES])
  images = images[:_TIMED_IMAGES]
  predict = _predictor(name, setting)
  predict(images)  # Compiles.
  seconds = []
  for _ in range(_TIMED_TURNS):
    began = time.perf_counter()
    predict(images)
    seconds.append(time.perf_counter() - began)
  return 1000 * float(np.median(seconds)) / len(images)


def _predictor(name: str, setting: Setting) -> Callable[[np.ndarray], object]:
  """Predicts uint8 images [N, H, W, 3]; all work is done when it returns."""
  if name in parameters.METHODS:
    segment = methods.segmenter(methods.find(name))
    return lambda images: [segment(image) for image in images]
  model_config = copy.deepcopy(NETWORKS[name].model)
  model_config.encoder_weights = ''
  model_config.compute_dtype = setting.compute_dtype
  model = build.create(model_config, seed=0)
  predict = functools.partial(
    forward_pass.forward,
    build.in_evaluation_mode(model),
    nnx.state(model),
    views='off',
  )
  return lambda images: jax.block_until_ready(predict(images))


def _paper(source: interface.Source) -> splits.Split:
  return splits.make_split(
    config_lib.DataConfig(split='paper'), source.metadata
  )


def main(argv: list[str]) -> None:
  """Measures what is missing, then writes table and figure."""
  args = _parse(argv)
  folder = args.output_dir / args.setting
  folder.mkdir(parents=True, exist_ok=True)
  names = args.only or [*NETWORKS, *parameters.METHODS]
  if len(names) == 1:
    _measure(names[0], folder, args)
    return
  for name in names:
    _in_a_process(argv, name, folder)
  print((folder / 'networks.md').read_text())


def _in_a_process(argv: list[str], name: str, folder: pathlib.Path) -> None:
  """Runs this script for one name.

  After some trainings in one process, the compiler finds no more memory.
  """
  code = subprocess.call([sys.executable, *argv, '--only', name])
  if -code in _CRASHES:
    crash = signal.Signals(-code).name
    (folder / f'{name}.failed').write_text(f'ended by {crash}\n')
  elif code:
    sys.exit(code)


def _measure(name: str, folder: pathlib.Path, args: argparse.Namespace) -> None:
  logging.set_verbosity(logging.ERROR)
  source = catalog.open_source(
    config_lib.DataConfig(data_dir=str(args.data_dir)), download=False
  )
  setting = SETTINGS[args.setting]
  about: dict[str, object]
  if name in NETWORKS:
    about = study(name, args.seeds, setting, folder, source, args.data_dir)
  else:
    score_classical(name, setting, folder, source, args.data_dir)
    about = {'image_size': setting.image_size}
  path = folder / f'{name}.json'
  if about and not path.exists():
    about['predict_ms'] = round(
      milliseconds(name, setting, source, args.data_dir), 2
    )
    path.write_text(json.dumps(about, indent=2) + '\n')
  lesions = {row['image_id']: row['lesion_id'] for row in source.metadata}
  networks_report.write(
    folder, VIEWS, args.seeds, [lesions[i] for i in _paper(source).validation]
  )


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  path = pathlib.Path
  names = [*NETWORKS, *parameters.METHODS]
  add('--output_dir', type=path, required=True, help='for the results')
  add('--data_dir', type=path, default=path('data'))
  add('--setting', choices=list(SETTINGS), default='cpu')
  add('--seeds', nargs='+', type=int, default=[0, 1], help='of the trainings')
  add('--only', nargs='+', choices=names, help='what to measure')
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
