"""The images of a run that cannot be opened, and what to do then."""

import json

import numpy as np
import pytest
from PIL import Image

from skinseg_jax import config as config_lib
from skinseg_jax.data import splits
from skinseg_jax.data.sources import catalog
from skinseg_jax.run import run_folder, stored_data
from skinseg_jax.runtime import errors


def test_remedies_of_a_data_dir_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  config = config_lib.Config()
  config.data.source, config.data.num_synthetic = 'synthetic', 4
  config.data.image_size = (16, 16)
  config.data.data_dir = str(tmp_path / 'file')
  source = catalog.open_source(config.data)
  split = splits.Split(source.image_ids[:2], source.image_ids[2:])
  workdir = tmp_path / 'run'
  run_folder.begin(workdir, config, source, split)
  with pytest.raises(
    errors.InputError, match='Make room, or set data_dir in the run.s config'
  ) as caught:
    stored_data.open_run_data(workdir, config.data)
  assert '--config' not in str(caught.value)  # No flag of evaluate.
  path = workdir / 'config.json'
  values = json.loads(path.read_text())
  values['data']['data_dir'] = str(tmp_path / 'another')
  path.write_text(json.dumps(values))
  changed = config_lib.load(path)
  assert len(stored_data.open_run_data(workdir, changed.data).data.images) == 4
  run_folder.begin(workdir, changed, source, split)  # It still resumes.


@pytest.mark.parametrize('lost', ['images', 'masks/a.png'])
def test_remedies_of_a_folder_that_was_moved(tmp_path, lost):
  rng = np.random.default_rng(0)
  for name in 'ab':
    picture = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    mask = np.eye(16, dtype=np.uint8) * 255
    for folder, array in (('images', picture), ('masks', mask)):
      (tmp_path / 'old' / folder).mkdir(parents=True, exist_ok=True)
      Image.fromarray(array).save(tmp_path / 'old' / folder / f'{name}.png')
  config = config_lib.Config()
  config.data.source, config.data.image_size = 'folder', (16, 16)
  config.data.images_dir = str(tmp_path / 'old/images')
  config.data.masks_dir = str(tmp_path / 'old/masks')
  config.data.data_dir = str(tmp_path / 'data')
  source = catalog.open_source(config.data)
  workdir = tmp_path / 'run'
  run_folder.begin(workdir, config, source, splits.Split(['a'], ['b']))
  (tmp_path / 'new').mkdir()
  (tmp_path / 'old' / lost).rename(tmp_path / 'new/lost')
  with pytest.raises(errors.InputError) as caught:
    stored_data.open_run_data(workdir, config.data)
  message = str(caught.value)
  assert '--' not in message  # `evaluate` has no such flags.
  assert 'restore the folders' in message
  assert str(workdir / 'config.json') in message
  (tmp_path / 'new/lost').rename(tmp_path / 'old' / lost)
  assert len(stored_data.open_run_data(workdir, config.data).data.images) == 2
  (tmp_path / 'old').rename(tmp_path / 'new/all')
  config.data.images_dir = str(tmp_path / 'new/all/images')
  config.data.masks_dir = str(tmp_path / 'new/all/masks')
  assert len(stored_data.open_run_data(workdir, config.data).data.images) == 2
