"""Writes and reads the files of one evaluation."""

import csv
import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skinseg_jax.data import splits
from skinseg_jax.evaluation import assessment, subgroups, summaries
from skinseg_jax.metrics import confusion
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import errors, spreadsheets

_MEASUREMENTS = 'measurements.npz'


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
  """The stored results of scoring N images.

  Attributes:
    name: 'validation', 'train' or the name given to other data.
    home: Folder for the report and review pages: the run folder for
      'validation', otherwise the folder of the scores.
    summary: Contents of `summary.json`.
    rows: Rows of `per_image.csv`, in its order.
    subgroups: Rows of `subgroups.table` by attribute.
    failures: Rows of `subgroups.failures`, the worst first.
    packed: Predicted masks, eight pixels per byte, uint8 [N, ceil(H * W / 8)].
  """

  name: str
  home: pathlib.Path
  summary: Mapping[str, Any]
  rows: Sequence[Mapping[str, str]]
  subgroups: Mapping[str, Sequence[Mapping[str, Any]]]
  failures: Sequence[Mapping[str, Any]]
  packed: np.ndarray

  @functools.cached_property
  def image_ids(self) -> list[str]:
    """Ids in the order of the rows."""
    return [row['image_id'] for row in self.rows]

  def column(self, name: str) -> np.ndarray:
    """Numbers of a column, float64 [N]; NaN where a cell is empty."""
    return np.array([float(row[name] or math.nan) for row in self.rows])

  def prediction(self, index: int) -> np.ndarray:
    """Predicted mask of an image, 1 for lesion, uint8 [H, W]."""
    height, width = self.summary['image_size']
    bits = np.unpackbits(self.packed[index], count=height * width)
    return bits.reshape(height, width)

  def ranked(self) -> list[int]:
    """Indices of the images by IoU, the worst first, ties by id."""
    iou = self.column('iou')
    return sorted(
      range(len(iou)), key=lambda i: (iou[i], self.rows[i]['image_id'])
    )


def write(
  directory: pathlib.Path,
  summary: Mapping[str, Any],
  assessed: assessment.Assessment,
  metadata: Sequence[Mapping[str, str]],
) -> None:
  """Writes all files of one evaluation.

  `summary.json` is written last, so if it exists, all files do.
  """
  directory.mkdir(parents=True, exist_ok=True)
  (directory / 'summary.json').unlink(missing_ok=True)
  groups = subgroups.attributes(metadata, assessed.measured)
  columns = {
    'image_id': assessed.image_ids,
    **{name: assessed.counts[name].tolist() for name in confusion.COUNTS},
    **_decimals(summaries.scores_per_image(assessed)),
    **_decimals(
      {
        'loss': assessed.loss,
        'brier': assessed.squared_error / np.prod(summary['image_size']),
      }
    ),
    'ita': ['' if math.isnan(v) else f'{v:.2f}' for v in assessed.skin['ita']],
    'lesion_id': summaries.lesions(metadata),
    **groups,
  }
  _write_csv(directory / 'per_image.csv', columns)
  rows = subgroups.table(assessed.counts, groups, summaries.lesions(metadata))
  run_folder.write_json(
    directory / 'subgroups.json',
    {
      name: [row for row in rows if row['attribute'] == name] for name in groups
    },
  )
  failures = subgroups.failures(
    assessed.image_ids, assessed.counts, assessed.measured, assessed.pieces
  )
  run_folder.write_json(directory / 'failures.json', failures)
  _write_arrays(
    directory / 'predictions.npz',
    {
      'masks': assessed.packed,
      'image_ids': np.array(assessed.image_ids),
      'image_size': np.array(summary['image_size']),
      'checkpoint_step': np.array(summary['checkpoint_step']),
    },
  )
  _write_arrays(directory / _MEASUREMENTS, _flat(assessed))
  run_folder.write_json(directory / 'summary.json', summary)


def _flat(assessed: assessment.Assessment) -> dict[str, np.ndarray]:
  """All measurements by name; those of a dict are 'field/name'."""
  arrays: dict[str, np.ndarray] = {}
  for field in dataclasses.fields(assessed):
    value = getattr(assessed, field.name)
    if isinstance(value, dict):
      arrays |= {f'{field.name}/{name}': v for name, v in value.items()}
    elif value is not None:
      arrays[field.name] = np.array(value)
  return arrays


def read_measurements(
  workdir: pathlib.Path, name: str
) -> assessment.Assessment:
  """Reads what was measured, with all digits, from `measurements.npz`.

  Args:
    workdir: Run folder.
    name: Name of the evaluation.

  Raises:
    InputError: If the file is missing or damaged.
  """
  path = run_folder.evaluation_dir(workdir, name) / _MEASUREMENTS
  fields: dict[str, Any] = {'native_counts': None}
  try:
    with (
      path.open('rb') as file,
      np.load(file, allow_pickle=False) as arrays,
    ):
      for key, value in arrays.items():
        field, _, entry = key.partition('/')
        if entry:
          fields[field] = {**(fields.get(field) or {}), entry: value}
        else:
          fields[field] = value
    fields['image_ids'] = fields['image_ids'].tolist()
    return assessment.Assessment(**fields)
  except Exception as error:  # NumPy and zipfile raise many types of errors.
    raise errors.InputError(
      f'{path} cannot be read ({error}); score again: python -m'
      f' skinseg_jax.evaluate --workdir {workdir}{_flags(name)}'
    ) from error


def _decimals(columns: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
  return {
    name: [f'{value:.6f}' for value in values]
    for name, values in columns.items()
  }


def _write_csv(
  path: pathlib.Path, columns: Mapping[str, Sequence[Any]]
) -> None:
  temporary = path.with_suffix('.tmp')
  with temporary.open('w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
      # Ids and metadata come from outside and could contain formulas.
      writer.writerow([spreadsheets.guard(str(cell)) for cell in row])
  temporary.replace(path)


def _write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  temporary = path.with_suffix('.tmp')
  with temporary.open('wb') as file:
    np.savez_compressed(file, **dict[str, Any](arrays))
  temporary.replace(path)


def read(workdir: pathlib.Path, name: str) -> Evaluation:
  """Reads the files of an evaluation.

  Args:
    workdir: Run folder.
    name: Name of the evaluation.

  Raises:
    InputError: If a file is missing or damaged.
  """
  directory = run_folder.evaluation_dir(workdir, name)
  try:
    with (directory / 'per_image.csv').open(encoding='utf-8', newline='') as f:
      header, *lines = csv.reader(f, strict=True)
      rows = [
        dict(zip(header, map(spreadsheets.bare, line), strict=True))
        for line in lines
      ]
    # Opened here because NumPy does not close a damaged file.
    with (
      (directory / 'predictions.npz').open('rb') as archive,
      np.load(archive, allow_pickle=False) as arrays,
    ):
      packed, image_ids = arrays['masks'], arrays['image_ids'].tolist()
    evaluation = Evaluation(
      name=name,
      home=workdir if name == 'validation' else directory,
      summary=_json(directory / 'summary.json'),
      rows=rows,
      subgroups=_json(directory / 'subgroups.json'),
      failures=_json(directory / 'failures.json'),
      packed=packed,
    )
    if evaluation.image_ids != image_ids:
      raise ValueError(
        'per_image.csv and predictions.npz list different images'
      )
    return evaluation
  except Exception as error:  # NumPy and zipfile raise many types of errors.
    raise errors.InputError(
      f'{directory} does not contain a complete evaluation ({error}); score'
      f' again: python -m skinseg_jax.evaluate --workdir {workdir}'
      f'{_flags(name)}'
    ) from error


def _flags(name: str) -> str:
  """Flags that score under a name, after `--workdir`."""
  if name in splits.SUBSETS:
    return f' --split {name}'
  return f' --images IMAGES --masks MASKS --name {name}'


def _json(path: pathlib.Path) -> Any:
  return json.loads(path.read_text('utf-8'))
