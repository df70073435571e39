"""Stores a threshold and a profile of the training images in the run folder.

They are computed only once: choosing a threshold needs a pass over the training
images, and these may be missing where a model is scored on other data.
"""

import pathlib
from typing import Any

import numpy as np

from skinseg_jax.data import input_pipeline
from skinseg_jax.evaluation import scoring, shift, summaries
from skinseg_jax.inference import trained_model
from skinseg_jax.metrics import calibration
from skinseg_jax.run import run_folder, stored_data

_POINTS_FILE, _PROFILE_FILE = 'operating_point.json', 'training_profile.json'

# Largest number of images for choosing a threshold. More would take longer and
# change little, because the pooled Dice is flat around its maximum.
_MOST_IMAGES = 2000


def stored_point(workdir: pathlib.Path, step: int) -> dict[str, Any] | None:
  """The stored operating point of a checkpoint, or None."""
  return _read(workdir / _POINTS_FILE).get(str(step))


def stored_profile(workdir: pathlib.Path) -> dict[str, Any] | None:
  """The stored `shift.profile` of the training images, or None."""
  return _read(workdir / _PROFILE_FILE) or None


def store(
  workdir: pathlib.Path,
  step: int,
  point: dict[str, Any] | None,
  profile: dict[str, Any] | None,
) -> None:
  """Stores what a model brings from its run and the folder lacks."""
  points = _read(workdir / _POINTS_FILE)
  if point and str(step) not in points:
    run_folder.write_json(workdir / _POINTS_FILE, {**points, str(step): point})
  if profile and stored_profile(workdir) is None:
    run_folder.write_json(workdir / _PROFILE_FILE, profile)


def operating_point(
  workdir: pathlib.Path,
  model: trained_model.TrainedModel,
  run_data: stored_data.RunData,
) -> dict[str, Any]:
  """Finds the threshold with the highest pooled Dice on training images.

  Uses at most 2,000 training images, evenly spread over all of them.

  Returns:
    `threshold`, `chosen_on` ('train'), `train_dice` and `train_images`.
  """
  stored = stored_point(workdir, model.step)
  if stored:
    return stored
  indices = input_pipeline.select(run_data.data, run_data.split.train)
  indices = indices[:: -(-len(indices) // _MOST_IMAGES)]
  batches = input_pipeline.evaluation_batches(
    run_data.data,
    indices,
    batch_size=model.config.evaluation.batch_size,
    sharding=model.sharding,
  )
  histogram = scoring.histogram(
    model.graphdef,
    model.state,
    batches,
    views=model.config.evaluation.test_time_augmentation,
  )
  return store_point(workdir, model.step, histogram, len(indices))


def store_point(
  workdir: pathlib.Path, step: int, histogram: np.ndarray, num_images: int
) -> dict[str, Any]:
  """Stores and returns the best threshold for training images."""
  threshold = calibration.best_threshold(histogram)
  point = {
    'threshold': threshold,
    'chosen_on': 'train',
    'train_dice': summaries.scores_at(histogram, threshold)['dice'],
    'train_images': num_images,
  }
  points = {**_read(workdir / _POINTS_FILE), str(step): point}
  run_folder.write_json(workdir / _POINTS_FILE, points)
  return point


def profile(
  workdir: pathlib.Path, run_data: stored_data.RunData
) -> dict[str, Any]:
  """Returns `shift.profile` of the training images; stores it if new."""
  found = stored_profile(workdir)
  if found is None:
    indices = input_pipeline.select(run_data.data, run_data.split.train)
    found = shift.profile(run_data.source, run_data.data, indices)
    run_folder.write_json(workdir / _PROFILE_FILE, found)
  return found


def _read(path: pathlib.Path) -> dict[str, Any]:
  if not path.exists():
    return {}
  return run_folder.read_json(path, remedy='remove it to compute it again')
