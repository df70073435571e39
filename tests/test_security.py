"""Checks the promises of SECURITY.md."""

import ast
import csv
import json
import pathlib
import pickle
import re
import socket
import zipfile

import fake_ham10000
import fake_model
import numpy as np
import pytest
from PIL import Image

import skinseg_jax
from skinseg_jax.data import preprocessing
from skinseg_jax.data.sources import folder, ham10000, ham10000_files
from skinseg_jax.evaluation import evaluator, result_files
from skinseg_jax.inference import trained_model
from skinseg_jax.runtime import errors, spreadsheets
from skinseg_jax.weights import tensor_files


def _calls(tree):
  for node in ast.walk(tree):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
      yield ast.unparse(node.func), [ast.unparse(k) for k in node.keywords]


def test_nothing_unpickles():
  for path in pathlib.Path(skinseg_jax.__file__).parent.rglob('*.py'):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
      if isinstance(node, ast.Import):
        assert not {'pickle', 'cloudpickle', 'dill', 'shelve'} & {
          name.name for name in node.names
        }, path
    for name, keywords in _calls(tree):
      if name == 'torch.load':
        assert 'weights_only=True' in keywords, path
      if name == 'np.load':  # NumPy's own default is False.
        assert 'allow_pickle=True' not in keywords, path


def test_loading_a_checkpoint_unpickles_nothing(tiny_run, monkeypatch):
  def refuse(*_, **__):
    raise AssertionError('unpickled')

  for name in ('load', 'loads', 'Unpickler'):
    monkeypatch.setattr(pickle, name, refuse)
  workdir, _ = tiny_run
  assert trained_model.load(workdir, 'last').step == 10


def test_config_alone_makes_nothing_of_its_size(tiny_run, tmp_path):
  # 8 G parameters would not fit in most memories.
  workdir, _ = tiny_run
  values = json.loads((workdir / 'config.json').read_text())
  values['model']['width'] = 1024
  (tmp_path / 'config.json').write_text(json.dumps(values))
  (tmp_path / 'checkpoints').symlink_to(workdir / 'checkpoints')
  with pytest.raises(errors.InputError, match='holds another model'):
    trained_model.load(tmp_path, 'last')


@pytest.mark.parametrize(
  ('cell', 'guarded'),
  [
    ('=1+1', "'=1+1"),
    ('+cmd', "'+cmd"),
    ('-cmd|x', "'-cmd|x"),
    ('@SUM(A1)', "'@SUM(A1)"),
    ('\t=1', "'\t=1"),
    ("'=1", "''=1"),
    ('-0.5', '-0.5'),
    ('nv', 'nv'),
    ('', ''),
  ],
)
def test_formulas_are_guarded_and_come_back(cell, guarded):
  assert spreadsheets.guard(cell) == guarded
  assert spreadsheets.bare(guarded) == cell


def test_no_cell_of_per_image_csv_is_a_formula(monkeypatch, tmp_path):
  for name in ('images', 'masks'):
    (tmp_path / name).mkdir()
    picture = Image.new('L', (32, 32), 0 if name == 'masks' else 90)
    picture.paste(255, (8, 8, 24, 24))
    picture.save(tmp_path / name / '=HYPERLINK(1).png')
  rows = [('image_id', 'lesion_id', 'dx'), ('=HYPERLINK(1)', '@x', '+nv')]
  with (tmp_path / 'x.csv').open('w', newline='') as file:
    csv.writer(file).writerows(rows)
  source = folder.FolderSource(
    tmp_path / 'images', tmp_path / 'masks', tmp_path / 'x.csv', 0
  )
  run = tmp_path / 'run'
  run.mkdir()
  evaluator.evaluate_source(
    run,
    fake_model.make(monkeypatch, tmp_path / 'data'),
    source,
    name='other',
    options=evaluator.Options(native_size=False, training_side=False),
  )
  (path,) = run.rglob('per_image.csv')
  with path.open(newline='') as file:
    cells = [cell for row in csv.reader(file) for cell in row]
  assert "'@x" in cells
  number = re.compile(r'-?[0-9.]+')  # A negative number is no formula.
  assert not [
    cell
    for cell in cells
    if cell.startswith(tuple('=+-@')) and not number.fullmatch(cell)
  ]
  evaluated = result_files.read(run, 'other')
  assert evaluated.image_ids == ['=HYPERLINK(1)']
  assert evaluated.rows[0]['dx'] == '+nv'


def test_building_from_files_uses_no_network(monkeypatch, tmp_path):
  def refuse(*_, **__):
    raise AssertionError('network')

  for name in ('connect', 'connect_ex'):
    monkeypatch.setattr(socket.socket, name, refuse)
  monkeypatch.setattr(socket, 'getaddrinfo', refuse)
  raw_dir = fake_ham10000.write_zips(
    tmp_path / 'raw', fake_ham10000.make_images(4)
  )
  source = ham10000.Ham10000Source.prepare(tmp_path / 'data', raw_dir, 0)
  assert len(source) == 4


def _problems(tmp_path, data, method):
  """Error message for a zip that holds `data` as one image."""
  images = fake_ham10000.make_images(1)
  fake_ham10000.write_zips(tmp_path, images, parts=1)
  path = tmp_path / 'HAM10000_images_part_1.zip'
  with zipfile.ZipFile(path, 'w', method) as file:
    file.writestr(f'{images[0].image_id}.jpg', data)
  raw = ham10000_files.list_files(ham10000_files.find(tmp_path))
  if raw.problems:
    return raw.problems[0]
  with pytest.raises(errors.InputError) as caught:
    raw.images[images[0].image_id].read()
  return str(caught.value)


def test_zip_bombs_are_not_unpacked(tmp_path):
  # 65 MB of zeros are 64 kB in a zip.
  message = _problems(tmp_path, bytes(65 * 2**20), zipfile.ZIP_DEFLATED)
  assert '68157440 bytes, at most 67108864' in message
  message = _problems(tmp_path, b'x', zipfile.ZIP_LZMA)
  assert 'compression method 14' in message


def test_zip_that_holds_more_than_it_declares(tmp_path):
  images = fake_ham10000.make_images(1)
  fake_ham10000.write_zips(tmp_path, images, parts=1)
  path = tmp_path / 'HAM10000_images_part_1.zip'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
    file.writestr(f'{images[0].image_id}.jpg', bytes(4 * 2**20))
  data = bytearray(path.read_bytes())
  place = data.rindex((4 * 2**20).to_bytes(4, 'little'))
  data[place : place + 4] = (1000).to_bytes(4, 'little')
  path.write_bytes(data)
  raw = ham10000_files.list_files(ham10000_files.find(tmp_path))
  with pytest.raises(errors.InputError, match='unreadable'):
    raw.images[images[0].image_id].read()


def test_transparent_mask_is_composed_the_same_in_strips():
  # A little more than two strips; grey over black is grey times alpha.
  rng = np.random.default_rng(0)
  grey, alpha = rng.integers(0, 256, (2, 600, 7)).astype(np.uint8)
  picture = Image.fromarray(np.stack([grey, alpha], axis=2), 'LA')
  data = fake_ham10000.encode(picture, 'PNG')
  mask = preprocessing.decode_mask(data, 'x', threshold=100)
  composed = np.rint(grey.astype(float) * alpha / 255)
  np.testing.assert_array_equal(mask, composed > 100)


def test_weights_whose_header_lies(tmp_path):
  path = tmp_path / 'x.safetensors'
  tensor_files.write(path, {'a': np.ones(4, np.float32)})
  good = path.read_bytes()
  for old, new in (
    (b'"shape": [4]', b'"shape": [9]'),
    (b'[0, 16]', b'[8, 24]'),
    (b'"F32"', b'"F64"'),
  ):
    path.write_bytes(good.replace(old, new))
    with pytest.raises(errors.InputError, match='not a complete safetensors'):
      tensor_files.read(path)
  path.write_bytes((2**63).to_bytes(8, 'little') + good[8:])
  with pytest.raises(errors.InputError, match='not a complete safetensors'):
    tensor_files.read(path)


@pytest.mark.torch
def test_compressed_torch_file_is_refused(tmp_path):
  pytest.importorskip('torch')
  path = tmp_path / 'x.pt'
  tensor_files.write(path, {'a': np.ones(4, np.float32)})
  with zipfile.ZipFile(path) as file:
    parts = {name: file.read(name) for name in file.namelist()}
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
    for name, data in parts.items():
      file.writestr(name, data)
  with pytest.raises(errors.InputError, match='not a PyTorch file'):
    tensor_files.read(path)
