"""ONNX files that compute with fewer bits: float16 and int8.

float16 halves the file, for runtimes that compute in it. An int8 file is a
quarter as large; its ranges are calibrated on training images. Both lose
accuracy, so the command scores the validation images before it keeps the file.
"""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from skinseg_jax.data import input_pipeline
from skinseg_jax.exporting import portable
from skinseg_jax.metrics import confusion
from skinseg_jax.run import stored_data
from skinseg_jax.runtime import errors

# By how much pooled Dice may fall.
MOST_LOSS = 0.001

# Evenly spread over the training images; more change the ranges little.
_CALIBRATION_IMAGES = 200

_Run = Callable[[np.ndarray], np.ndarray]


def replace(
  path: pathlib.Path,
  precision: str,
  model: Any,
  run_data: stored_data.RunData,
) -> dict[str, Any]:
  """Replaces a float32 file that `portable` wrote.

  Args:
    path: The ONNX file.
    precision: 'float16' or 'int8'.
    model: The `inference.trained_model.TrainedModel` of the file.
    run_data: The images that the model was trained and validated on.

  Returns:
    What `model.json` says about the new file. Under `validation`, of the
    validation images, each predicted once: `images`, their number;
    `dice_float32`, Flax's pooled Dice; `dice`, the file's; and `dice_loss`.

  Raises:
    InputError: If ONNX Runtime cannot make or load the file, or pooled Dice
      falls by more than `MOST_LOSS`.
  """
  import onnx
  from onnxruntime.capi import onnxruntime_pybind11_state as state

  known: dict[str, Any] = {'precision': precision}
  try:
    if precision == 'float16':
      runs = _halve(path)
    else:
      indices = input_pipeline.select(run_data.data, run_data.split.train)
      indices = indices[:: -(-len(indices) // _CALIBRATION_IMAGES)]
      known['calibration_images'] = len(indices)
      images = (run_data.data.images[i] for i in indices)
      quantise(onnx.load(path), path, images)
      runs = [portable.load_onnx(path)]
  except (state.Fail, state.InvalidArgument, state.InvalidGraph,
          state.InvalidProtobuf, state.NotImplemented,
          state.RuntimeException) as error:  # fmt: skip
    raise errors.InputError(
      f'ONNX Runtime refuses the {precision} file ({error}): nothing was'
      ' written. Give another --precision, such as float32.'
    ) from error
  found, difference = _compare(runs, model, run_data)
  if not (found['dice_loss'] <= MOST_LOSS and np.isfinite(difference)):
    raise errors.InputError(
      f'the {precision} file lowers pooled Dice on the {found["images"]:,}'
      f' validation images from {found["dice_float32"]:.4f} to'
      f' {found["dice"]:.4f}, by {found["dice_loss"]:.4f}; at most'
      f' {MOST_LOSS} is allowed: nothing was written. Give another --precision,'
      ' such as float32.'
    )
  return known | {
    'nodes': len(onnx.load(path).graph.node),
    'largest_difference_to_flax': difference,
    'validation': found,
  }


def _halve(path: pathlib.Path) -> list[_Run]:
  """Replaces a file; returns how runtimes of both kinds compute it."""
  import onnx

  whole = onnx.load(path)
  onnx.save(halved(whole), path)
  # ONNX Runtime computes such a file in float32 on most CPUs.
  narrow = rounded(whole).SerializeToString()
  return [portable.load_onnx(path), portable.load_onnx(narrow)]


def halved(model: Any) -> Any:
  """An `onnx.ModelProto` in float16; the output stays float32."""
  from onnxruntime.transformers import float16

  return float16.convert_float_to_float16(model, keep_io_types=True)


def rounded(model: Any) -> Any:
  """A float32 model whose every weight and result is rounded to float16.

  It predicts what a runtime predicts that computes in float16.
  """
  import onnx
  from onnx import TensorProto, helper, numpy_helper

  model = onnx.shape_inference.infer_shapes(model)
  graph = model.graph
  wide = {
    value.name
    for value in (*graph.value_info, *graph.output)
    if value.type.tensor_type.elem_type == TensorProto.FLOAT
  }
  for tensor in graph.initializer:
    if tensor.data_type == TensorProto.FLOAT:
      values = numpy_helper.to_array(tensor).astype(np.float16)
      tensor.CopyFrom(
        numpy_helper.from_array(values.astype(np.float32), tensor.name)
      )
  nodes = []
  for node in graph.node:
    nodes.append(node)
    for i, name in enumerate(node.output):
      if name in wide:
        node.output[i] = f'{name}_wide'
        for old, new, kind in (
          (f'{name}_wide', f'{name}_half', TensorProto.FLOAT16),
          (f'{name}_half', name, TensorProto.FLOAT),
        ):
          nodes.append(helper.make_node('Cast', [old], [new], to=kind))
  del graph.node[:]
  graph.node.extend(nodes)
  return model


def quantise(
  model: Any, path: pathlib.Path, images: Iterable[np.ndarray]
) -> None:
  """Writes an `onnx.ModelProto` with 8-bit weights and results.

  Args:
    model: In float32.
    path: File to write.
    images: To find the ranges of the results with, uint8 [H, W, 3] each.
  """
  from onnxruntime import quantization
  from onnxruntime.quantization import quant_utils

  for node in model.graph.node:
    node.name = node.output[0]
  _unshare(model.graph)
  # The last convolution gives logits. They stay float32.
  names = [node.name for node in model.graph.node]
  places = [
    i
    for i, node in enumerate(model.graph.node)
    if node.op_type in ('Conv', 'ConvTranspose')
  ]
  # Shapes are known and batch norms folded: nothing else is to be prepared.
  quant_utils.add_pre_process_metadata(model)
  quantization.quantize_static(
    model,
    path,
    _Pictures(images),
    nodes_to_quantize=names[places[0] : places[-1]],
    per_channel=True,
    activation_type=quantization.QuantType.QUInt8,
    weight_type=quantization.QuantType.QInt8,
  )


def _unshare(graph: Any) -> None:
  """Gives each node weights of its own.

  ONNX Runtime replaces quantised weights node by node, and fails where two
  products share a matrix, as those of bilinear resizing do.
  """
  import onnx

  weights = {tensor.name: tensor for tensor in graph.initializer}
  taken = set()
  for node in graph.node:
    for i, name in enumerate(node.input):
      if name in weights and name in taken:
        copy = onnx.TensorProto()
        copy.CopyFrom(weights[name])
        copy.name = node.input[i] = f'{name}_{node.name}_{i}'
        graph.initializer.append(copy)
      taken.add(name)


class _Pictures:
  """A `quantization.CalibrationDataReader`."""

  def __init__(self, images: Iterable[np.ndarray]):
    self._left = iter(images)

  def get_next(self) -> dict[str, np.ndarray] | None:
    """The next picture as an input of the model; None after the last."""
    image = next(self._left, None)
    return None if image is None else {'image': image[None]}


def _compare(
  runs: list[_Run], model: Any, run_data: stored_data.RunData
) -> tuple[dict[str, Any], float]:
  """Scores Flax and the runs, and takes the worst of the runs.

  Returns:
    As `write`, and the largest difference to Flax in a probability.
  """
  import jax

  from skinseg_jax.exporting import program

  config, ids = model.config, run_data.split.validation
  flax = jax.jit(program.build_program(config.model))
  batches: Any = iter(
    input_pipeline.evaluation_batches(
      run_data.data,
      input_pipeline.select(run_data.data, ids),
      batch_size=config.evaluation.batch_size,
      sharding=model.sharding,
    )
  )
  counts = np.zeros((1 + len(runs), 3), np.int64)
  difference = np.float32(0)
  for batch in batches:
    valid, images, masks = (
      np.asarray(batch[name]) for name in ('valid', 'image', 'mask')
    )
    expected = np.asarray(flax(model.state, batch['image']))[valid]
    true = masks[valid] > 0
    for row, found in zip(
      counts, [expected, *(run(images[valid]) for run in runs)], strict=True
    ):
      lesion = found > config.evaluation.threshold
      row += [(lesion & true).sum(), lesion.sum(), true.sum()]
      difference = np.maximum(difference, np.abs(found - expected).max())
  batches.close()
  both, lesion, true = counts.T
  dice = confusion.ratios(
    {'tp': both, 'fp': lesion - both, 'fn': true - both, 'tn': 0 * both}
  )['dice']
  before, after = float(dice[0]), float(dice[1:].min())
  return {
    'images': len(ids),
    'dice_float32': before,
    'dice': after,
    'dice_loss': before - after,
  }, float(difference)
