"""Differences between runs on the same images, with intervals."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from skinseg_jax.evaluation import result_files, summaries
from skinseg_jax.metrics import bootstrap, confusion
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import errors
from skinseg_jax.weights import shared_model

_MEANS = ('dice', 'iou', 'threshold_jaccard', 'boundary_f1', 'hd95', 'assd')


@dataclasses.dataclass(frozen=True)
class Row:
  """One score for all runs.

  Attributes:
    name: Name of the score, such as 'pooled dice' or 'mean dice'.
    values: The score of each run.
    differences: Difference of every other run to the first run.
  """

  name: str
  values: list[float]
  differences: list[bootstrap.Difference]


def compare(workdirs: Sequence[pathlib.Path], name: str) -> list[Row]:
  """Compares evaluations of the same images, image by image.

  Args:
    workdirs: Two or more run folders.
    name: Name of the evaluation to compare.

  Raises:
    InputError: If a run has no such evaluation, or the evaluations differ in
      images, true masks or image size.
  """
  for workdir in workdirs:
    if not run_folder.evaluation_dir(workdir, name).is_dir():
      shared_model.refuse(workdir)
  found = [result_files.read(workdir, name) for workdir in workdirs]
  for workdir, other in zip(workdirs[1:], found[1:], strict=True):
    _check_same_images(workdirs[0], found[0], workdir, other)
  # Rows in the order of the first run.
  order = [_order(found[0].image_ids, each.image_ids) for each in found]
  column = lambda name: [
    each.column(name)[rows] for each, rows in zip(found, order, strict=True)
  ]
  counts = [
    dict(zip(confusion.COUNTS, values, strict=True))
    for values in zip(*map(column, confusion.COUNTS), strict=True)
  ]
  means = [
    dict(zip(_MEANS, values, strict=True))
    for values in zip(*map(column, _MEANS), strict=True)
  ]
  resampling = bootstrap.resample(
    [row['lesion_id'] for row in found[0].rows],
    replicates=summaries.REPLICATES,
    seed=summaries.BOOTSTRAP_SEED,
  )
  pooled = [confusion.ratios(confusion.pool(each)) for each in counts]
  return _rows(
    'pooled',
    [confusion.as_floats(scores) for scores in pooled],
    [bootstrap.pooled_difference(resampling, o, counts[0]) for o in counts[1:]],
  ) + _rows(
    'mean',
    [{n: float(np.mean(v)) for n, v in each.items()} for each in means],
    [bootstrap.mean_difference(resampling, o, means[0]) for o in means[1:]],
  )


def _rows(kind, values, differences) -> list[Row]:
  return [
    Row(
      f'{kind} {name}',
      [scores[name] for scores in values],
      [between[name] for between in differences],
    )
    for name in values[0]
  ]


def _order(wanted: list[str], available: list[str]) -> list[int]:
  index = {name: i for i, name in enumerate(available)}
  return [index[name] for name in wanted]


def _check_same_images(first_dir, first, other_dir, other) -> None:
  ours, theirs = set(first.image_ids), set(other.image_ids)
  problems = []
  if ours != theirs:
    alone = sorted(ours ^ theirs)
    problems.append(
      f'{len(alone)} images are in only one run:\n' + errors.listing(alone)
    )
  sizes = [each.summary['image_size'] for each in (first, other)]
  if sizes[0] != sizes[1]:
    problems.append(f'scored at {sizes[0]} and at {sizes[1]} pixels')
  elif not problems:
    changed = _changed_truths(first, other)
    if changed:
      problems.append(
        f'{len(changed)} true masks differ:\n' + errors.listing(changed)
      )
  if problems:
    raise errors.InputError(
      f'{first_dir} and {other_dir} were not scored on the same images, so'
      f' their scores cannot be compared: {"; ".join(problems)}\nScore both'
      ' runs on the same data with python -m skinseg_jax.evaluate.'
    )


def _changed_truths(first, other) -> list[str]:
  lesion = lambda each: dict(
    zip(each.image_ids, each.column('tp') + each.column('fn'), strict=True)
  )
  ours, theirs = lesion(first), lesion(other)
  return [name for name in ours if ours[name] != theirs[name]]


def table(names: Sequence[str], rows: Sequence[Row]) -> str:
  """Formats all scores as a plain-text table.

  Args:
    names: Names of the runs.
    rows: Result of `compare`.
  """
  width = max(map(len, [*names, '0.0000  +0.0000 (+0.0000 to +0.0000)*'])) + 2
  lines = [f'{"":25}' + ''.join(f'{name:>{width}}' for name in names)]
  for row in rows:
    cells = [f'{row.values[0]:.4f}']
    for value, difference in zip(row.values[1:], row.differences, strict=True):
      cells.append(f'{value:.4f}  {_show(difference)}')
    lines.append(
      f'{row.name:25}' + ''.join(f'{cell:>{width}}' for cell in cells)
    )
  lines.append(
    'Differences are to the first run, with 95 % intervals from a paired'
    ' bootstrap of lesions in brackets. * marks intervals that do not contain'
    ' 0; without a true difference, about one row in twenty is marked by'
    ' chance. The intervals do not include the variation between training'
    ' seeds.'
  )
  return '\n'.join(lines)


def _show(difference: bootstrap.Difference) -> str:
  if difference.low is None or difference.high is None:
    return f'{difference.value:+.4f}'
  apart = difference.low > 0 or difference.high < 0
  return (
    f'{difference.value:+.4f} ({difference.low:+.4f} to'
    f' {difference.high:+.4f}){"*" if apart else " "}'
  )
