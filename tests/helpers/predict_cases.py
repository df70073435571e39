"""Runs the command predict on a model whose answer is known."""

import fake_model
import numpy as np
from PIL import Image

from skinseg_jax import config as config_lib
from skinseg_jax import predict
from skinseg_jax.inference import trained_model
from skinseg_jax.runtime import errors


def make_model(monkeypatch, tmp_path, image_size=(64, 96)):
  """Dark is lesion; the command line loads this model from any folder."""
  made = fake_model.make(monkeypatch, tmp_path / 'data', image_size=image_size)
  monkeypatch.setattr(trained_model, 'load', lambda *args: made)
  monkeypatch.setattr(config_lib, 'load', lambda path: made.config)
  return made


def run(*flags):
  """Runs the program; returns its exit code."""
  argv = ['predict', '--workdir', 'run', *map(str, flags)]
  try:
    errors.exit_with_message(predict.main, argv)
  except SystemExit as end:
    return end.code
  return 0


def end(capsys, *flags):
  assert run(*flags) == 2
  message = capsys.readouterr().err
  assert message.count('error: ') == 1
  return message


def picture(height, width):
  """A white picture with a dark rectangle off the centre, and its mask."""
  mask = np.zeros((height, width), np.uint8)
  mask[height // 5 : height // 2, width // 2 : width * 9 // 10] = 255
  image = np.where(mask[..., None] > 0, 20, 236)
  return np.repeat(image, 3, axis=2).astype(np.uint8), mask


def read(path):
  with Image.open(path) as image:
    assert image.format == 'PNG'
    assert image.mode == 'L'
    mask = np.asarray(image)
  assert set(np.unique(mask)) <= {0, 255}
  return mask
