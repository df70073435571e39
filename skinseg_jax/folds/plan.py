"""Which image is scored in which fold, and the config of each fold."""

import collections
import contextlib
import copy
import csv
import dataclasses
import fcntl
import hashlib
import io
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from skinseg_jax import config as config_lib
from skinseg_jax.data import groups, splits
from skinseg_jax.data.sources import catalog, interface
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import errors, spreadsheets

TABLE = 'folds.csv'
# The evaluation that a fold's images and all images have.
NAME = 'validation'
# What an interrupted start can leave behind, besides the folds.
_OWN = (f'{TABLE}.tmp', '.lock', 'split.csv', 'environment.json')


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """A cross-validation whose folder is ready.

  Attributes:
    root: Its folder.
    config: Config of fold 0.
    source: All images.
    folds: The split of each fold: each image validates in exactly one, and no
      lesion is on both sides of one.
  """

  root: pathlib.Path
  config: config_lib.Config
  source: interface.Source
  folds: Sequence[splits.Split]

  def workdir(self, fold: int) -> pathlib.Path:
    """Run folder of a fold."""
    return self.root / f'fold_{fold}'

  def fold_config(self, fold: int) -> config_lib.Config:
    """Config of the run of a fold."""
    config = copy.deepcopy(self.config)
    config.data.fold = fold
    return config

  def finished(self, fold: int) -> bool:
    """Whether the fold is reported, with the scores after its last epoch."""
    workdir = self.workdir(fold)
    summary = run_folder.evaluation_dir(workdir, NAME) / 'summary.json'
    if not (workdir / 'report.html').exists() or not summary.exists():
      return False
    train = self.config.train
    updates = len(self.folds[fold].train) // train.batch_size
    # Another step: the folder began again with more epochs, or `evaluate`
    # scored a checkpoint that was chosen on these images.
    step = json.loads(summary.read_text(encoding='utf-8'))['checkpoint_step']
    return step == train.epochs * updates

  @property
  def sha256(self) -> str:
    """SHA-256 of `folds.csv`, in hex."""
    return hashlib.sha256(_table(self.source, self.folds)).hexdigest()


def first_config(config: config_lib.Config, folds: int) -> config_lib.Config:
  """The config of fold 0: that of an ordinary run, with folds by lesion.

  Args:
    config: Any valid config. Its split 'paper' becomes 'lesion'; 'random'
      stays, which makes folds by image.
    folds: Number of folds.

  Raises:
    InputError: If there are fewer than two folds or the split is a csv.
  """
  if folds < 2:
    raise errors.InputError(f'--folds is {folds}; give 2 or more.')
  if config.data.split not in config_lib.SPLITS:
    raise errors.InputError(
      f'data.split is the file {config.data.split}, but cross_validate makes'
      ' the folds itself; give --config.data.split=lesion.'
    )
  config = copy.deepcopy(config)
  if config.data.split == 'paper':
    config.data.split = 'lesion'
  config.data.folds, config.data.fold = folds, 0
  return config


def prepare(config: config_lib.Config, root: pathlib.Path) -> Plan:
  """Divides the images and writes the plan, or checks the one in the folder.

  Several processes may prepare one folder; they wait for each other.

  Args:
    config: From `first_config`.
    root: Folder of the cross-validation; created if missing.

  Raises:
    InputError: If the folder holds something else, or a plan with another
      config, number of folds or data; if the data has too few lesions, or none
      is known.
  """
  _check_folder(root)
  with _locked(root):
    begun = (root / 'config.json').exists()
    source = catalog.open_source(config.data, download=not begun)
    _check_lesions(config, source.metadata)
    folds = []
    for fold in range(config.data.folds):
      data = dataclasses.replace(config.data, fold=fold)
      folds.append(splits.make_split(data, source.metadata))
    plan = Plan(root, config, source, folds)
    check_once(source, [split.validation for split in folds])
    if config.data.split == 'lesion':
      check_apart(source, folds)
    everything = splits.Split(train=[], validation=sorted(source.image_ids))
    if not begun:
      _write(root / TABLE, _table(source, folds))
    run_folder.begin(root, config, source, everything)
  return plan


def check_once(
  source: interface.Source, scored: Sequence[Sequence[str]]
) -> None:
  """Asserts that the folds score each image of the source exactly once."""
  times = collections.Counter(name for fold in scored for name in fold)
  assert times == collections.Counter(source.image_ids), [
    name for name in times.keys() | set(source.image_ids) if times[name] != 1
  ][:20]


def check_apart(
  source: interface.Source, folds: Sequence[splits.Split]
) -> None:
  """Asserts that no lesion (or patient) is on both sides of a fold."""
  for number, split in enumerate(folds):
    table = splits.report(split, source.metadata)
    assert not table.leaked_lesions, (number, table.leaked_lesions)


def _check_folder(root: pathlib.Path) -> None:
  """Refuses a folder that holds something else."""
  if not root.exists() or (root / TABLE).exists():
    return
  if not root.is_dir():
    raise errors.InputError(f'{root} is a file; give --workdir a new folder.')
  others = sorted(p.name for p in root.iterdir() if p.name not in _OWN)
  if others:
    raise errors.InputError(
      f'{root} is not empty and holds no cross-validation ({TABLE} is missing);'
      ' give --workdir a new folder. It holds\n' + errors.listing(others)
    )


def _check_lesions(
  config: config_lib.Config, metadata: list[dict[str, str]]
) -> None:
  by_image = config.data.split == 'random'
  names = groups.names(metadata)
  if not by_image and all(name.image for name in names):
    raise errors.InputError(
      'no lesion_id is known, so images of one lesion cannot be kept together.'
      ' Give a table with the columns image_id and lesion_id'
      ' (--config.data.metadata_csv=FILE for your own images; for HAM10000 its'
      ' HAM10000_metadata.csv in data.raw_dir, and a new data.data_dir). If no'
      ' two images show the same lesion, give --config.data.split=random.'
    )
  most = len(names) if by_image else len(set(names))
  if config.data.folds > most:
    what = 'images' if by_image else 'lesions'
    raise errors.InputError(
      f'--folds is {config.data.folds}, but there are only {most} {what}; give'
      f' --folds 2 to {most}, or more images.'
    )


@contextlib.contextmanager
def _locked(root: pathlib.Path) -> Iterator[None]:
  """Waits for other processes that prepare or join the same folder."""
  try:
    root.mkdir(parents=True, exist_ok=True)
    file = (root / '.lock').open('w')
  except OSError as error:
    raise errors.InputError(
      f'cannot write to {root}: {error.strerror}; choose another --workdir.'
    ) from error
  with file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def locked(plan: Plan) -> contextlib.AbstractContextManager[None]:
  """Waits until no other process writes the results of all folds."""
  return _locked(plan.root)


def _table(source: interface.Source, folds: Sequence[splits.Split]) -> bytes:
  """`image_id,lesion_id,fold`, in the order of ids; a patient for a lesion."""
  rows: list[tuple[Any, ...]] = []
  for row, name in zip(
    source.metadata, groups.names(source.metadata), strict=True
  ):
    rows.append((row['image_id'], ''.join(name)))
  fold_of = {
    name: number
    for number, split in enumerate(folds)
    for name in split.validation
  }
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(('image_id', 'lesion_id', 'fold'))
  for image_id, lesion in sorted(rows):
    lesion = spreadsheets.guard(lesion)
    writer.writerow((image_id, lesion, fold_of[image_id]))
  return text.getvalue().encode()


def _write(path: pathlib.Path, data: bytes) -> None:
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_bytes(data)
  temporary.replace(path)
