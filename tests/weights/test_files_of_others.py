"""Networks that others trained with segmentation-models-pytorch."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from skinseg_jax import config as config_lib
from skinseg_jax import main, predict, torch_weights
from skinseg_jax.data import cache
from skinseg_jax.data.sources import catalog
from skinseg_jax.inference import trained_model
from skinseg_jax.weights import tensor_files

pytestmark = [pytest.mark.torch, pytest.mark.twins, pytest.mark.slow]
twins = pytest.importorskip('twins')
models = pytest.importorskip('torch_models')
torch = twins.torch


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  config = config_lib.Config()
  config.data.source = 'synthetic'
  config.data.num_synthetic = 12
  config.data.image_size = (64, 64)
  config.data.data_dir = str(tmp_path_factory.mktemp('data'))
  config.model.architecture = 'linknet'
  config.model.encoder = 'efficientnet_lite0'
  config.train.batch_size = 4
  config.train.epochs = 1
  # Compiles faster; the run makes two updates.
  config.train.xla_options = 'xla_backend_optimization_level=0'
  config.evaluation.batch_size = 4
  return config


@pytest.fixture(scope='module')
def network():
  return models.randomise(twins.build('linknet', 'efficientnet_lite0'))


@pytest.fixture(scope='module')
def files(network, tmp_path_factory) -> list[pathlib.Path]:
  """The network as `save_pretrained` and as `torch.save` write it."""
  folder = tmp_path_factory.mktemp('theirs')
  network.save_pretrained(folder)
  torch.save(network.state_dict(), folder / 'network.pth')
  return [folder / 'model.safetensors', folder / 'network.pth']


@pytest.fixture(scope='module')
def run_folder(config, files, tmp_path_factory):
  """A run folder from the first file, made by the command."""
  workdir = tmp_path_factory.mktemp('runs') / 'theirs'
  path = tmp_path_factory.mktemp('configs') / 'theirs.py'
  path.write_text(
    'from skinseg_jax import config\n'
    f'get_config = lambda: config.load({str(path.with_suffix(".json"))!r})\n'
  )
  path.with_suffix('.json').write_text(json.dumps(config_lib.to_dict(config)))
  torch_weights.run(
    ['name', f'--weights={files[0]}', f'--workdir={workdir}',
     f'--config={path}'],
  )  # fmt: skip
  return workdir


def test_both_files_hold_the_same(files):
  first, second = map(tensor_files.read, files)
  assert first.keys() == second.keys()
  for name, values in first.items():
    np.testing.assert_array_equal(values, second[name], name)


def test_a_run_folder_predicts_as_their_network(
  config, network, run_folder, tmp_path
):
  source = catalog.open_source(config.data)
  data = cache.open_cache(
    source, config.data.image_size, pathlib.Path(config.data.data_dir)
  )
  photo = data.images[0]
  Image.fromarray(photo).save(tmp_path / 'photo.png')
  predict.main(
    ['name', f'--workdir={run_folder}', f'--input={tmp_path / "photo.png"}',
     f'--output={tmp_path / "out"}', '--probability'],
  )  # fmt: skip
  image = twins.normalised(photo[None] / np.float32(255), 'efficientnet_lite0')
  with torch.no_grad():
    logits = network.eval()(torch.from_numpy(np.moveaxis(image, -1, 1).copy()))
  expected = logits.sigmoid()[0, 0].numpy()
  (path,) = (tmp_path / 'out' / 'probability').iterdir()
  found = np.asarray(Image.open(path)) / 255
  # Stored as one of 256 levels.
  assert np.abs(found - expected).max() < 0.5 / 255 + 1e-4


def test_a_run_folder_exports_the_same_and_trains_on(
  config, files, run_folder, tmp_path
):
  exported = tmp_path / 'back.safetensors'
  torch_weights.run(['name', f'--export={exported}', f'--workdir={run_folder}'])
  theirs, back = tensor_files.read(files[0]), tensor_files.read(exported)
  for name, values in theirs.items():
    if not name.endswith('num_batches_tracked'):
      np.testing.assert_array_equal(values, back[name], name)
  summary = main.train_and_evaluate(config, run_folder)
  assert summary['checkpoint_step'] > 0
  model = trained_model.load(run_folder, 'last')
  assert model.step == summary['checkpoint_step']
