"""What tests share: the optional real data, and strict numerics."""

import pathlib

import jax
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')

_HAM10000 = pathlib.Path(__file__).parents[2] / 'shared' / 'data' / 'ham10000'


@pytest.fixture(scope='session')
def ham10000_dir() -> pathlib.Path:
  """The four Dataverse files of HAM10000."""
  if not (_HAM10000 / 'HAM10000_metadata.csv').exists():
    pytest.skip('the HAM10000 files are not here')
  return _HAM10000


@pytest.fixture(scope='session')
def ham10000_source(ham10000_dir, tmp_path_factory):
  """The real data set, built once a session (a minute, 0.25 GB)."""
  # Imported where used: TFDS alone takes a second to import.
  from skinseg_jax.data import ham10000

  return ham10000.Ham10000Source.prepare(
    data_dir=tmp_path_factory.mktemp('ham10000'),
    raw_dir=ham10000_dir,
    mask_threshold=0,
  )
