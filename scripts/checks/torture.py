"""Kills a training run repeatedly and checks that the result is unchanged.

python scripts/checks/torture.py --directory DIR [--kills 100]
  [--stops 20] [--seed 0]

The run builds the data set (generated images in the layout of HAM10000) and the
cache, then trains, scores and reports a tiny U-Net like `skinseg_jax.main`. It
receives SIGKILL after a random time, or just after a file of interest appears,
and is restarted after each kill. It must end with the same weights, optimiser,
log, event files and scores as an undisturbed run. The script then removes data
set, cache and run and starts the next round, until it has made `--kills` kills.
Finally, one run is stopped by SIGTERM after each of `--stops` random steps,
without other checkpoints in between. Each kill or stop takes about ten seconds.
Needs Linux.
"""

import argparse
import csv
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import random
import shutil
import signal
import sys
import time

# Everything is imported before any fork; JAX must not start in this process.
import jax
import numpy as np
import tensorflow_datasets  # noqa: F401
from absl import logging
from clu import metric_writers  # noqa: F401
from PIL import Image
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.compat.proto import event_pb2

from skinseg_jax import config as config_lib
from skinseg_jax import main
from skinseg_jax.data import input_pipeline
from skinseg_jax.data.sources import synthetic
from skinseg_jax.run import checkpointing, metric_writer, run_folder
from skinseg_jax.runtime import errors, stop_signals
from skinseg_jax.training import train_state

_CONFIG = pathlib.Path(__file__).parents[2] / 'configs' / 'ham10000_small.py'
# 24 images, 18 of them for training: four updates per epoch, 24 in total.
_OVERRIDES = (
  'data.image_size=(32,32)',
  'data.split=random',
  'data.validation_fraction=0.25',
  'model.width=2',
  'train.batch_size=4',
  'train.epochs=6',
  'train.log_every_steps=3',
  'evaluation.batch_size=4',
)
_IMAGES, _UPDATES = 24, 24
# Files that trigger a kill when they appear: files that exist only briefly, or
# that mark the start of a stage.
_MOMENTS = (
  'data/ham10000/incomplete.*',
  'data/ham10000/incomplete.*/*array_record*',
  'data/cache/.*.partial',
  'data/cache/.*.partial/masks.npy',
  'data/cache/ham10000-*',
  'run/split.csv',
  'run/environment.json',
  'run/config.json',
  'run/events.tmp',
  'run/metrics.jsonl',
  'run/checkpoints/*.orbax-checkpoint-tmp',
  'run/checkpoints/*.orbax-checkpoint-tmp/*',
  'run/checkpoints/*',
  'run/evaluation/*/*',
)
# Unfinished files that a kill may leave.
_HALF_DONE = (
  'data/ham10000/incomplete.*',
  'data/cache/.*.partial',
  'run/*.tmp',
  'run/checkpoints/*.orbax-checkpoint-tmp',
)


def run(argv: list[str]) -> None:
  """Parses the command line and runs the test.

  Raises:
    InputError: If a run does not end like the undisturbed run.
  """
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--directory', type=pathlib.Path, required=True)
  parser.add_argument('--kills', type=int, default=100)
  parser.add_argument('--stops', type=int, default=20)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args(argv[1:])
  directory = args.directory.absolute()
  shutil.rmtree(directory, ignore_errors=True)
  _write_raw_files(directory / 'raw')
  for _ in range(2):  # The first compiles for all runs; the second is timed.
    _clear(directory)
    began = time.perf_counter()
    _attempt(directory, kill=None)
    lifetime = time.perf_counter() - began
  expected = (directory / 'digest.json').read_text('utf-8')
  print(f'undisturbed: {lifetime:.1f} s, {expected}', flush=True)
  rng, kills, rounds, half_done = random.Random(args.seed), 0, 0, {}
  while kills < args.kills or rounds == 0:
    _clear(directory)
    while not (directory / 'digest.json').exists():
      enough = kills == args.kills
      kill = None if enough else _choose_kill(rng, lifetime)
      if _attempt(directory, kill=kill):
        kills += 1
        left = [p for p in _HALF_DONE if any(directory.glob(p))]
        half_done.update({p: half_done.get(p, 0) + 1 for p in left})
        print(f'kill {kills}: {_describe(directory, kill, left)}', flush=True)
    _check(directory, expected)
    rounds += 1
    print(f'round {rounds}: as undisturbed', flush=True)
  print(f'{kills} kills in {rounds} rounds, each ended as undisturbed')
  print(f'kills that left unfinished files: {json.dumps(half_done)}')
  _clear(directory)
  stops = sorted(rng.sample(range(1, _UPDATES), args.stops))
  for step in stops:
    _attempt(directory, kill=None, stop=step)
  _attempt(directory, kill=None)
  _check(directory, expected)
  print(f'{len(stops)} stops, as undisturbed: after updates {stops}')


def _check(directory: pathlib.Path, expected: str) -> None:
  found = (directory / 'digest.json').read_text('utf-8')
  if found != expected:
    raise errors.InputError(f'differs: {found}, expected {expected}')


@dataclasses.dataclass(frozen=True)
class Kill:
  """When to kill.

  Attributes:
    latest: Latest time of the kill, in seconds after the start.
    pattern: Kill earlier if a new file matches this pattern; '' for none.
    delay: Seconds to wait after the file appeared.
  """

  latest: float
  pattern: str
  delay: float


def _choose_kill(rng: random.Random, lifetime: float) -> Kill:
  latest = rng.uniform(0, 1.1 * lifetime)
  if rng.random() < 0.3:
    return Kill(latest, '', 0.0)
  return Kill(
    max(latest, lifetime / 2),
    rng.choice(_MOMENTS),
    rng.choice((0.0, rng.uniform(0, 0.05))),
  )


def _attempt(
  directory: pathlib.Path, kill: Kill | None, stop: int | None = None
) -> bool:
  """Runs the program in a separate process; returns whether it was killed.

  Args:
    directory: Folder of raw files, data set and run.
    kill: When to send SIGKILL; None for never.
    stop: Number of updates after which the process receives SIGTERM. With None
      it never does, and saves a checkpoint after every update.

  Raises:
    InputError: If the process ended by itself with an unexpected exit code.
  """
  find = lambda: set(directory.glob(kill.pattern)) if kill.pattern else set()
  there = find() if kill else set()
  child = os.fork()
  if child == 0:
    _child(directory, stop)
  due = time.monotonic() + kill.latest if kill else math.inf
  seen, killed = False, False
  while (
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
  ):
    if kill and not seen and find() - there:
      seen, due = True, min(due, time.monotonic() + kill.delay)
    if time.monotonic() >= due and not killed:
      os.kill(child, signal.SIGKILL)
      killed = True
    time.sleep(0.001)
  code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  if code == -signal.SIGKILL and killed:
    return True
  if code != (0 if stop is None else errors.StoppedError.exit_code):
    raise errors.InputError(
      f'ended with {code}:\n'
      + (directory / 'output.txt').read_text('utf-8')[-4000:]
    )
  return False


def _child(directory: pathlib.Path, stop: int | None) -> None:
  """Trains, reports and writes the digest; never returns."""
  output = os.open(
    directory / 'output.txt', os.O_WRONLY | os.O_CREAT | os.O_TRUNC
  )
  os.dup2(output, 1)
  os.dup2(output, 2)
  code = 1
  try:
    logging.set_verbosity(logging.ERROR)
    # The undisturbed run fills the compilation cache for all other runs.
    jax.config.update('jax_compilation_cache_dir', str(directory / 'compiled'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
    sys.argv = [
      'main',
      f'--config={_CONFIG}',
      f'--workdir={directory / "run"}',
      f'--config.data.data_dir={directory / "data"}',
      f'--config.data.raw_dir={directory / "raw"}',
      f'--config.train.checkpoint_every_steps={int(stop is None)}',
      *(f'--config.{override}' for override in _OVERRIDES),
    ]
    _stop_after(stop)
    main.run(sys.argv)
    run_folder.write_json(directory / 'digest.json', _digest(directory))
    code = 0
  except errors.StoppedError as error:
    code = error.exit_code
  except BaseException as error:  # The parent must see any error.
    print(repr(error), file=sys.stderr)
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _stop_after(update: int | None) -> None:
  """Makes this process send itself SIGTERM after an update."""
  reached = stop_signals.StopSignals.reached

  def signalled(self, step: int) -> bool:
    if step == update and not self.requested:
      os.kill(os.getpid(), signal.SIGTERM)
    return reached(self, step)

  stop_signals.StopSignals.reached = signalled


def _digest(directory: pathlib.Path) -> dict[str, str]:
  """Hashes of the results that a run must reproduce, without times."""
  workdir = directory / 'run'
  config = config_lib.load(workdir / 'config.json')
  state = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  ).state
  checkpoints = checkpointing.Checkpoints(
    run_folder.checkpoints_dir(workdir), read_only=True
  )
  step, checkpoint = checkpoints.restore_latest(
    checkpointing.Checkpoint(state[0], state[1], None, None)
  )
  best = checkpoints.resolve('best')
  checkpoints.close()
  arrays = [
    np.asarray(leaf).tobytes()
    for leaf in jax.tree.leaves((checkpoint.model, checkpoint.optimizer))
  ]
  records = metric_writer.read(workdir)
  logged = sorted(
    (record['step'], name)
    for record in records
    for name in record
    if name != 'step'
  )
  if _events(workdir) != logged:
    raise errors.InputError('the event files and the log differ')
  timeless = [
    {k: v for k, v in r.items() if 'seconds' not in k and '_per_' not in k}
    for r in records
  ]
  per_image = workdir / 'evaluation' / 'validation' / 'per_image.csv'
  return {
    'step': str(step),
    'best': str(best),
    'arrays': _hash(b''.join(arrays)),
    'position': json.dumps(checkpoint.data),
    'log': _hash(json.dumps(timeless).encode()),
    'lines': str(len(records)),
    'scores': _hash(per_image.read_bytes()),
  }


def _events(workdir: pathlib.Path) -> list[tuple[int, str]]:
  """Step and name of every scalar in all event files, with duplicates."""
  return sorted(
    (event.step, value.tag)
    for path in workdir.glob('events.out.tfevents.*')
    for event in map(
      event_pb2.Event.FromString,
      event_file_loader.RawEventFileLoader(str(path)).Load(),
    )
    for value in event.summary.value
  )


def _hash(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()[:16]


def _clear(directory: pathlib.Path) -> None:
  shutil.rmtree(directory / 'data', ignore_errors=True)
  shutil.rmtree(directory / 'run', ignore_errors=True)
  (directory / 'digest.json').unlink(missing_ok=True)


def _describe(directory: pathlib.Path, kill: Kill, left: list[str]) -> str:
  steps = sorted(
    int(path.name)
    for path in directory.glob('run/checkpoints/*')
    if path.name.isdecimal()
  )
  return (
    f'{kill.delay:.3f} s after {kill.pattern or "nothing"}, after'
    f' {kill.latest:.1f} s at the latest;'
    f' data set {any(directory.glob("data/ham10000/1.*"))},'
    f' cache {any(directory.glob("data/cache/ham10000-*"))},'
    f' checkpoints {steps}, unfinished {left}'
  )


def _write_raw_files(directory: pathlib.Path) -> None:
  """Writes generated lesions in the layout of the unpacked HAM10000."""
  source = synthetic.SyntheticSource(num_images=_IMAGES, size=(32, 32), seed=0)
  images = directory / 'HAM10000_images_part_1'
  masks = directory / 'HAM10000_segmentations_lesion_tschandl'
  images.mkdir(parents=True)
  masks.mkdir()
  rows = []
  for index in range(len(source)):
    image_id = f'ISIC_{24306 + index:07d}'
    Image.fromarray(source[index]['image']).save(images / f'{image_id}.jpg')
    Image.fromarray(255 * source[index]['mask']).save(
      masks / f'{image_id}_segmentation.png'
    )
    rows.append(
      {
        'lesion_id': f'HAM_{index:07d}',
        'image_id': image_id,
        'dx': 'nv',
        'dx_type': 'histo',
        'age': '50.0',
        'sex': 'male',
        'localization': 'back',
        'dataset': 'vidir_modern',
      }
    )
  with (directory / 'HAM10000_metadata.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


if __name__ == '__main__':
  errors.exit_with_message(run, sys.argv)
