"""What the tests of the exported page share."""

import chromium
import exported_page
import pytest
import static_host
from fake_images import random_image
from PIL import Image

from skinseg_jax.inference import predictor, trained_model


@pytest.fixture(scope='session')
def folder(tiny_run, tmp_path_factory):
  """The page of a tiny network."""
  output = tmp_path_factory.mktemp('export') / 'page'
  exported_page.export_to(output, tiny_run[0])
  return output


@pytest.fixture(scope='session')
def url(folder):
  with static_host.hosted(folder) as url:
    yield url


@pytest.fixture(scope='session')
def flax(tiny_run):
  """Predicts pictures from Python."""
  return predictor.Predictor(trained_model.load(tiny_run[0], 'last'))


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  with chromium.started(tmp_path_factory.mktemp('profile')) as driver:
    yield driver


@pytest.fixture(scope='session')
def photo(tmp_path_factory):
  """Of other proportions than the model's pictures."""
  path = tmp_path_factory.mktemp('photos') / 'mole one.png'
  Image.fromarray(random_image(70, 90)).save(path)
  return path
