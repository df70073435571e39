"""What an evaluation takes from the training images, kept in the run folder.

It is worked out once: a threshold takes a pass over training images, and
where a model is tried on other data they may not be at hand.
"""

import pathlib
from typing import Any

import numpy as np

from skinseg_jax.data import input_pipeline
from skinseg_jax.evaluation import scoring, shift, summaries
from skinseg_jax.inference import trained_model
from skinseg_jax.metrics import calibration
from skinseg_jax.run import run_folder, stored_data

_POINTS, _PROFILE = 'operating_point.json', 'training_profile.json'

# Images that a threshold is chosen on, evenly spread: more cost time, and the
# pooled Dice is flat around its best.
_MOST_IMAGES = 2000


def stored_point(workdir: pathlib.Path, step: int) -> dict[str, Any] | None:
  """The operating point of a checkpoint, if it was worked out before."""
  return _read(workdir / _POINTS).get(str(step))


def stored_profile(workdir: pathlib.Path) -> dict[str, Any] | None:
  """`shift.profile` of the training images, if it was worked out before."""
  return _read(workdir / _PROFILE) or None


def operating_point(
  workdir: pathlib.Path,
  model: trained_model.TrainedModel,
  run_data: stored_data.RunData,
) -> dict[str, Any]:
  """Finds the threshold with the highest pooled Dice on training images.

  They are at most 2,000, evenly spread over all.

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
  """Stores the best threshold of a histogram of training images."""
  threshold = calibration.best_threshold(histogram)
  point = {
    'threshold': threshold,
    'chosen_on': 'train',
    'train_dice': summaries.scores_at(histogram, threshold)['dice'],
    'train_images': num_images,
  }
  points = {**_read(workdir / _POINTS), str(step): point}
  run_folder.write_json(workdir / _POINTS, points)
  return point


def profile(
  workdir: pathlib.Path, run_data: stored_data.RunData
) -> dict[str, Any]:
  """`shift.profile` of the training images."""
  found = stored_profile(workdir)
  if found is None:
    indices = input_pipeline.select(run_data.data, run_data.split.train)
    found = shift.profile(run_data.source, run_data.data, indices)
    run_folder.write_json(workdir / _PROFILE, found)
  return found


def _read(path: pathlib.Path) -> dict[str, Any]:
  return run_folder.read_json(path) if path.exists() else {}
