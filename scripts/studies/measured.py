"""Trains cases of a study, scores each, and keeps the counts of each image.

A case is measured once: its counts are in a small file, with the time of its
training and a fingerprint of its config and images.
"""

import hashlib
import pathlib
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, input_pipeline, splits
from skinseg_jax.data.sources import interface
from skinseg_jax.evaluation import scoring
from skinseg_jax.inference import trained_model
from skinseg_jax.metrics import confusion
from skinseg_jax.models import layers
from skinseg_jax.runtime import errors, stop_signals
from skinseg_jax.training import train_state
from skinseg_jax.training import trainer as trainer_lib

# Pixel counts, and scores, of each image by name.
Counts = Mapping[str, np.ndarray]
Scores = Mapping[str, np.ndarray]
# Ends the name of a case with recomputed batch-norm statistics.
RECOMPUTED = ', statistics recomputed'
_BATCH_SIZE = 32  # For evaluation.


def inner_split(metadata: list[dict[str, str]]) -> splits.Split:
  """Splits the paper's training images by lesion; a fifth are validation."""
  paper = splits.make_split(config_lib.DataConfig(split='paper'), metadata)
  kept = set(paper.train)
  return splits.make_split(
    config_lib.DataConfig(split='lesion', validation_fraction=0.2),
    [row for row in metadata if row['image_id'] in kept],
  )


def measure(
  configs: Mapping[str, config_lib.Config],
  folder: pathlib.Path,
  source: interface.Source,
  *,
  recompute: bool,
) -> None:
  """Trains once for all `configs`, scores each, and saves the counts.

  Args:
    configs: Configs by case; they differ only in `evaluation`.
    folder: Folder for the results, `<case>.npz` with `tp`, `fp`, `fn`, `tn`,
      int [N], the training time in `seconds`, the processor time of all cores
      in `cpu_seconds`, and the case's `fingerprint`.
    source: The images of `data.split`.
    recompute: Whether to score an average of the weights a second time, with
      recomputed batch-norm statistics.
  """
  config = next(iter(configs.values()))
  split = splits.make_split(config.data, source.metadata)
  data = cache.open_cache(
    source, config.data.image_size, pathlib.Path(config.data.data_dir)
  )
  began, cpu = time.perf_counter(), time.process_time()
  with tempfile.TemporaryDirectory() as workdir:
    begin = train_state.find_initial_weights(config)
    home, stop = pathlib.Path(workdir), stop_signals.StopSignals()
    trainer = trainer_lib.Trainer(config, home, data, split, begin, stop)
    try:
      while trainer.step < config.train.epochs * trainer.steps_per_epoch:
        trainer.train_epoch()
      seconds = time.perf_counter() - began
      cpu_seconds = time.process_time() - cpu
      model = trainer.trained_model()
    finally:
      trainer.close()
  states = {'': model.state}
  # Scored first: a case counts as measured once its file without suffix exists.
  if recompute and config.train.ema:
    recomputed = recomputed_statistics(model, data, split.train)
    states = {RECOMPUTED: recomputed, **states}
  for name, each in configs.items():
    for suffix, state in states.items():
      counts = scoring.score(
        model.graphdef,
        state,
        _batches(data, split.validation, model),
        threshold=each.evaluation.threshold,
        views=each.evaluation.test_time_augmentation,
      )
      save(
        folder / f'{name}{suffix}.npz',
        fingerprint=fingerprint(each, split),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        **counts,
      )


def save(path: pathlib.Path, **arrays: Any) -> None:
  """Writes a file that is there whole or not at all."""
  part = path.with_suffix('.part')
  with part.open('wb') as file:
    np.savez_compressed(file, **arrays)
  part.replace(path)


def fingerprint(config: config_lib.Config, split: splits.Split) -> str:
  """Identifies the config and the images that a result belongs to."""
  values = {
    name: value
    for name, value in config_lib.flat(config).items()
    if name not in ('data.data_dir', 'data.split')
  }
  return digest(sorted(values.items()), split.train, split.validation)


def digest(*values: Any) -> str:
  """A hash of the values, which differ where their `repr` does."""
  return hashlib.sha256(repr(values).encode()).hexdigest()


def is_measured(path: pathlib.Path, wanted: str) -> bool:
  """Whether the result of a case exists.

  Raises:
    InputError: If the fingerprint of the result is not `wanted`.
  """
  if not path.exists():
    return False
  with np.load(path) as arrays:
    found = str(arrays['fingerprint']) if 'fingerprint' in arrays else ''
  if found != wanted:
    raise errors.InputError(
      f'{path} was measured with another config or on other images; remove it'
      ' or give another folder for the results.'
    )
  return True


def recomputed_statistics(
  model: trained_model.TrainedModel,
  data: cache.CachedData,
  image_ids: Sequence[str],
) -> Any:
  """The model's state with batch-norm statistics recomputed on some images.

  The new statistics are means over at most 64 whole batches of images that are
  evenly spread over `image_ids` and not augmented. All are computed with the
  weights of `model`.
  """
  running = lambda state: nnx.filter_state(state, nnx.BatchStat)
  average = nnx.merge(model.graphdef, model.state)
  graphdef = nnx.graphdef(nnx.view(average, use_running_average=False))

  @jax.jit
  def statistics(state, images):
    # Copied, because the merged model shares its variables with `state`.
    before = jax.tree.map(lambda x: x, running(state))
    copy = nnx.merge(graphdef, state)
    copy(images.astype(np.float32) / 255.0)
    # One batch moves the running statistics by the share 1 - MOMENTUM; this
    # formula recovers the statistics of the batch alone.
    return jax.tree.map(
      lambda new, old: old + (new - old) / (1 - layers.MOMENTUM),
      running(nnx.state(copy)),
      before,
    )

  whole = _BATCH_SIZE * min(64, len(image_ids) // _BATCH_SIZE)
  chosen = [image_ids[i * len(image_ids) // whole] for i in range(whole)]
  found = [
    statistics(model.state, batch['image'])
    for batch in _batches(data, chosen, model)
  ]
  mean = jax.tree.map(lambda *each: sum(each) / len(each), *found)
  return nnx.merge_state(model.state, mean)


def _batches(data, image_ids, model):
  return input_pipeline.evaluation_batches(
    data,
    input_pipeline.select(data, image_ids),
    batch_size=_BATCH_SIZE,
    sharding=model.sharding,
  )


def read(paths: Sequence[pathlib.Path]) -> tuple[Counts, Scores]:
  """Reads the results of one case, one file for each seed.

  Returns:
    `tp`, `fp`, `fn`, `tn`, int64 [N], summed over seeds, and `dice` and
    `threshold_jaccard`, float [N], averaged over seeds.
  """
  per_seed = []
  for path in paths:
    with np.load(path) as arrays:
      per_seed.append({n: arrays[n].astype(np.int64) for n in confusion.COUNTS})
  counts = {n: sum(seed[n] for seed in per_seed) for n in confusion.COUNTS}
  ratios = [confusion.ratios(seed) for seed in per_seed]
  jaccard = [confusion.thresholded_jaccard(seed['iou']) for seed in ratios]
  return counts, {
    'dice': np.mean([seed['dice'] for seed in ratios], axis=0),
    'threshold_jaccard': np.mean(jaccard, axis=0),
  }


def seconds(paths: Iterable[pathlib.Path], clock: str) -> list[float]:
  """Time of each training, by a clock of `measure`."""
  found = []
  for path in paths:
    with np.load(path) as arrays:
      found.append(float(arrays[clock]))
  return found
