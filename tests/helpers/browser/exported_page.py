"""The page that `export --format web` writes, and what it predicts."""

import hashlib
import json
import pathlib
import sys

import numpy as np
import pytest

from skinseg_jax import export
from skinseg_jax.data import preprocessing
from skinseg_jax.exporting import portable
from skinseg_jax.inference import predictor

# CONTRIBUTING.md says how the files come there.
_RUNTIME = pathlib.Path(sys.prefix) / 'onnxruntime-web/package/dist'


def export_to(output, workdir):
  """Writes the page of a run; skips the test without what that needs."""
  pytest.importorskip('onnx')
  pytest.importorskip('onnxruntime')
  if not _RUNTIME.exists():
    pytest.skip('onnxruntime-web is not in the virtual environment')
  export.main(
    ['export', f'--workdir={workdir}', '--format=web',
     f'--output={output}', f'--runtime_dir={_RUNTIME}'],
  )  # fmt: skip


def rewrite(folder, output, workdir, model):
  """Writes the page in a folder again, with another file of the model."""

  def copied(output, *arguments, **options):
    (output / 'model.onnx').write_bytes(model)
    about = json.loads((folder / 'model.json').read_text())
    about['sha256'] = hashlib.sha256(model).hexdigest()
    return about

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(portable, 'write_network', copied)
    export_to(output, workdir)


def check_prediction(browser, flax, path):
  """Checks the prediction on the page against Python's."""
  values = browser.execute_script('return [...shown.probability]')
  found = np.array(values, np.float32).reshape(32, 32)
  image = preprocessing.decode_image(path.read_bytes(), path.name)
  model = flax._model
  (answer,) = predictor.answers(model, [predictor.resize(model, image)], 1)
  assert np.abs(found - answer.probability).max() < 1e-3
