"""A model with known answers: dark pixels are lesion. Compiles nothing."""

import pathlib

import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, splits
from skinseg_jax.data.sources import synthetic
from skinseg_jax.inference import forward_pass, trained_model
from skinseg_jax.run import stored_data

# Grey value at which the probability is one half, and grey values per logit.
MIDDLE, SCALE = 128, 16


def logits(images):
  grey = images.astype(np.float32).mean(axis=-1, keepdims=True)
  return (MIDDLE - grey) / SCALE


def answer(images, bias=0.0):
  """What a network says of images; its only feature is always 0."""
  return forward_pass.Views(logits(images) + bias, np.zeros((len(images), 1)))


def probabilities(images):
  return 1 / (1 + np.exp(-logits(images)[..., 0].astype(np.float64)))


def make(monkeypatch, data_dir, *, image_size=(32, 32), step=10):
  """A trained model that predicts `logits`."""
  predict = lambda graphdef, state, x, *, views: forward_pass.of_views(
    answer, x, views
  )
  monkeypatch.setattr(forward_pass, 'each_view', predict)
  config = config_lib.Config()
  config.data.source = 'synthetic'
  config.data.image_size = image_size
  config.data.data_dir = str(data_dir)
  config.evaluation.batch_size = 4
  return trained_model.TrainedModel(config, None, None, step, None)


def make_uneven(monkeypatch):
  """The model is less sure at the bottom right, so its views differ."""

  def uneven(x):
    height, width = x.shape[1:3]
    rows, columns = np.mgrid[:height, :width]
    slope = 2 * rows / height + 3 * columns / width
    return answer(x, -slope[None, ..., None].astype(np.float32))

  monkeypatch.setattr(
    forward_pass,
    'each_view',
    lambda graphdef, state, x, *, views: forward_pass.of_views(
      uneven, x, views
    ),
  )


def shared_folder(folder):
  """Makes a folder with the files by which a shared model is known."""
  folder.mkdir()
  for name in ('config.json', 'model.json'):
    (folder / name).write_text('{}')
  return folder


def run_data(model, *, num_images=19, size=(48, 40)):
  """Generated images: 8 for training, 7 for validation, the rest unused."""
  source = synthetic.SyntheticSource(num_images=num_images, size=size, seed=3)
  data = cache.open_cache(
    source,
    model.config.data.image_size,
    pathlib.Path(model.config.data.data_dir),
  )
  split = splits.Split(source.image_ids[:8], source.image_ids[8:15])
  return stored_data.RunData(source, data, split)
