"""Joins the scores of all folds: each image once, by a model that never saw it.

The result is an evaluation named 'validation' in the folder of the
cross-validation, so `report` and `compare` read it as that of a run.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax.data import splits
from skinseg_jax.evaluation import assessment, result_files, summaries
from skinseg_jax.folds import plan as plan_lib
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import errors

_MEANS = ('dice', 'iou', 'threshold_jaccard', 'boundary_f1', 'hd95')
_POOLED = ('dice', 'iou', 'precision', 'recall', 'accuracy')


def write(plan: plan_lib.Plan) -> dict[str, Any]:
  """Joins the folds and writes the evaluation of all images.

  Args:
    plan: All its folds must be finished.

  Returns:
    Contents of `summary.json`. Besides those of a run it has `folds`, a row per
    fold, and `spread`: mean, standard deviation, least and largest value of
    each score over the folds.

  Raises:
    InputError: If the results of a fold are damaged or not those of the plan.
  """
  numbers = range(len(plan.folds))
  parts, rows = [], []
  for fold in numbers:
    part, row = _read_fold(plan, fold)
    parts.append(part)
    rows.append({'fold': fold, **row})
  plan_lib.check_once(plan.source, [part.image_ids for part in parts])
  trained = [
    splits.read_split(plan.workdir(fold) / 'split.csv') for fold in numbers
  ]
  scored = [
    splits.Split(split.train, part.image_ids)
    for split, part in zip(trained, parts, strict=True)
  ]
  if plan.config.data.split == 'lesion':
    plan_lib.check_apart(plan.source, scored)
  joined = assessment.join(parts)
  metadata_of = {row['image_id']: row for row in plan.source.metadata}
  metadata = [metadata_of[name] for name in joined.image_ids]
  summary = summaries.summarise(
    joined,
    metadata,
    image_size=plan.config.data.image_size,
    threshold=plan.config.evaluation.threshold,
  )
  summary |= {
    'checkpoint_step': max(row['step'] for row in rows),
    'best_checkpoint': None,
    'operating_point': None,
    'data': {
      'name': plan.source.name,
      'fingerprint': plan.source.fingerprint,
      'split': f'{len(rows)} folds, {plan.config.data.split}',
      'split_sha256': plan.sha256,
    },
    'leakage': None,
    'folds': rows,
    'spread': _spread(rows),
  }
  directory = run_folder.evaluation_dir(plan.root, plan_lib.NAME)
  result_files.write(directory, summary, joined, metadata)
  return summary


def _read_fold(
  plan: plan_lib.Plan, fold: int
) -> tuple[assessment.Assessment, dict[str, Any]]:
  """Measurements of a fold, and its row."""
  workdir = plan.workdir(fold)
  there = config_lib.flat(config_lib.load(workdir / 'config.json'))
  wanted = config_lib.flat(plan.fold_config(fold))
  split = splits.read_split(workdir / 'split.csv')
  differing = run_folder.differing_fields(there, wanted)
  part = result_files.read_measurements(workdir, plan_lib.NAME)
  if split != plan.folds[fold]:
    differing.append('which images train and which validate')
  if part.image_ids != plan.folds[fold].validation:
    differing.append('which images were scored')
  if differing:
    raise errors.InputError(
      f'{workdir} is not fold {fold} of this cross-validation; remove that'
      ' folder and run the same command again. It differs in\n'
      + errors.listing(differing)
    )
  directory = run_folder.evaluation_dir(workdir, plan_lib.NAME)
  summary = json.loads((directory / 'summary.json').read_text('utf-8'))
  return part, {
    'images': len(part.image_ids),
    'lesions': summary['clusters'],
    'step': summary['checkpoint_step'],
    **{f'pooled {name}': summary['pooled'][name] for name in _POOLED},
    **{f'mean {name}': summary['per_image'][name]['mean'] for name in _MEANS},
  }


def _spread(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
  """By score: over the folds, with the sample standard deviation."""
  spread = {}
  for kind, names in (('pooled', _POOLED), ('mean', _MEANS)):
    for name in names:
      values = np.array([row[f'{kind} {name}'] for row in rows])
      spread[f'{kind} {name}'] = {
        'mean': float(values.mean()),
        'sd': float(values.std(ddof=1)),
        'min': float(values.min()),
        'max': float(values.max()),
      }
  return spread


def describe(root: pathlib.Path, summary: dict[str, Any]) -> str:
  """Scores of all images, then the spread between folds, in a few lines."""
  lines = [
    summaries.describe(summary),
    f'between {len(summary["folds"])} folds',
  ]
  for name in ('pooled dice', 'mean dice', 'mean threshold_jaccard'):
    ends = summary['spread'][name]
    lines.append(
      f'  {name:29}{ends["mean"]:.4f}, standard deviation {ends["sd"]:.4f}'
      f' ({ends["min"]:.4f} to {ends["max"]:.4f})'
    )
  return '\n'.join([*lines, f'results in {root}; open report.html there'])
