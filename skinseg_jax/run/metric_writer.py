"""Writes scalars to `metrics.jsonl` and, if it is installed, to TensorBoard.

Pictures go only to TensorBoard, because they already exist as files.
"""

import io
import json
import math
import os
import pathlib
import sys
from collections.abc import Mapping

import numpy as np
from PIL import Image

from skinseg_jax.runtime import distributed, errors


class MetricWriter:
  """Writes the same scalars to `metrics.jsonl` and to an event file.

  clu's writer needs TensorFlow. Without it, one line on stderr says that
  TensorBoard is off. Only process 0 writes.

  Attributes:
    lines: Number of lines in `metrics.jsonl`.
  """

  def __init__(self, workdir: pathlib.Path, *, lines: int = 0):
    """Opens both files.

    Args:
      workdir: Folder of the run.
      lines: Number of existing lines to keep. Later lines were written after
        the checkpoint that the run resumes from; they will be written again.
    """
    self.lines = lines
    self._file = self._summaries = None
    if not distributed.is_primary():
      return
    path = workdir / 'metrics.jsonl'
    kept = read(workdir)[:lines]
    temporary = path.with_suffix('.tmp')
    temporary.write_text(''.join(map(_to_line, kept)), encoding='utf-8')
    temporary.replace(path)
    self.lines = len(kept)
    self._file = path.open('a', encoding='utf-8')
    try:
      _keep_events(
        sorted(workdir.glob('events.out.tfevents.*')),
        {(int(line['step']), name) for line in kept for name in line},
      )
      self._summaries = _summary_writer(workdir)
    except ImportError as error:
      print(
        f'TensorBoard is off ({error}); metrics.jsonl has every number.'
        ' `pip install "skinseg_jax[train]"` turns it on, up to Python 3.13.',
        file=sys.stderr,
      )

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes scalars named like 'train/loss' under a step."""
    if self._file:
      self._file.write(_to_line({'step': step, **scalars}))
      self._file.flush()
    self.lines += 1
    if self._summaries:
      self._summaries.write_scalars(step, scalars)

  def flush(self) -> None:
    """Flushes everything to the operating system."""
    if self._summaries:
      self._summaries.flush()

  def close(self) -> None:
    """Closes both files."""
    if self._file:
      self._file.close()
    if self._summaries:
      self._summaries.close()


def write_images(
  directory: pathlib.Path, step: int, files: Mapping[str, bytes]
) -> None:
  """Writes pictures for TensorBoard; does nothing without TensorFlow.

  Args:
    directory: Folder of the event file; TensorBoard shows it as a separate run.
    step: Step to show them under.
    files: PNG files by name.
  """
  try:
    writer = _summary_writer(directory)
  except ImportError:
    return
  for name, file in files.items():
    picture = Image.open(io.BytesIO(file)).convert('RGB')
    writer.write_images(step, {name: np.asarray(picture)[None]})
  writer.close()


def read(workdir: pathlib.Path) -> list[dict[str, float]]:
  """Reads all complete lines of a run's `metrics.jsonl`; none if missing.

  Raises:
    InputError: If a line is damaged.
  """
  path = workdir / 'metrics.jsonl'
  if not path.exists():
    return []
  try:
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
    # A killed run may have left half a line.
    records = [json.loads(line) for line in lines if line.endswith('}\n')]
    for record in records:
      int(record['step'])
  except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
    raise errors.InputError(
      f'{path} is damaged ({error!r}); restore it, or remove it to continue'
      ' without the curves so far.'
    ) from error
  return records


def _to_line(values: Mapping[str, float]) -> str:
  # JSON has no NaN.
  clean = {
    name: None
    if isinstance(value, float) and not math.isfinite(value)
    else value
    for name, value in values.items()
  }
  return json.dumps(clean) + '\n'


def _keep_events(
  paths: list[pathlib.Path], scalars: set[tuple[int, str]]
) -> None:
  """Merges event files into the first; keeps each of the scalars once.

  TensorBoard shows everything in the folder. That includes values written twice
  because a run was killed and resumed from an earlier step.
  """
  if not paths:
    return
  from tensorboard.backend.event_processing import event_file_loader
  from tensorboard.compat.proto import event_pb2
  from tensorboard.summary.writer import record_writer

  wanted = set(scalars)
  temporary = paths[0].with_name('events.tmp')
  with temporary.open('wb') as file:
    writer = record_writer.RecordWriter(file)
    for path in paths:
      # The loader ends at a truncated record.
      for record in event_file_loader.RawEventFileLoader(str(path)).Load():
        event = event_pb2.Event.FromString(record)
        found = {(event.step, value.tag) for value in event.summary.value}
        if (path is paths[0] and event.file_version) or found & wanted:
          writer.write(record)
          wanted -= found
  temporary.replace(paths[0])
  for path in paths[1:]:
    path.unlink()


def _summary_writer(workdir: pathlib.Path):
  # TensorFlow only writes files here, so hide its notes on computing.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
  from clu import metric_writers

  return metric_writers.SummaryWriter(str(workdir))
