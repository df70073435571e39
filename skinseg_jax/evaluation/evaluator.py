"""Full evaluation of a model on its own data or on other data.

Each evaluation has its own folder under `evaluation/` in the run folder.
"""

import collections
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skinseg_jax.data import (
  cache,
  input_pipeline,
  mask_checks,
  remedies,
  splits,
)
from skinseg_jax.data.sources import interface
from skinseg_jax.evaluation import (
  assessment,
  expert_review,
  result_files,
  shift,
  summaries,
  training_images,
)
from skinseg_jax.inference import trained_model
from skinseg_jax.metrics import confusion
from skinseg_jax.run import run_folder, stored_data
from skinseg_jax.runtime import distributed, errors


@dataclasses.dataclass(frozen=True)
class Options:
  """Optional parts of an evaluation.

  Attributes:
    native_size: Also score at each image's original size.
    training_side: Read the training images if the threshold chosen on them or
      their profile is needed and not stored yet.
    review: csv of an expert's decisions on the true masks.
    exclude_rejected: Leave out images whose true mask the review rejects.
  """

  native_size: bool = True
  training_side: bool = True
  review: pathlib.Path | None = None
  exclude_rejected: bool = False


DEFAULT = Options()


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
  """The images that an evaluation scores.

  Attributes:
    name: Name of the evaluation and its folder.
    source: The images at their original size.
    data: The same images, in the same order, at the model's size.
    image_ids: Ids of the images to score.
    about: The entries `data` and `leakage` of the summary.
    remedy: What to type where the masks look wrong.
  """

  name: str
  source: interface.Source
  data: cache.CachedData
  image_ids: Sequence[str]
  about: Mapping[str, Any]
  remedy: mask_checks.Remedy


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
  """Result of an evaluation whose files have been written.

  Attributes:
    name: Name of its folder under `evaluation/` in the run folder.
    data: The images and masks at the model's size.
    summary: Contents of `summary.json`.
  """

  name: str
  data: cache.CachedData
  summary: dict[str, Any]


def evaluate_subset(
  workdir: pathlib.Path,
  model: trained_model.TrainedModel,
  run_data: stored_data.RunData,
  *,
  subset: str,
  options: Options,
) -> Outcome:
  """Scores a model on the training or validation images of its run.

  Args:
    workdir: Run folder.
    model: Model of that run.
    run_data: Images of that run.
    subset: 'train' or 'validation'; also the name of the evaluation.
    options: Optional parts of the evaluation.

  Raises:
    InputError: If the review is invalid.
  """
  source, split = run_data.source, run_data.split
  subject = Subject(
    name=subset,
    source=source,
    data=run_data.data,
    image_ids=split.subset(subset),
    about={
      'data': {
        'name': source.name,
        'fingerprint': source.fingerprint,
        'split': model.config.data.split,
        'split_sha256': splits.split_hash(split),
      },
      'leakage': splits.report(split, source.metadata).as_dict(),
    },
    remedy=mask_checks.training_remedy(inverted=model.config.data.mask_invert),
  )
  rows = _read_review(options.review, subject)
  more = {'mask_check': _check_masks(subject).as_dict()}
  assessed = _assess(model, subject, rows, options)
  if subset == 'train' and assessed.image_ids == split.train:
    # All training images were just predicted: no second pass is needed.
    training_images.store_point(
      workdir, model.step, assessed.histogram, len(split.train)
    )
  point = training_images.stored_point(workdir, model.step)
  if point is None and options.training_side:
    point = training_images.operating_point(workdir, model, run_data)
  return _finish(workdir, model, subject, assessed, point, rows, options, more)


def evaluate_source(
  workdir: pathlib.Path,
  model: trained_model.TrainedModel,
  source: interface.Source,
  *,
  name: str,
  options: Options,
) -> Outcome:
  """Scores a model on data that does not belong to its run.

  Args:
    workdir: Run folder.
    model: Model of that run.
    source: The images to score.
    name: Name of the evaluation and its folder.
    options: Optional parts of the evaluation.

  Returns:
    An outcome whose summary has two more keys. `shift` has profiles of the
    training images and of these images, and sentences on how they differ.
    `trained_on` is the number of images with the id of a training image.

  Raises:
    InputError: If the review, the masks or a `name` in use do not fit.
  """
  _check_name(run_folder.evaluation_dir(workdir, name), source)
  config = model.config.data
  data = cache.open_cache(
    source,
    config.image_size,
    pathlib.Path(config.data_dir),
    elsewhere=remedies.NEW_DATA_DIR_OF_RUN,
  )
  own = {'name': source.name, 'fingerprint': source.fingerprint}
  subject = Subject(
    name=name,
    source=source,
    data=data,
    image_ids=source.image_ids,
    about={
      'data': {**own, 'split': None, 'split_sha256': None},
      'leakage': None,
    },
    remedy=mask_checks.scoring_remedy(name),
  )
  rows = _read_review(options.review, subject)
  masks = _check_masks(subject, refuse_useless=True)
  point, training = _training_side(workdir, model, options)
  assessed = _assess(model, subject, rows, options)
  here = shift.profile(source, data, range(len(source)))
  more = {
    'mask_check': masks.as_dict(),
    'trained_on': _trained_on(workdir, source.image_ids),
    'shift': {
      'training': training,
      'here': here,
      'notes': shift.notes(training, here) if training else [],
    },
  }
  return _finish(workdir, model, subject, assessed, point, rows, options, more)


def _trained_on(workdir: pathlib.Path, image_ids: Sequence[str]) -> int | None:
  """Number of images with the id of a training image; None if unknown."""
  path = workdir / 'split.csv'
  if not path.exists():
    return None
  return len(set(splits.read_split(path).train) & set(image_ids))


def _check_name(directory: pathlib.Path, source: interface.Source) -> None:
  """Refuses to overwrite the scores of other data."""
  path = directory / 'summary.json'
  if path.exists():
    there = run_folder.read_json(
      path, 'data', remedy='remove it to score again'
    )['data']
    if there['fingerprint'] != source.fingerprint:
      raise errors.InputError(
        f'{directory} contains the scores of other images or masks; choose'
        ' another name with --name, or remove that folder.'
      )


def _training_side(workdir, model, options) -> tuple[dict | None, dict | None]:
  """Operating point and profile; each is None if it is not available."""
  point = training_images.stored_point(workdir, model.step)
  training = training_images.stored_profile(workdir)
  if (point is None or training is None) and options.training_side:
    try:
      run_data = stored_data.open_run_data(workdir, model.config.data)
    except errors.InputError as error:
      print(f'no comparison with the training images: {error}', file=sys.stderr)
      return point, training
    point = training_images.operating_point(workdir, model, run_data)
    training = training_images.profile(workdir, run_data)
  return point, training


def _read_review(
  path: pathlib.Path | None, subject: Subject
) -> list[dict[str, str]]:
  """Reads the review and checks that it lists only images to score."""
  if path is None:
    return []
  rows = expert_review.read_review(path)
  known = set(subject.image_ids)
  unknown = [row['image_id'] for row in rows if row['image_id'] not in known]
  if unknown:
    raise errors.InputError(
      f'the review {path} lists images that are not part of'
      f' {subject.name!r}; give a review of the same images:\n'
      + errors.listing(unknown)
    )
  return rows


def _check_masks(
  subject: Subject, *, refuse_useless: bool = False
) -> mask_checks.MaskCheck:
  """Looks at all masks together; prints what looks wrong.

  Raises:
    InputError: If told to refuse masks of which none holds lesion and skin.
  """
  indices = input_pipeline.select(subject.data, subject.image_ids)
  found = mask_checks.examine(subject.data, indices, subject.remedy)
  if refuse_useless:
    found.refuse_useless()
  if found.findings and distributed.is_primary():
    print(found.warning(), file=sys.stderr, flush=True)
  return found


def _assess(model, subject, rows, options) -> assessment.Assessment:
  excluded = set(_rejected(rows)) if options.exclude_rejected else set()
  kept = [name for name in subject.image_ids if name not in excluded]
  if not kept:
    raise errors.InputError(
      f'the review {options.review} rejects every image of {subject.name!r}.'
    )
  return assessment.assess(
    model,
    subject.source,
    subject.data,
    kept,
    native_size=options.native_size,
  )


def _rejected(rows) -> list[str]:
  return [row['image_id'] for row in rows if row['decision'] == 'reject']


def _finish(
  workdir, model, subject, assessed, point, rows, options, more
) -> Outcome:
  """Summarises the measurements and writes the files."""
  config = model.config
  rows_by_id = {row['image_id']: row for row in subject.source.metadata}
  metadata = [rows_by_id[name] for name in assessed.image_ids]
  summary = summaries.summarise(
    assessed,
    metadata,
    image_size=config.data.image_size,
    threshold=config.evaluation.threshold,
  )
  summary |= {'checkpoint_step': model.step, 'best_checkpoint': model.best}
  summary['operating_point'] = point and {
    **point,
    'pooled': summaries.scores_at(assessed.histogram, point['threshold']),
  }
  summary |= {**subject.about, **more}
  name = subject.name
  if rows:
    summary['review'] = _summarise_review(assessed, rows, options)
    if summary['review']['excluded']:
      # Do not overwrite the scores on all images.
      name = f'{name}_reviewed'
  if distributed.is_primary():
    directory = run_folder.evaluation_dir(workdir, name)
    result_files.write(directory, summary, assessed, metadata)
  return Outcome(name, subject.data, summary)


def _summarise_review(assessed, rows, options) -> dict[str, Any]:
  """Counts the decisions, with the mean Dice of the images of each."""
  dice = dict(
    zip(
      assessed.image_ids, confusion.ratios(assessed.counts)['dice'], strict=True
    )
  )
  by_decision = collections.defaultdict(list)
  for row in rows:
    by_decision[row['decision']].append(dice.get(row['image_id']))
  scored = {
    name: [value for value in by_decision[name] if value is not None]
    for name in expert_review.DECISIONS
  }
  return {
    'file': str(options.review),
    'reviewed': len(rows),
    'counts': {
      name: len(by_decision[name]) for name in expert_review.DECISIONS
    },
    'mean_dice': {
      name: float(np.mean(values)) if values else None
      for name, values in scored.items()
    },
    'excluded': _rejected(rows) if options.exclude_rejected else [],
  }
