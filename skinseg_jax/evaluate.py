"""Scores a model on every image of a subset.

python -m skinseg_jax.evaluate --workdir DIR [--checkpoint best|last|STEP]
"""

import argparse
import csv
import functools
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from skinseg_jax import (
  checkpointing,
  errors,
  losses,
  metrics,
  paper,
  run_folder,
  train_state,
)
from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, input_pipeline, sources, splits


@functools.partial(jax.jit, static_argnames='threshold')
def eval_step(
  eval_graphdef: nnx.GraphDef,
  model_state: Any,
  batch: Mapping[str, jax.Array],
  *,
  threshold: float,
) -> dict[str, jax.Array]:
  """Scores each image of a batch.

  Returns:
    `loss`, float32 [B], `tp`, `fp`, `fn`, `tn`, int32 [B], and `valid`,
    bool [B], False for padding.
  """
  model = nnx.merge(eval_graphdef, model_state)
  logits = model(batch['image'].astype(np.float32) / 255.0)
  return {
    'loss': losses.bce_with_logits(logits, batch['mask']),
    'valid': batch['valid'],
    **metrics.confusion_counts(logits, batch['mask'], threshold=threshold),
  }


def score(
  eval_graphdef: nnx.GraphDef,
  model_state: Any,
  batches: Iterable[Mapping[str, jax.Array]],
  *,
  threshold: float,
) -> dict[str, np.ndarray]:
  """Scores every image once, in order.

  Returns:
    `loss`, float [N], and `tp`, `fp`, `fn`, `tn`, int [N].
  """
  iterator = iter(batches)
  scored = [
    eval_step(eval_graphdef, model_state, batch, threshold=threshold)
    for batch in iterator
  ]
  iterator.close()
  # Every process gets the scores of all images.
  gathered = multihost_utils.process_allgather(scored, tiled=True)
  whole = {
    name: np.concatenate([batch[name] for batch in gathered])
    for name in gathered[0]
  }
  valid = whole.pop('valid')
  return {name: values[valid] for name, values in whole.items()}


def summarise(
  scored: Mapping[str, np.ndarray],
  *,
  image_size: tuple[int, int],
  threshold: float,
  checkpoint_step: int,
) -> dict[str, Any]:
  """Sums up the scores of all images, as `summary.json` holds them."""
  counts = metrics.pool(scored)
  each = metrics.ratios(scored)
  each['threshold_jaccard'] = metrics.thresholded_jaccard(each['iou'])
  both_empty = scored['tp'] + scored['fp'] + scored['fn'] == 0
  return {
    'num_images': len(scored['tp']),
    'image_size': list(image_size),
    'threshold': threshold,
    'checkpoint_step': checkpoint_step,
    'counts': counts,
    'pooled': metrics.as_floats(metrics.ratios(counts)),
    'per_image': {
      name: {'mean': float(values.mean())} for name, values in each.items()
    },
    'loss': float(scored['loss'].mean(dtype=np.float64)),
    'both_empty_images': int(both_empty.sum()),
    'baselines': metrics.baselines(counts),
  }


def write_results(
  directory: pathlib.Path,
  summary: Mapping[str, Any],
  image_ids: Sequence[str],
  scored: Mapping[str, np.ndarray],
) -> None:
  """Writes `summary.json` and `per_image.csv`."""
  directory.mkdir(parents=True, exist_ok=True)
  each = metrics.ratios(scored)
  each['threshold_jaccard'] = metrics.thresholded_jaccard(each['iou'])
  temporary = directory / 'per_image.tmp'
  with temporary.open('w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['image_id', *metrics.COUNTS, *each, 'loss'])
    writer.writerows(
      zip(
        image_ids,
        *(scored[name].tolist() for name in metrics.COUNTS),
        *([f'{value:.6f}' for value in values] for values in each.values()),
        [f'{value:.6f}' for value in scored['loss']],
        strict=True,
      )
    )
  temporary.replace(directory / 'per_image.csv')
  # Last: where there is a summary, the results are whole.
  run_folder.write_json(directory / 'summary.json', summary)


def evaluate_run(
  workdir: pathlib.Path, *, checkpoint: str, subset: str
) -> dict[str, Any]:
  """Scores a checkpoint again from the run folder alone.

  Args:
    workdir: Folder of a run.
    checkpoint: 'best' (by validation Dice), 'last', or a step.
    subset: 'train' or 'validation'.

  Returns:
    What it also writes to `evaluation/<subset>/summary.json`.

  Raises:
    InputError: If the folder, the checkpoint or the data is not what it was.
  """
  config = config_lib.load(workdir / 'config.json')
  split = splits.read_split(workdir / 'split.csv')
  source = sources.open_source(config.data)
  run_folder.check_data(workdir, source)
  data = cache.open_cache(
    source, config.data.image_size, pathlib.Path(config.data.data_dir)
  )
  sharding = input_pipeline.data_sharding()
  state = train_state.create(config, sharding)
  checkpoints = checkpointing.Checkpoints(run_folder.checkpoints_dir(workdir))
  step = checkpoints.resolve(checkpoint)
  model_state = checkpoints.restore_model(step, state.state[0])
  checkpoints.close()
  image_ids = split.subset(subset)
  threshold = config.evaluation.threshold
  scored = score(
    state.eval_graphdef,
    model_state,
    input_pipeline.evaluation_batches(
      data,
      input_pipeline.select(data, image_ids),
      batch_size=config.evaluation.batch_size,
      sharding=sharding,
    ),
    threshold=threshold,
  )
  summary = summarise(
    scored,
    image_size=config.data.image_size,
    threshold=threshold,
    checkpoint_step=step,
  )
  write_results(
    run_folder.evaluation_dir(workdir, subset), summary, image_ids, scored
  )
  return summary


def describe(summary: Mapping[str, Any]) -> str:
  """The main scores in one line."""
  pooled, each = summary['pooled'], summary['per_image']
  return (
    f'step {summary["checkpoint_step"]}, {summary["num_images"]} images:'
    f' pooled Dice {pooled["dice"]:.4f}, IoU {pooled["iou"]:.4f},'
    f' precision {pooled["precision"]:.4f}, recall {pooled["recall"]:.4f},'
    f' accuracy {pooled["accuracy"]:.4f}; per image Dice'
    f' {each["dice"]["mean"]:.4f}, thresholded Jaccard'
    f' {each["threshold_jaccard"]["mean"]:.4f}'
  )


def main(argv: list[str]) -> None:
  """Parses the command line, scores and prints."""
  parser = argparse.ArgumentParser(
    prog='python -m skinseg_jax.evaluate', description=__doc__
  )
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument(
    '--checkpoint', default='last', help='best, last or a step'
  )
  parser.add_argument(
    '--split', default='validation', choices=['train', 'validation']
  )
  args = parser.parse_args(argv[1:])
  summary = evaluate_run(
    args.workdir, checkpoint=args.checkpoint, subset=args.split
  )
  print(describe(summary))
  config = config_lib.load(args.workdir / 'config.json')
  if config.data.split == 'paper' and args.split == 'validation':
    print(paper.comparison(summary))


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
