"""Folders for other runtimes: complete, checked, and used by their example."""

import hashlib
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from fake_images import random_image
from PIL import Image

from skinseg_jax import export, predict
from skinseg_jax.data import preprocessing
from skinseg_jax.exporting import portable, web_runtime
from skinseg_jax.runtime import errors

_PAGE = pathlib.Path(__file__).parents[2] / 'docs/how-to/use-without-jax.md'


def _export(workdir, kind, output, *flags):
  export.main(
    ['export', f'--workdir={workdir}', f'--format={kind}',
     f'--output={output}', *flags],
  )  # fmt: skip
  return output


@pytest.fixture(scope='module', params=portable.FORMATS)
def folder(request, tiny_run, tmp_path_factory):
  if missing := portable.lacking(request.param):
    pytest.skip(f'{" and ".join(missing)} cannot be imported')
  output = tmp_path_factory.mktemp('export') / 'model'
  return _export(tiny_run[0], request.param, output)


def _example(folder, *words, program='example.py', cwd=None):
  return subprocess.run(
    [sys.executable, str(folder / program), *map(str, words)],
    capture_output=True,
    text=True,
    cwd=cwd,
  )


def test_the_description_is_complete(folder, tiny_run):
  about = json.loads((folder / 'model.json').read_text())
  data = (folder / about['file']).read_bytes()
  assert about['sha256'] == hashlib.sha256(data).hexdigest()
  batch = 1 if about['format'] == 'tflite' else 'batch'
  assert about['input']['shape'] == [batch, 32, 32, 3]
  assert about['output']['shape'] == [batch, 32, 32]
  assert about['threshold'] == 0.5
  assert about['licence'] == 'apache-2.0'
  assert about['largest_difference_to_flax'] <= portable.TOLERANCE
  dice = {row['name']: row['value'] for row in about['scores']}
  _, summary = tiny_run
  assert dice['Dice, pooled over all pixels'] == pytest.approx(
    summary['pooled']['dice']
  )
  if about['format'] == 'onnx':
    assert (about['opset'], about['nodes']) == (13, 54)
    assert 'onnxruntime' in about['versions']


def test_the_example_writes_the_mask_of_the_command(folder, tiny_run, tmp_path):
  photo = tmp_path / 'in' / 'photo.jpg'
  photo.parent.mkdir()
  exif = Image.Exif()
  exif[0x0112] = 6  # The camera was turned.
  Image.fromarray(random_image(61, 90)).save(photo, exif=exif)
  done = _example(folder, photo, tmp_path / 'mask.png')
  assert done.returncode == 0, done.stderr
  assert 'of the picture is lesion' in done.stdout
  predict.main(
    ['predict', f'--workdir={tiny_run[0]}', f'--input={photo}',
     f'--output={tmp_path / "masks"}'],
  )  # fmt: skip
  expected = np.asarray(Image.open(tmp_path / 'masks' / 'photo.png'))
  found = np.asarray(Image.open(tmp_path / 'mask.png'))
  assert found.shape == expected.shape == (90, 61)
  # Probabilities next to the threshold may fall on either side.
  assert (found != expected).mean() < 0.001


@pytest.fixture(scope='module')
def example():
  spec = importlib.util.spec_from_file_location('example', portable._EXAMPLE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'L', 'P', '1', 'I;16'])
@pytest.mark.parametrize('orientation', [1, 6])
def test_the_example_decodes_as_predict_does(
  example, tmp_path, mode, orientation
):
  path, exif = tmp_path / 'photo.png', Image.Exif()
  exif[0x0112] = orientation
  if mode == 'I;16':
    levels = np.random.default_rng(0).integers(0, 65536, (20, 30), np.uint16)
    image = Image.fromarray(levels)
    assert image.mode == mode
  else:
    image = Image.fromarray(random_image(20, 30)).convert(mode)
  image.save(path, exif=exif)
  np.testing.assert_array_equal(
    example.read_picture(path),
    preprocessing.decode_image(path.read_bytes(), 'photo.png'),
  )


@pytest.mark.parametrize('mode', ['I', 'F'])
def test_the_example_refuses_32_bits(example, tmp_path, mode):
  path = tmp_path / 'photo.tif'
  Image.new(mode, (4, 4)).save(path)
  with pytest.raises(SystemExit, match='photo.tif.*Save it with 8 bits'):
    example.read_picture(path)


@pytest.mark.parametrize('size', [(1, 1), (31, 17), (64, 64), (450, 600)])
def test_the_example_resizes_as_predict_does(example, size):
  image = random_image(*size)
  np.testing.assert_array_equal(
    example.resize_image(image, 32, 48),
    preprocessing.resize_image(image, (32, 48)),
  )
  probability = np.random.default_rng(0).random((32, 48), np.float32)
  np.testing.assert_allclose(
    example.resize_probability(probability, *size),
    preprocessing.resize_probability(probability, size),
    atol=1e-6,
  )


def test_the_example_refuses_another_file(folder, tmp_path):
  copy = shutil.copytree(folder, tmp_path / 'copy')
  about = json.loads((copy / 'model.json').read_text())
  path = copy / about['file']
  path.write_bytes(path.read_bytes()[:-1] + b'x')
  done = _example(copy, 'photo.jpg', 'mask.png')
  assert done.returncode == 1
  assert 'SHA-256 differs. Get the folder again' in done.stderr


def test_the_page_has_code_that_works(folder, tmp_path):
  if not (folder / 'model.onnx').exists():
    pytest.skip('the page is about ONNX')
  (code,) = re.findall(r'```python\n(.*?)```', _PAGE.read_text(), re.DOTALL)
  (folder / 'page.py').write_text(code)
  try:
    Image.fromarray(random_image(32, 32)).save(tmp_path / 'photo.png')
    shutil.copytree(folder, tmp_path / 'my_model')
    done = _example(folder, program='page.py', cwd=tmp_path)
  finally:
    (folder / 'page.py').unlink()
  assert done.returncode == 0, done.stderr
  assert '(1, 32, 32)' in done.stdout


def test_what_differs_from_flax_leaves_nothing_behind(
  tiny_run, tmp_path, monkeypatch
):
  monkeypatch.setattr(portable, 'TOLERANCE', -1.0)
  with pytest.raises(errors.InputError, match='differs from Flax.*nothing'):
    _export(tiny_run[0], 'stablehlo', tmp_path / 'model')
  assert not list((tmp_path / 'model').iterdir())


def test_one_result_that_is_no_number_is_refused(
  tiny_run, tmp_path, monkeypatch
):
  load = portable.load_onnx

  def broken(path):
    run = load(path)
    # Only several pictures at once fail.
    return lambda images: run(images) * (np.nan if len(images) > 1 else 1)

  monkeypatch.setattr(portable, 'load_onnx', broken)
  with pytest.raises(errors.InputError, match='differs from Flax by nan'):
    _export(tiny_run[0], 'onnx', tmp_path / 'model')


def test_what_onnx_lacks_is_refused_with_a_remedy(
  tiny_run, tmp_path, monkeypatch
):
  pytest.importorskip('onnx')
  pytest.importorskip('onnxruntime')
  from skinseg_jax.exporting import onnx_operations

  monkeypatch.delitem(onnx_operations._RULES, 'logistic')
  with pytest.raises(
    errors.InputError,
    match=r'logistic cannot be written to ONNX.*nothing.*such as stablehlo',
  ):
    _export(tiny_run[0], 'onnx', tmp_path / 'model')
  assert not list((tmp_path / 'model').iterdir())


def test_what_tensorflow_lite_lacks_is_refused_with_a_remedy(
  tiny_run, tmp_path, monkeypatch
):
  tensorflow = pytest.importorskip('tensorflow')
  pytest.importorskip('ai_edge_litert')

  class Converter:
    def convert(self):
      raise RuntimeError('no such operation\nand many more lines')

  monkeypatch.setattr(
    tensorflow.lite.TFLiteConverter,
    'from_saved_model',
    lambda folder: Converter(),
  )
  with pytest.raises(
    errors.InputError,
    match=r'cannot convert this network \(no such operation\);.*such as onnx',
  ):
    _export(tiny_run[0], 'tflite', tmp_path / 'model')
  assert not list((tmp_path / 'model').iterdir())


def test_a_missing_package_is_named(tiny_run, tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(
    errors.InputError,
    match=r'onnx and onnxruntime: pip install "skinseg_jax\[onnx\]"',
  ):
    _export(tiny_run[0], 'onnx', tmp_path / 'model')
  assert not (tmp_path / 'model').exists()


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path, capsys):
  with pytest.raises(SystemExit):
    _export(tmp_path, 'caffe', tmp_path / 'model')
  message = capsys.readouterr().err
  assert "'caffe'" in message
  assert all(kind in message for kind in portable.FORMATS)


def test_without_the_runtime_nothing_is_written(tiny_run, tmp_path):
  pytest.importorskip('onnx')
  pytest.importorskip('onnxruntime')
  command = f'npm pack onnxruntime-web@{web_runtime.VERSION}'
  with pytest.raises(errors.InputError, match=f'{command}.*--runtime_dir'):
    _export(tiny_run[0], 'web', tmp_path / 'page')
  (tmp_path / 'ort.wasm.bundle.min.mjs').write_text('another')
  with pytest.raises(errors.InputError, match=r'ort\.wasm.*differs.*npm pack'):
    _export(tiny_run[0], 'web', tmp_path / 'page', f'--runtime_dir={tmp_path}')
  assert not (tmp_path / 'page').exists()


def test_another_format_needs_no_runtime(tiny_run, tmp_path):
  with pytest.raises(errors.InputError, match='--runtime_dir is for.*leave it'):
    _export(
      tiny_run[0], 'stablehlo', tmp_path / 'model', f'--runtime_dir={tmp_path}'
    )
