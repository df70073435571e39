"""Messages about a prepared HAM10000: doing what they say opens it."""

import dataclasses
import json
import pathlib
import re
import shutil
import sys

import fake_ham10000
import numpy as np
import pytest
import remedies

from skinseg_jax import config as config_lib
from skinseg_jax.data.sources import catalog, ham10000
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import errors


def _refused(action, match) -> Exception:
  with pytest.raises(errors.InputError, match=match) as caught:
    action()
  return caught.value


def _named(error) -> pathlib.Path:
  """The folder that the message begins with."""
  return pathlib.Path(str(error).split()[0])


def _open_elsewhere(error, tmp_path, raw_dir, threshold=0):
  """Follows 'choose another folder', through the command line of training."""
  (flag,) = remedies.words(error, r'--config\.data\.data_dir=DIR')
  config, _ = remedies.parse(
    tmp_path,
    '--config.data.source=ham10000',
    f'--config.data.raw_dir={raw_dir}',
    f'--config.data.mask_threshold={threshold}',
    flag.replace('DIR', str(tmp_path / 'another')),
  )
  return catalog.open_source(config.data)


def test_remedies_of_a_folder_that_is_no_data_set(prepare, raw_dir, tmp_path):
  (tmp_path / 'data/ham10000/1.0.0').mkdir(parents=True)
  error = _refused(lambda: prepare(raw_dir), 'remove it or choose another')
  assert len(_open_elsewhere(error, tmp_path, raw_dir)) == 7
  shutil.rmtree(_named(error))
  assert len(prepare(raw_dir)) == 7


def test_remedies_of_a_folder_that_cannot_be_written(
  prepare, raw_dir, tmp_path
):
  (tmp_path / 'data').write_text('a file')
  error = _refused(lambda: prepare(raw_dir), 'make room, or choose another')
  assert len(_open_elsewhere(error, tmp_path, raw_dir)) == 7
  (tmp_path / 'data').unlink()
  assert len(prepare(raw_dir)) == 7


def test_remedy_of_damaged_records(prepare, raw_dir, tmp_path):
  prepare(raw_dir)
  (path,) = (tmp_path / 'data').rglob('*.array_record*')
  path.write_bytes(path.read_bytes()[:-1])
  error = _refused(prepare, 'remove it and prepare it again')
  shutil.rmtree(_named(error))
  assert len(prepare(raw_dir)) == 7


def test_remedies_of_other_raw_files(prepare, raw_dir, images, tmp_path):
  prepare(raw_dir)
  fake_ham10000.write_zips(raw_dir, images[1:])
  error = _refused(
    lambda: prepare(raw_dir),
    'or remove the old(.|\n)*or leave data.raw_dir out',
  )
  assert len(_open_elsewhere(error, tmp_path, raw_dir)) == 6
  assert len(prepare(None)) == 7
  shutil.rmtree(_named(error))
  assert len(prepare(raw_dir)) == 6


@pytest.fixture
def dim(images, tmp_path):
  """Raw files of which mask 4 is 0, 20 and 76: empty above 127."""
  images[4].mask = fake_ham10000.grey_png(np.resize([0, 20, 76], (45, 60)))
  return fake_ham10000.write_zips(tmp_path / 'dim', images)


def test_remedy_of_grey_masks_opened_without_their_threshold(
  prepare, dim, tmp_path
):
  expected = prepare(dim, 30)[4]['mask']
  assert expected.mean() == pytest.approx(1 / 3)
  error = _refused(prepare, 'need a threshold')
  (flag,) = remedies.words(error, r'--config\.data\.mask_threshold=\S+')
  config, _ = remedies.parse(
    tmp_path,
    '--config.data.source=ham10000',
    f'--config.data.data_dir={tmp_path / "data"}',
    flag,
  )
  opened = catalog.open_source(config.data)
  np.testing.assert_array_equal(opened[4]['mask'], expected)


def test_no_threshold_is_proposed_where_it_is_not_known(prepare, dim, tmp_path):
  expected = prepare(dim, 30)[4]['mask']
  # As versions before this one wrote it.
  (path,) = (tmp_path / 'data').rglob('metadata.json')
  manifest = json.loads(path.read_text())
  del manifest['mask_threshold']
  path.write_text(json.dumps(manifest))
  error = _refused(prepare, 'the one they were prepared with')
  assert not re.search(r'mask_threshold=\d', str(error))
  np.testing.assert_array_equal(prepare(None, 30)[4]['mask'], expected)


def test_remedies_of_a_run_whose_data_set_is_elsewhere(
  prepare, raw_dir, tmp_path, monkeypatch
):
  prepare(raw_dir)
  config = config_lib.Config()
  config.data.source, config.data.data_dir = 'ham10000', 'data'
  path = tmp_path / 'config.json'
  run_folder.write_json(path, config_lib.to_dict(config))
  (tmp_path / 'elsewhere').mkdir()
  monkeypatch.chdir(tmp_path / 'elsewhere')
  _refused(
    lambda: catalog.open_source(config.data, download=False),
    r'start from the folder that the run was trained in, or set data.data',
  )
  values = json.loads(path.read_text())
  values['data']['data_dir'] = str(tmp_path / 'data')
  path.write_text(json.dumps(values))
  changed = config_lib.load(path)
  assert len(catalog.open_source(changed.data, download=False)) == 7
  monkeypatch.chdir(tmp_path)
  assert len(catalog.open_source(config.data, download=False)) == 7


def test_remedies_of_a_download_that_fails(
  prepare, raw_dir, tmp_path, monkeypatch
):
  def fail(self, url):
    raise OSError('no route to host')

  manager = ham10000.download_manager.DownloadManager
  monkeypatch.setattr(manager, 'download', fail)
  error = _refused(prepare, 'Try again, or get the four')
  (flag,) = remedies.words(error, r'--config\.data\.raw_dir=DIR')
  config, _ = remedies.parse(
    tmp_path,
    '--config.data.source=ham10000',
    f'--config.data.data_dir={tmp_path}/another',
    flag.replace('DIR', str(raw_dir)),
  )
  assert len(catalog.open_source(config.data)) == 7
  # Trying again, with a network.
  names = {url: raw_dir / name for name, url in ham10000.URLS.items()}
  monkeypatch.setattr(manager, 'download', lambda self, url: names[url])
  assert len(prepare()) == 7


def test_remedy_without_the_packages(tmp_path, monkeypatch):
  source = 'skinseg_jax.data.sources'
  monkeypatch.delattr(f'{source}.ham10000')
  monkeypatch.delitem(sys.modules, f'{source}.ham10000')
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  config = dataclasses.replace(
    config_lib.DataConfig(), source='ham10000', data_dir=str(tmp_path)
  )
  error = _refused(lambda: catalog.open_source(config), 'needs the package')
  (package,) = re.findall(r'the package (\w+)', str(error))
  assert package.replace('_', '-') in remedies.extra(error)
