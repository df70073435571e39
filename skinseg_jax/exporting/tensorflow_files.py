"""Writes a network for TensorFlow and LiteRT, which was TensorFlow Lite."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from skinseg_jax.exporting import program
from skinseg_jax.runtime import errors

# Pictures, uint8 [B, H, W, 3], to probabilities.
_Run = Callable[[np.ndarray], np.ndarray]

_SIGNATURE = 'serving_default'  # The one that TensorFlow Serving asks for.


def write(
  path: pathlib.Path,
  kind: str,
  predict: program.Program,
  state: Any,
  size: tuple[int, int],
) -> dict[str, Any]:
  """Writes a SavedModel, or a file for LiteRT.

  Args:
    path: The file; those of a SavedModel are written beside it.
    kind: 'savedmodel', for any number of pictures, or 'tflite', for one at a
      time.
    predict: From `program.build_program`.
    state: Weights and running statistics.
    size: Height and width of the pictures.

  Returns:
    What `model.json` says about it.
  """
  if kind == 'savedmodel':
    _save(path.parent, predict, state, size, None)
  else:
    with tempfile.TemporaryDirectory() as folder:
      _save(pathlib.Path(folder), predict, state, size, 1)
      lite = _tensorflow().lite
      converter = lite.TFLiteConverter.from_saved_model(folder)
      try:
        converted = converter.convert()
      except Exception as error:  # The converter has no public type for it.
        line = str(error).split('\n', 1)[0]
        raise errors.InputError(
          f'TensorFlow Lite cannot convert this network ({line}); give another'
          ' --format, such as onnx.'
        ) from error
      path.write_bytes(converted)
  return {'signature': _SIGNATURE}


def load(kind: str) -> Callable[[pathlib.Path], _Run]:
  """Returns what loads such a file; see `write`."""
  return _load_savedmodel if kind == 'savedmodel' else _load_tflite


def _load_savedmodel(path: pathlib.Path) -> _Run:
  tf = _tensorflow()
  model = tf.saved_model.load(str(path.parent))

  def run(images: np.ndarray) -> np.ndarray:
    # Not taken out of `run`: the model holds what its functions need.
    found = model.signatures[_SIGNATURE](image=tf.constant(images))
    return found['probability'].numpy()

  return run


def _load_tflite(path: pathlib.Path) -> _Run:
  from ai_edge_litert import interpreter

  run = interpreter.Interpreter(str(path)).get_signature_runner(_SIGNATURE)
  return lambda images: np.concatenate(
    [run(image=image[None])['probability'] for image in images]
  )


def _save(
  folder: pathlib.Path,
  predict: program.Program,
  state: Any,
  size: tuple[int, int],
  batch: int | None,
) -> None:
  """Writes a SavedModel for so many pictures; None: any number."""
  tf = _tensorflow()  # Before jax2tf, which imports it.
  from jax.experimental import jax2tf

  from skinseg_jax.models.cpu import switch

  def run(images):
    # Here, because TensorFlow traces more than once.
    with switch.cpu_forms(False):
      return predict(state, images)

  converted = jax2tf.convert(
    run,
    with_gradient=False,
    polymorphic_shapes=[None if batch else 'batch, ...'],
  )
  module = tf.Module()
  module.predict = tf.function(
    lambda image: {'probability': converted(image)},
    autograph=False,
    input_signature=[tf.TensorSpec((batch, *size, 3), tf.uint8, 'image')],
  )
  signature = module.predict.get_concrete_function()
  tf.saved_model.save(module, str(folder), {_SIGNATURE: signature})


def _tensorflow() -> Any:
  # Otherwise it logs on import what it was compiled for.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  import tensorflow

  return tensorflow
