"""Which images train, which validate, and what the two sides share.

No random numbers are used. Lesions are ordered by a hash of the seed and their
name, so a split depends neither on the order of rows nor on the version of a
library.
"""

import collections
import csv
import dataclasses
import fractions
import hashlib
import io
import math
import pathlib
from collections.abc import Collection
from typing import Any

from skinseg_jax import config as config_lib
from skinseg_jax.data import groups as groups_lib
from skinseg_jax.data import tables
from skinseg_jax.runtime import errors

SUBSETS = ('train', 'validation')
_COLUMNS = ('image_id', 'subset')
# The paper's split, in the order of ids.
_PAPER_IDS = [f'ISIC_{number:07d}' for number in range(24306, 34321)]
_PAPER_TRAIN = 8016
# Spreadsheets take a cell that begins with one of these for a formula.
_FORMULA = ('=', '+', '-', '@')
_HALF = fractions.Fraction(1, 2)


@dataclasses.dataclass(frozen=True)
class Split:
  """Image ids of each subset, in the order of ids."""

  train: list[str]
  validation: list[str]

  def subset(self, name: str) -> list[str]:
    """Image ids of 'train' or 'validation'.

    Raises:
      InputError: If `name` is neither.
    """
    if name not in SUBSETS:
      raise errors.InputError(
        f'no subset {name!r}; allowed is {" or ".join(SUBSETS)}.'
      )
    return getattr(self, name)


def make_split(
  config: config_lib.DataConfig, metadata: list[dict[str, str]]
) -> Split:
  """Divides the images by `config.split`, `folds` and `fold`.

  - 'paper': the first 8,016 images of HAM10000 train, the last 1,999 validate.
  - 'lesion': no lesion is on both sides; each class has its share of images
    on each, within one image where the sizes of lesions allow it. The class of
    a lesion is that of its first image.
    Where an image has a `patient_id` but no `lesion_id`, patients take the
    place of lesions; see `groups.names`.
  - 'random': by image.
  - a csv with columns `image_id` and `subset` (train or validation); images
    that it does not list are left out.

  With `folds`, each image validates in one of the folds 0 to `folds` - 1.

  Args:
    config: Checked by `config_rules.validate`.
    metadata: Rows of a source, in any order. An image without `lesion_id` and
      `patient_id` is a lesion of its own.

  Raises:
    InputError: If the images are not those of the paper, the csv does not fit,
      a side would be empty, or lesions of HAM10000 are unknown.
  """
  image_ids = sorted(row['image_id'] for row in metadata)
  match config.split:
    case 'paper':
      split = _paper_split(image_ids)
    case 'lesion':
      groups_lib.check_known(config, metadata)
      validation = _validation_ids(config, groups_lib.by_class(metadata))
      split = _split(image_ids, validation)
    case 'random':
      validation = _validation_ids(config, [[[name] for name in image_ids]])
      split = _split(image_ids, validation)
    case path:
      split = _read(pathlib.Path(path), known=set(image_ids))
  _check_sides(config, split, num_images=len(image_ids))
  return split


def write_split(split: Split, path: pathlib.Path) -> None:
  """Writes `image_id,subset` in the order of ids, whole or not at all.

  Raises:
    InputError: If an id is not fit for a csv file.
  """
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_bytes(_to_csv(split))
  temporary.replace(path)


def read_split(path: pathlib.Path) -> Split:
  """Reads a csv that `write_split` wrote, or one with the same columns.

  Raises:
    InputError: If it cannot be read; lists all rows that do not fit.
  """
  return _read(path, known=None)


def split_hash(split: Split) -> str:
  """SHA-256, in hex, of the file that `write_split` writes.

  Raises:
    InputError: If an id is not fit for a csv file.
  """
  return hashlib.sha256(_to_csv(split)).hexdigest()


@dataclasses.dataclass(frozen=True)
class SplitReport:
  """Contents of a split, and what validation shares with training.

  Attributes:
    images: Number of images by subset.
    lesions: Number of lesions by subset.
    classes: Number of images by subset, by class (dx), in the order of names.
    leaked_images: Validation images that show a lesion which training shows.
    leaked_lesions: The number of those lesions.
    left_out: Images of the data set that are in no subset.
    without_lesion: Images in a subset of which neither lesion nor patient is
      known; each counts as a lesion of its own.
    grouped_by: The column that tells which images belong together, 'lesion_id',
      or 'patient_id' where an image has that alone; "lesion" above then stands
      for "patient".
  """

  images: dict[str, int]
  lesions: dict[str, int]
  classes: dict[str, dict[str, int]]
  leaked_images: int
  leaked_lesions: int
  left_out: int
  without_lesion: int
  grouped_by: str

  @property
  def leaked_share(self) -> float:
    """Share of the validation images that leak, 0 to 1."""
    return self.leaked_images / self.images['validation']

  def as_dict(self) -> dict[str, Any]:
    """All figures, for JSON."""
    shares = {
      subset: {dx: n / self.images[subset] for dx, n in counts.items()}
      for subset, counts in self.classes.items()
    }
    return {
      **dataclasses.asdict(self),
      'leaked_share': self.leaked_share,
      'class_shares': shares,
    }

  def table(self) -> str:
    """All figures, for a terminal."""
    total = sum(self.images.values())
    group = self._group
    rows = {
      '': [f'{subset:>18}' for subset in SUBSETS],
      'images': [_cells(self.images[s], total) for s in SUBSETS],
      f'{group}s': [f'{self.lesions[s]:>9,}{"":9}' for s in SUBSETS],
    }
    for dx in self.classes['train']:
      rows[dx] = [_cells(self.classes[s][dx], self.images[s]) for s in SUBSETS]
    width = max(map(len, rows)) + 1
    lines = [f'{name:{width}}{"".join(cells)}' for name, cells in rows.items()]
    return '\n'.join(line.rstrip() for line in lines + self._notes())

  @property
  def _group(self) -> str:
    return self.grouped_by.removesuffix('_id')

  def _notes(self) -> list[str]:
    """The sentences below the table."""
    group = self._group
    lines = [f'No validation image shows a {group} that training also shows.']
    if self.leaked_images:
      lines = [
        f'{self.leaked_images:,} validation images ({self.leaked_share:.1%})'
        f' show one of {self.leaked_lesions:,} {group}s that training also'
        ' shows.'
      ]
    if self.grouped_by == 'patient_id':
      lines.append(
        'Some images have a patient_id but no lesion_id: grouped by patient_id.'
      )
    if self.without_lesion:
      lines.append(
        f'{self.without_lesion:,} images have no {self.grouped_by}; whether'
        ' they leak cannot be known.'
      )
    if self.left_out:
      lines.append(f'{self.left_out:,} images are in neither subset.')
    return lines


def report(split: Split, metadata: list[dict[str, str]]) -> SplitReport:
  """Counts images, lesions, classes and leaks of a split of `metadata`."""
  rows_by_id = {row['image_id']: row for row in metadata}
  rows = {s: [rows_by_id[i] for i in split.subset(s)] for s in SUBSETS}
  names = groups_lib.names(metadata)
  groups = {row['image_id']: n for row, n in zip(metadata, names, strict=True)}
  lesions = {s: [groups[i] for i in split.subset(s)] for s in SUBSETS}
  shared = set(lesions['train']) & set(lesions['validation'])
  used = rows['train'] + rows['validation']
  classes = sorted({groups_lib.class_of(row) for row in used})
  counts = {
    s: collections.Counter(map(groups_lib.class_of, rows[s])) for s in SUBSETS
  }
  return SplitReport(
    images={s: len(rows[s]) for s in SUBSETS},
    lesions={s: len(set(lesions[s])) for s in SUBSETS},
    classes={s: {name: counts[s][name] for name in classes} for s in SUBSETS},
    leaked_images=sum(lesion in shared for lesion in lesions['validation']),
    leaked_lesions=len(shared),
    left_out=len(metadata) - len(used),
    without_lesion=sum(bool(groups[r['image_id']].image) for r in used),
    grouped_by=groups_lib.column(metadata),
  )


def _cells(count: int, total: int) -> str:
  return f'{count:>9,}{count / total:>9.1%}'


def _split(image_ids: list[str], validation: Collection[str]) -> Split:
  return Split(
    train=[name for name in image_ids if name not in validation],
    validation=[name for name in image_ids if name in validation],
  )


def _paper_split(image_ids: list[str]) -> Split:
  if image_ids != _PAPER_IDS:
    wrong = [
      *(f'{i}: missing' for i in sorted(set(_PAPER_IDS) - set(image_ids))),
      *(f'{i}: unknown' for i in sorted(set(image_ids) - set(_PAPER_IDS))),
    ]
    raise errors.InputError(
      "data.split 'paper' needs the 10,015 images of HAM10000, which are"
      f' {_PAPER_IDS[0]} to {_PAPER_IDS[-1]}; these are {len(image_ids):,}'
      ' images. Use --config.data.split=lesion, or complete the data:\n'
      + errors.listing(wrong)
    )
  return Split(image_ids[:_PAPER_TRAIN], image_ids[_PAPER_TRAIN:])


def _validation_ids(
  config: config_lib.DataConfig, strata: list[list[list[str]]]
) -> set[str]:
  """Draws the validation images; a group of a stratum stays together."""

  def rank(group):
    text = f'{config.seed} {group[0]}'
    return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).digest()

  strata = [sorted(groups, key=rank) for groups in strata]
  if not config.folds:
    return _draw(strata, fractions.Fraction(config.validation_fraction))
  # Draw one fold after the other, each from the rest of those before.
  for fold in range(config.fold + 1):
    drawn = _draw(strata, fractions.Fraction(1, config.folds - fold))
    strata = [[g for g in groups if g[0] not in drawn] for groups in strata]
  return drawn


def _draw(
  strata: list[list[list[str]]], fraction: fractions.Fraction
) -> set[str]:
  """Takes groups with `fraction` of the images of each stratum."""
  drawn = set()
  seen = 0
  for groups in strata:
    sizes = [len(group) for group in groups]
    # Running totals are rounded: each stratum gets its share rounded up or
    # down, and so do all together.
    ends = (seen, seen + sum(sizes))
    first, last = (math.floor(fraction * end + _HALF) for end in ends)
    seen = ends[1]
    for index in _choose(sizes, last - first, fraction * sum(sizes)):
      drawn.update(groups[index])
  return drawn


def _choose(
  sizes: list[int], target: int, ideal: fractions.Fraction
) -> list[int]:
  """Chooses items, the first where possible, that sum to nearly `target`.

  Args:
    sizes: Sizes of the items, each at least 1.
    target: What they should sum to; no other choice comes nearer.
    ideal: The target before rounding: it decides between equally near sums.

  Returns:
    Indices of the chosen items.
  """
  most = target + max(sizes, default=0)
  reachable = [1]  # Bit s of entry i: some of the first i items sum to s.
  for size in sizes:
    if reachable[-1] >> target & 1:
      break
    sums = reachable[-1] | reachable[-1] << size
    reachable.append(sums & ((2 << most) - 1))
  rest = min(
    (total for total in range(most + 1) if reachable[-1] >> total & 1),
    key=lambda total: (abs(total - target), abs(total - ideal)),
  )
  chosen = []
  for index in reversed(range(len(reachable) - 1)):
    if not reachable[index] >> rest & 1:
      chosen.append(index)
      rest -= sizes[index]
  return chosen


def _check_sides(
  config: config_lib.DataConfig, split: Split, num_images: int
) -> None:
  empty = [name for name in SUBSETS if not split.subset(name)]
  if empty:
    raise errors.InputError(
      f'data.split {config.split!r} leaves no image for {" or ".join(empty)}'
      f' (of {num_images} images); allowed is at least one for each. Change'
      f' data.validation_fraction ({config.validation_fraction}), data.folds'
      f' ({config.folds}) or data.split, or give more images.'
    )


def _to_csv(split: Split) -> bytes:
  subsets = {name: s for s in SUBSETS for name in split.subset(s)}
  unfit = [
    repr(name)
    for name in sorted(subsets)
    if not name or name.startswith(_FORMULA) or not name.isprintable()
  ]
  if unfit:
    raise errors.InputError(
      'these image ids cannot go into a csv file; an id must not be empty,'
      f' begin with one of {" ".join(_FORMULA)}, or hold an unprintable'
      ' character; rename the images:\n' + errors.listing(unfit)
    )
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerows([_COLUMNS, *sorted(subsets.items())])
  return text.getvalue().encode()


def _read(path: pathlib.Path, known: Collection[str] | None) -> Split:
  """Reads a csv; with `known`, other ids are an error."""
  try:
    table = tables.read(path)
  except errors.InputError as error:
    raise errors.InputError(
      f'the split file {path} cannot be read: {error}'
    ) from error
  lacking = [c for c in _COLUMNS if c not in table.header]
  if lacking:
    raise errors.InputError(
      f'{path} lacks the column {" and ".join(lacking)}; its first line must'
      f' hold {",".join(_COLUMNS)}.'
    )
  ids = tables.Ids(known or ())
  subsets, problems = {}, list(table.problems)
  for line, row in table.lines:
    cell, subset = (row[column] for column in _COLUMNS)
    image_id = cell if known is None else ids.find(cell)
    if image_id is None:
      problems.append(f'line {line}: no image {cell!r} in the data')
      image_id = cell
    elif image_id in subsets:
      problems.append(f'line {line}: {image_id!r} again')
    if subset not in SUBSETS:
      problems.append(f'line {line}: subset {subset!r}')
    subsets[image_id] = subset
  if problems:
    raise errors.InputError(
      f'{path} does not fit; each line must hold an image of the data, once,'
      f' and as subset {" or ".join(SUBSETS)}:\n' + errors.listing(problems)
    )
  members = lambda name: sorted(i for i in subsets if subsets[i] == name)
  return Split(train=members('train'), validation=members('validation'))
