"""Compares networks and classical methods under one protocol.

python scripts/studies/networks.py --output_dir docs/benchmarks/networks
  --data_dir DIR [--setting cpu] [--only NAME ...] [--seeds 0 1]

Two views of networks. `scratch`: networks without an encoder start from random
weights. Their widths make a step about as costly as that of U-Net of width 16,
by forward pass and gradient at 128 px on one core: Attention U-Net .8, SegNet
1.0. ResUNet++ has its least width and costs 1.9. `pretrained`: all networks
that take an encoder have the same one, EfficientNet-Lite0 with ImageNet
weights.

For each network the learning rate is chosen with trainings of as many epochs on
2,000 of the paper's training images, scored on 400 of other lesions. Then each
seed is trained. Only its scores after the last epoch, on the paper's validation
images, are kept. Everything else is the same for all networks.

Classical methods see the same images at the same size. Their parameters were
chosen on training images before (`classical.py`).

Each training leaves a small file with the counts of each image. Started again,
the script trains what is missing. To use two cores well, start the command
twice, each time on one core (`taskset -c 0`, `taskset -c 1`): what one process
measures, the other leaves out. `networks.csv`, `networks.md` and `networks.png`
are written after each network from all files that are there.

What fails leaves `NAME.failed`, which these tables show; remove it to try
again. Predictions are timed once; to time all in one run, remove the `.json`
files and start the script again.
"""

import argparse
import copy
import fcntl
import functools
import json
import multiprocessing
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import measured
import networks_protocol as protocol
import networks_report
import numpy as np
from absl import logging
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.classical import catalog as methods
from skinseg_jax.classical import parameters
from skinseg_jax.data import cache, splits
from skinseg_jax.data.sources import catalog, interface
from skinseg_jax.inference import forward_pass
from skinseg_jax.models import build
from skinseg_jax.runtime import errors
from skinseg_jax.training import train_state

# Predictions are timed on so many images, this many times.
_TIMED_IMAGES, _TIMED_TURNS = 32, 5
# Exit codes of a process that was asked to stop.
_STOPPED = (-signal.SIGINT, -signal.SIGTERM, 130, errors.StoppedError.exit_code)


class Study(NamedTuple):
  """Where the results go and what they are made of."""

  folder: pathlib.Path
  setting: protocol.Setting
  seeds: Sequence[int]
  source: interface.Source
  data_dir: pathlib.Path

  def config(self, name: str, rate: float) -> config_lib.Config:
    """The config of a network, seed 0."""
    model = protocol.NETWORKS[name]
    return protocol.config(model, self.setting, rate, self.data_dir)

  def paper(self) -> splits.Split:
    """The paper's split."""
    return splits.make_split(
      config_lib.DataConfig(split='paper'), self.source.metadata
    )

  def images(self) -> cache.CachedData:
    """All images at the size of the setting."""
    size = (self.setting.image_size,) * 2
    return cache.open_cache(self.source, size, self.data_dir)


def open_study(args: argparse.Namespace) -> Study:
  """Opens the data and makes the folder."""
  folder = args.output_dir / args.setting
  (folder / '.locks').mkdir(parents=True, exist_ok=True)
  source = catalog.open_source(
    config_lib.DataConfig(data_dir=str(args.data_dir)), download=False
  )
  setting = protocol.SETTINGS[args.setting]
  return Study(folder, setting, args.seeds, source, args.data_dir)


def train(name: str, study: Study) -> dict[str, Any]:
  """Chooses the rate of a network, then trains and scores each seed.

  Returns:
    The rate and how good each one was.

  Raises:
    DivergenceError: If the training diverges with each rate, or with the one
      that was chosen.
  """
  tried = try_rates(name, study)
  rate = max(tried, key=lambda each: tried[each])
  for seed in study.seeds:
    config = study.config(name, rate)
    config.train.seed = seed
    _measured(f'{name}_seed{seed}', config, study)
  return {
    'learning_rate': rate,
    'tried': {f'{each:g}': round(dice, 4) for each, dice in tried.items()},
  }


def try_rates(name: str, study: Study) -> dict[float, float]:
  """Dice per image by rate, on lesions that are kept out.

  It is -1 where the training diverged.

  Raises:
    DivergenceError: If it diverged with each rate.
  """
  found: dict[float, float] = {}
  for rate in (*protocol.RATES, *protocol.LARGER_RATES):
    if rate in protocol.LARGER_RATES and found[max(found)] < max(
      found.values()
    ):
      break
    found[rate] = _try_rate(f'{name}_rate{rate:g}', rate, name, study)
  if max(found.values()) < 0:
    raise errors.DivergenceError('the training diverged with each rate')
  return found


def _try_rate(case: str, rate: float, name: str, study: Study) -> float:
  diverged = study.folder / f'{case}.diverged'
  if diverged.exists():
    return -1.0
  config = study.config(name, rate)
  config.data.split = str(study.folder / 'choice_split.csv')
  try:
    path = _measured(case, config, study)
  except errors.DivergenceError as error:
    diverged.write_text(f'{error}\n', encoding='utf-8')
    return -1.0
  _, scores = measured.read([path])
  return float(scores['dice'].mean())


def _measured(
  case: str, config: config_lib.Config, study: Study
) -> pathlib.Path:
  """Trains and scores, unless that was done; the file with the counts."""
  path = study.folder / f'{case}.npz'
  split = splits.make_split(config.data, study.source.metadata)
  if not measured.is_measured(path, measured.fingerprint(config, split)):
    print(case, flush=True)
    measured.measure(
      {case: config}, study.folder, study.source, recompute=False
    )
  return path


def score_classical(name: str, study: Study) -> dict[str, Any]:
  """Scores a classical method on the images that networks are scored on.

  Returns:
    Nothing more to tell of it.
  """
  path, method = study.folder / f'{name}.npz', methods.find(name)
  image_ids = study.paper().validation
  fingerprint = measured.digest(method, study.setting.image_size, image_ids)
  if not measured.is_measured(path, fingerprint):
    print(name, flush=True)
    import classical  # Needs packages that are optional.

    images = classical.select(study.images(), image_ids)
    counts = classical.counts(method, images)
    measured.save(path, fingerprint=fingerprint, **counts)
  return {}


def milliseconds(name: str, study: Study) -> float:
  """Time of a prediction per image.

  A network predicts 32 images at once. It has random weights, which take the
  same time. A classical method takes one image after the other.
  """
  all_images = study.images().images
  images = np.asarray(all_images[:: len(all_images) // _TIMED_IMAGES])
  images = images[:_TIMED_IMAGES]
  predict = _predictor(name, study.setting)
  predict(images)  # Compiles.
  seconds = []
  for _ in range(_TIMED_TURNS):
    began = time.perf_counter()
    predict(images)
    seconds.append(time.perf_counter() - began)
  return 1000 * float(np.median(seconds)) / len(images)


def _predictor(
  name: str, setting: protocol.Setting
) -> Callable[[np.ndarray], object]:
  """Predicts uint8 images [N, H, W, 3]; all work is done when it returns."""
  if name in parameters.METHODS:
    segment = methods.segmenter(methods.find(name))
    return lambda images: [segment(image) for image in images]
  config = copy.deepcopy(protocol.NETWORKS[name])
  config.encoder_weights = ''
  config.compute_dtype = setting.compute_dtype
  model = build.create(config, seed=0)
  predict = functools.partial(
    forward_pass.forward,
    build.in_evaluation_mode(model),
    nnx.state(model),
    views='off',
  )
  return lambda images: jax.block_until_ready(predict(images))


def measure(name: str, study: Study) -> None:
  """Measures a network or a method, and writes `NAME.json` when it is done.

  What fails is written to `NAME.failed`.
  """
  run = train if name in protocol.NETWORKS else score_classical
  path = study.folder / f'{name}.json'
  try:
    about = {**run(name, study), **study.setting._asdict()}
    before = json.loads(path.read_text()) if path.exists() else {}
    about['predict_ms'] = before.get('predict_ms') or round(
      milliseconds(name, study), 2
    )
  except errors.InputError:
    raise  # Of the data or the folder, not of the network.
  except Exception as error:
    print(traceback.format_exc(), file=sys.stderr)
    _fail(study.folder, name, f'{type(error).__name__}: {error}')
    return
  part = path.with_suffix('.part')
  part.write_text(json.dumps(about, indent=2) + '\n')
  part.replace(path)


def _fail(folder: pathlib.Path, name: str, why: str) -> None:
  (folder / f'{name}.failed').write_text(f'{why}\n', encoding='utf-8')


def _child(name: str, args: argparse.Namespace) -> None:
  logging.set_verbosity(logging.ERROR)
  errors.exit_with_message(lambda _: _measure_alone(name, args), [])


def _measure_alone(name: str, args: argparse.Namespace) -> None:
  """Measures, unless another process does."""
  study = open_study(args)
  with (study.folder / '.locks' / name).open('w') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f'{name}: another process measures it', flush=True)
      return
    measure(name, study)


def main(argv: list[str]) -> None:
  """Measures what is missing, then writes table and figure."""
  args = _parse(argv)
  study = open_study(args)
  for name in set(args.only) & {*parameters.METHODS}:
    methods.find(name)  # Says early that packages are missing.
  for name in set(args.only) & {*protocol.NETWORKS}:  # Or files of weights.
    train_state.find_initial_weights(study.config(name, protocol.RATES[0]))
  # So that a process is not left behind.
  signal.signal(
    signal.SIGTERM, lambda *_: sys.exit(errors.StoppedError.exit_code)
  )
  with (study.folder / '.locks' / 'all').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    choice = protocol.choice_split(study.source.metadata)
    splits.write_split(choice, study.folder / 'choice_split.csv')
  for name in args.only:
    if not (study.folder / f'{name}.failed').exists():
      _measure_apart(name, args, study.folder)
    with (study.folder / '.locks' / 'all').open('w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      report(study, in_wall_time=args.setting == 'gpu')
  print((study.folder / 'networks.md').read_text())


def _measure_apart(
  name: str, args: argparse.Namespace, folder: pathlib.Path
) -> None:
  """Measures in a process of its own.

  After some trainings in one process, the compiler finds no more memory.
  """
  context = multiprocessing.get_context('spawn')
  process = context.Process(target=_child, args=(name, args), daemon=True)
  process.start()
  process.join()
  code = process.exitcode
  if code in _STOPPED or code == errors.InputError.exit_code:
    sys.exit(code if code > 0 else errors.StoppedError.exit_code)
  if code:
    _fail(folder, name, f'the process ended with exit code {code}')


def report(study: Study, *, in_wall_time: bool) -> None:
  """Writes table and figure from all files that are there."""
  paper = study.paper()
  lesions = {row['image_id']: row['lesion_id'] for row in study.source.metadata}
  networks_report.write(
    study.folder,
    protocol.VIEWS,
    [lesions[name] for name in paper.validation],
    {lesions[name] for name in paper.train},
    in_wall_time=in_wall_time,
  )


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  path = pathlib.Path
  names = [*protocol.NETWORKS, *parameters.METHODS]
  add('--output_dir', type=path, required=True, help='for the results')
  add('--data_dir', type=path, default=path('data'))
  add('--setting', choices=list(protocol.SETTINGS), default='cpu')
  add('--seeds', nargs='+', type=int, default=[0, 1], help='of the trainings')
  add('--only', nargs='+', choices=names, default=names, help='what to measure')
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
