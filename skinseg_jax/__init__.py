"""Skin-lesion segmentation in JAX: networks for dermoscopic images."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from skinseg_jax.inference import predictor

__version__ = '0.1.0'


def load(
  folder: str | os.PathLike[str] | None = None, checkpoint: str = 'last'
) -> 'predictor.Predictor':
  """Loads a model to predict with.

  Args:
    folder: Folder of a run, of a shared model, or of a cross-validation with
      `ensemble.json`. None for the model that comes with the package; a line is
      printed that says so.
    checkpoint: Of a run: 'best' (by validation Dice), 'last', or a step.

  Returns:
    Its `predict` takes pictures. Its predictions have an expected Dice if the
    folder is of one model and has a `review.json` for it; if that is for
    another checkpoint or config, a line is printed that says so.

  Raises:
    InputError: If the folder, the checkpoint or `review.json` cannot be read.
  """
  # Imported here, because the import takes seconds.
  from skinseg_jax.inference import predictor, trained_model
  from skinseg_jax.run import review_file
  from skinseg_jax.runtime import paths
  from skinseg_jax.weights import ensemble_folder, shared_model

  path = shared_model.chosen(
    None if folder is None else paths.user_path(os.fspath(folder))
  )
  folders = ensemble_folder.members([path], 'folder')
  model = trained_model.load_all(folders, checkpoint)
  calibration = None
  if isinstance(model, trained_model.TrainedModel):
    calibration = review_file.of_model(folders[0], model.identity())
  return predictor.Predictor(model, calibration)
