"""Shared fixtures: real and generated data, a tiny run, strict numerics."""

import os
import pathlib
import shutil
import tempfile

import fake_ham10000
import jax
import pytest

from skinseg_jax import config as config_lib

jax.config.update('jax_numpy_rank_promotion', 'raise')
# Two tests run at once: threads of PyTorch that wait must not keep a core busy.
os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'


def pytest_configure(config):
  """Tests of a session, and processes that they start, share programs.

  Many tests compile the same small networks. Nothing is taken from an earlier
  session or left in the user's folders.
  """
  if not hasattr(config, 'workerinput'):  # Workers inherit the environment.
    folder = tempfile.mkdtemp(prefix='skinseg_jax_programs_')
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ['JAX_COMPILATION_CACHE_DIR'] = folder
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.5'
    # JAX has read its environment already.
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def pytest_collection_modifyitems(config, items):
  """Of several processes, each begins with files that hold slow tests.

  What comes last is short, so no process is left alone with a long file. Files
  keep this order with xdist's --no-loadscope-reorder.
  """
  if hasattr(config, 'workerinput'):
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)


_HAM10000 = pathlib.Path(__file__).parents[2] / 'shared' / 'data' / 'ham10000'


@pytest.fixture(scope='session')
def ham10000_dir() -> pathlib.Path:
  """The four Dataverse files of HAM10000."""
  if not (_HAM10000 / 'HAM10000_metadata.csv').exists():
    pytest.skip('the HAM10000 files are not here')
  return _HAM10000


@pytest.fixture(scope='session')
def ham10000_source(request, ham10000_dir, tmp_path_factory):
  """The real data set, built once per session (a minute, 0.25 GB)."""
  # Imported here, because importing TFDS takes a second.
  from skinseg_jax.data.sources import ham10000

  shared = tmp_path_factory.getbasetemp()
  if hasattr(request.config, 'workerinput'):  # One folder for all processes.
    shared = shared.parent
  return ham10000.Ham10000Source.prepare(
    data_dir=shared / 'ham10000_source',
    raw_dir=ham10000_dir,
    mask_threshold=0,
  )


@pytest.fixture
def images():
  return fake_ham10000.make_images()


@pytest.fixture
def raw_dir(tmp_path, images) -> pathlib.Path:
  return fake_ham10000.write_zips(tmp_path / 'raw', images)


@pytest.fixture
def prepare(tmp_path):
  """Prepares a data set from a directory in a directory of the test."""
  from skinseg_jax.data.sources import ham10000

  def prepare(raw_dir=None, mask_threshold=0):
    return ham10000.Ham10000Source.prepare(
      data_dir=tmp_path / 'data',
      raw_dir=raw_dir,
      mask_threshold=mask_threshold,
    )

  return prepare


@pytest.fixture(scope='session')
def tiny_config(tmp_path_factory) -> config_lib.Config:
  """28 generated images of 32 px, 7 of them for validation; width 2."""
  config = config_lib.Config()
  config.data.source = 'synthetic'
  config.data.split = 'random'
  config.data.data_dir = str(tmp_path_factory.mktemp('data'))
  config.data.num_synthetic = 28
  config.data.validation_fraction = 0.25
  config.data.image_size = (32, 32)
  config.model.width = 2
  config.train.batch_size = 4
  config.train.epochs = 2
  config.train.learning_rate = 1e-2
  config.train.log_every_steps = 3
  config.evaluation.batch_size = 4
  return config


@pytest.fixture(scope='session')
def tiny_run(tiny_config, tmp_path_factory):
  """A finished run of `tiny_config`: its folder and the result of training."""
  # Imported here, because most tests do not need it.
  from skinseg_jax import main

  workdir = tmp_path_factory.mktemp('runs') / 'whole'
  return workdir, main.train_and_evaluate(tiny_config, workdir)
