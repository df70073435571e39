"""ONNX files of fewer bits: scored before they count as written."""

import json

import export_cases
import numpy as np
import pytest

from skinseg_jax import config as config_lib
from skinseg_jax import export
from skinseg_jax.run import stored_data
from skinseg_jax.runtime import errors

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

from skinseg_jax.exporting import (  # noqa: E402
  onnx_file,
  portable,
  program,
  reduced,
)


def _export(workdir, output, *flags):
  export.main(
    ['export', f'--workdir={workdir}', '--format=onnx', f'--output={output}',
     *flags],
  )  # fmt: skip
  return output


def _run(model, images):
  session = onnxruntime.InferenceSession(
    model, providers=['CPUExecutionProvider']
  )
  name = session.get_inputs()[0].name
  return session.run(None, {name: images})[0]


@pytest.fixture(scope='module')
def validation(tiny_run):
  config = config_lib.load(tiny_run[0] / 'config.json')
  found = stored_data.open_run_data(tiny_run[0], config.data)
  indices = [
    found.data.image_ids.index(name) for name in found.split.validation
  ]
  return found.data.images[indices], found.data.masks[indices] > 0


@pytest.mark.parametrize(
  ('precision', 'kind'), [('float16', 'FLOAT16'), ('int8', 'INT8')]
)
def test_the_loss_of_dice_is_stated(
  tiny_run, validation, tmp_path, monkeypatch, capsys, precision, kind
):
  monkeypatch.setattr(reduced, 'MOST_LOSS', 1.0)  # A tiny network may lose.
  folder = _export(tiny_run[0], tmp_path / 'model', f'--precision={precision}')
  about = json.loads((folder / 'model.json').read_text())
  assert about['precision'] == precision
  assert about.get('calibration_images') == (
    21 if precision == 'int8' else None
  )
  model = onnx.load(folder / 'model.onnx')
  kinds = [tensor.data_type for tensor in model.graph.initializer]
  assert getattr(onnx.TensorProto, kind) in kinds
  assert len(model.graph.node) == about['nodes']
  images, true = validation
  lesion = _run(folder / 'model.onnx', images) > 0.5
  dice = 2 * (lesion & true).sum() / (lesion.sum() + true.sum())
  found = about['validation']
  assert found['images'] == 7
  # Of float16, the worse of two ways to compute counts.
  assert found['dice'] == pytest.approx(dice, abs=5e-3)
  if precision == 'int8':
    assert found['dice'] == pytest.approx(dice, abs=1e-12)
  pooled = tiny_run[1]['pooled']['dice']
  assert found['dice_float32'] == pytest.approx(pooled, abs=1e-6)
  assert f'{found["dice"]:.4f} in {precision}' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('architecture', 'encoder', 'width', 'size'), export_cases.NETWORKS
)
def test_every_architecture_can_be_reduced(
  architecture, encoder, width, size, tmp_path
):
  config = config_lib.ModelConfig(
    architecture=architecture, encoder=encoder, width=width
  )
  # As many as in other tests, which share the compiled network.
  images = np.random.default_rng(1).integers(
    0, 256, (7, size, size, 3), np.uint8
  )
  state, flax = export_cases.trained_like(config, images)
  predict = program.build_program(config)
  model = onnx_file.build(predict, state, (size, size))
  path = tmp_path / 'model.onnx'
  error = lambda found: np.abs(found - flax).mean()
  onnx.save(model, path)
  halves = [error(run(images)) for run in reduced._halve(path)]
  assert max(halves) < 0.05
  reduced.quantise(model, path, images)
  # What has nothing to do with the picture is wrong by 0.3. The features of
  # ResUNet++ on noise have large outliers, so its steps are coarser.
  limit = 0.2 if architecture == 'resunetplusplus' else 0.15
  assert error(portable.load_onnx(path)(images)) < limit


def test_what_the_runtime_refuses_is_not_written(
  tiny_run, tmp_path, monkeypatch
):
  def broken(model, path, images):
    path.write_bytes(b'no model')

  monkeypatch.setattr(reduced, 'quantise', broken)
  with pytest.raises(
    errors.InputError, match=r'refuses the int8 file.*nothing.*such as float32'
  ):
    _export(tiny_run[0], tmp_path / 'model', '--precision=int8')
  assert not list((tmp_path / 'model').iterdir())


def test_what_loses_too_much_is_not_written(tiny_run, tmp_path, monkeypatch):
  monkeypatch.setattr(reduced, 'MOST_LOSS', -1.0)
  with pytest.raises(errors.InputError, match=r'float16 file.* by -?0\.\d{4}'):
    _export(tiny_run[0], tmp_path / 'model', '--precision=float16')
  assert not list((tmp_path / 'model').iterdir())


def test_numbers_too_large_for_float16_show():
  # 1000 x 300 is above 65504. Divided by 300 again, float32 hides it.
  helper, kind = onnx.helper, onnx.TensorProto.FLOAT
  info = lambda name: helper.make_tensor_value_info(name, kind, [2])
  weight = lambda name, value: onnx.numpy_helper.from_array(
    np.float32([value]), name
  )
  graph = helper.make_graph(
    [helper.make_node('Mul', ['x', 'w'], ['large']),
     helper.make_node('Mul', ['large', 'v'], ['y'])],
    'g', [info('x')], [info('y')], [weight('w', 300), weight('v', 1 / 300)],
  )  # fmt: skip
  model = helper.make_model(
    graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8
  )
  x = np.float32([1000, 1 + 2**-12])
  np.testing.assert_allclose(_run(model.SerializeToString(), x), x, rtol=1e-6)
  found = _run(reduced.rounded(model).SerializeToString(), x)
  assert found[0] == np.inf
  assert 1e-4 < abs(found[1] - x[1]) < 2e-3


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--precision=int8', '--format=stablehlo'], 'is for --format onnx'),
    (['--data_dir=x'], '--data_dir is for --precision'),
    (['--data_dir=x', '--precision=int8'], '--data_dir is for --precision'),
  ],
)
def test_flags_that_do_not_fit_are_refused(tiny_run, tmp_path, flags, message):
  with pytest.raises(errors.InputError, match=message):
    _export(tiny_run[0], tmp_path / 'model', *flags)


def test_a_model_without_a_run_needs_its_images(tiny_run, tmp_path):
  export.main(
    ['export', f'--workdir={tiny_run[0]}', '--format=huggingface',
     f'--output={tmp_path / "shared"}'],
  )  # fmt: skip
  with pytest.raises(errors.InputError, match='does not say which images'):
    _export(tmp_path / 'shared', tmp_path / 'model', '--precision=int8')
  with pytest.raises(errors.InputError, match='give --data_dir'):
    export.main(
      ['export', '--format=onnx', f'--output={tmp_path / "model"}',
       '--precision=int8'],
    )  # fmt: skip
