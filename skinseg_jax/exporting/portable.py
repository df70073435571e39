"""Folders with a network for another runtime: file, description, example.

A file is loaded again in its own runtime, and its probabilities are compared
with Flax's, before the folder counts as written.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from skinseg_jax.runtime import errors

# Largest difference of a probability to Flax's.
TOLERANCE = 1e-4

# Name of the file of each format, and the packages that it needs.
FILES = {
  'onnx': 'model.onnx',
  'stablehlo': 'model.stablehlo',
  'tflite': 'model.tflite',
  'savedmodel': 'saved_model.pb',
}
_PACKAGES = {
  'onnx': ('onnx', 'onnxruntime'),
  'stablehlo': ('jax', 'jaxlib'),
  'tflite': ('tensorflow', 'ai_edge_litert'),
  'savedmodel': ('tensorflow',),
}
FORMATS = tuple(FILES)
WEB = 'web'  # ONNX with a page; see `web_page`.

# Replaces a file that was checked; returns more for `model.json`.
Replace = Callable[[pathlib.Path], dict[str, Any]]

_EXAMPLE = pathlib.Path(__file__).parent / 'templates' / 'example.py'
# One and several: the size of a batch may differ.
_BATCH_SIZES = (1, 7)


def lacking(kind: str) -> list[str]:
  """The packages that a format needs and that are not installed."""
  return [p for p in _PACKAGES[kind] if not importlib.util.find_spec(p)]


def check_installed(kind: str) -> None:
  """Refuses a format whose packages are missing.

  Raises:
    InputError: Saying what to install.
  """
  extra = 'onnx' if kind == WEB else kind
  if missing := lacking(extra):
    until = ', up to Python 3.13' if 'tensorflow' in missing else ''
    raise errors.InputError(
      f'--format {kind} needs {" and ".join(missing)}: pip install'
      f' "skinseg_jax[{extra}]"{until}'
    )


def write(
  folder: pathlib.Path,
  kind: str,
  model: Any,
  about: dict[str, Any],
  *,
  replace: Replace | None = None,
) -> dict[str, Any]:
  """Writes the file of the network, `model.json` and `example.py`.

  Args:
    folder: An existing folder.
    kind: One of `FORMATS`.
    model: An `inference.trained_model.TrainedModel`.
    about: More for `model.json`, such as licence and scores.
    replace: See `write_network`.

  Returns:
    What `model.json` says.

  Raises:
    InputError: See `write_network`.
  """
  description = write_network(folder, kind, model, about, replace=replace)
  shutil.copyfile(_EXAMPLE, folder / 'example.py')
  return description


def write_network(
  folder: pathlib.Path,
  kind: str,
  model: Any,
  about: dict[str, Any],
  *,
  halves: bool = False,
  replace: Replace | None = None,
) -> dict[str, Any]:
  """Writes the file of the network and `model.json`.

  Args:
    folder: An existing folder.
    kind: One of `FORMATS`.
    model: An `inference.trained_model.TrainedModel`.
    about: More for `model.json`, such as licence and scores.
    halves: For ONNX: see `onnx_graph.Graph`.
    replace: Called with the file after the check; None keeps the file.

  Returns:
    What `model.json` says.

  Raises:
    InputError: If the format lacks something that the network computes, or the
      probabilities differ by more than `TOLERANCE`.
  """
  from skinseg_jax.exporting import program, tensorflow_files

  config, path = model.config, folder / FILES[kind]
  size = config.data.image_size
  predict = program.build_program(config.model)
  load: Callable[[pathlib.Path], Callable[[np.ndarray], np.ndarray]]
  match kind:
    case 'onnx':
      details = _write_onnx(path, predict, model.state, size, halves)
      load = load_onnx
    case 'stablehlo':
      details = _write_stablehlo(path, predict, model.state, size)
      load = _load_stablehlo
    case _:
      details = tensorflow_files.write(path, kind, predict, model.state, size)
      load = tensorflow_files.load(kind)
  difference = _difference(load(path), predict, model.state, size)
  if not difference <= TOLERANCE:  # Also if it is not a number.
    raise errors.InputError(
      f'the {kind} file differs from Flax by {difference:.2g} in a probability,'
      f' more than {TOLERANCE}: nothing was written. Give another --format.'
    )
  about = about | (replace(path) if replace else {})
  description = {
    **_description(kind, model),
    'sha256': hashlib.sha256(path.read_bytes()).hexdigest(),
    'largest_difference_to_flax': difference,
    **details,
    **about,
  }
  text = json.dumps(description, indent=2)
  (folder / 'model.json').write_text(text + '\n', encoding='utf-8')
  return description


def _description(kind: str, model: Any) -> dict[str, Any]:
  """What `model.json` says of every file of this format."""
  config, size = model.config, model.config.data.image_size
  batch = 1 if kind == 'tflite' else 'batch'
  return {
    'format': kind,
    'file': FILES[kind],
    'step': model.step,
    'network': {
      name: getattr(config.model, name)
      for name in ('architecture', 'encoder', 'width')
    },
    'input': {
      'name': 'image',
      'type': 'uint8',
      'shape': [batch, *size, 3],
      'content': 'RGB, upright, 0 to 255',
      'resize': 'bilinear without antialiasing (OpenCV INTER_LINEAR)',
    },
    'output': {
      'name': 'probability',
      'type': 'float32',
      'shape': [batch, *size],
      'content': 'probability of lesion, 0 to 1',
    },
    'threshold': config.evaluation.threshold,
    'versions': {
      name: _version(name)
      for name in ('skinseg_jax', 'flax', *dict.fromkeys(
        ('jax', *_PACKAGES[kind])
      ))
    },
  }  # fmt: skip


def _version(package: str) -> str:
  if package == 'tensorflow':  # Of one of two distributions.
    import tensorflow

    return tensorflow.__version__
  return importlib.metadata.version(package)


def _write_onnx(path, predict, state, size, halves) -> dict[str, Any]:
  import onnx

  from skinseg_jax.exporting import onnx_file

  try:
    model = onnx_file.build(predict, state, size, halves=halves)
  except NotImplementedError as error:
    raise errors.InputError(
      f'the network has no ONNX form ({error}): nothing was written. Give'
      ' another --format, such as stablehlo.'
    ) from error
  onnx.save_model(model, path)
  return {'opset': onnx_file.OPSET, 'ir_version': onnx_file.IR_VERSION,
          'nodes': len(model.graph.node), 'precision': 'float32'}  # fmt: skip


def load_onnx(
  file: pathlib.Path | bytes,
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function of pictures, uint8 [B, H, W, 3], to probabilities."""
  import onnxruntime

  options = onnxruntime.SessionOptions()
  # Sums of int8 products overflow on older x86 processors without it.
  options.add_session_config_entry('session.x64quantprecision', '1')
  session = onnxruntime.InferenceSession(
    file, options, providers=['CPUExecutionProvider']
  )
  return lambda images: session.run(None, {'image': images})[0]


def _write_stablehlo(path, predict, state, size) -> dict[str, Any]:
  import jax
  import jax.export

  from skinseg_jax.exporting import program
  from skinseg_jax.models.cpu import switch

  platforms = ('cpu', 'cuda', 'tpu')
  with switch.cpu_forms(False):
    exported = jax.export.export(
      jax.jit(lambda images: predict(state, images)), platforms=platforms
    )(program.symbolic_images(size))
  path.write_bytes(exported.serialize())
  return {'calling_convention': exported.calling_convention_version,
          'platforms': platforms}  # fmt: skip


def _load_stablehlo(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
  import jax.export

  call = jax.export.deserialize(bytearray(path.read_bytes())).call
  return lambda images: np.asarray(call(images))


def _difference(run, predict, state, size) -> float:
  """Largest difference to Flax's probabilities of generated pictures."""
  import jax

  from skinseg_jax.data.sources import synthetic

  source = synthetic.SyntheticSource(max(_BATCH_SIZES), size, seed=0)
  images = np.stack([source[i]['image'] for i in range(len(source))])
  # Noise reaches what smooth pictures do not.
  images[::3] = np.random.default_rng(0).integers(0, 256, images[::3].shape)
  flax = jax.jit(predict)
  largest = [
    np.abs(run(images[:n]) - np.asarray(flax(state, images[:n]))).max()
    for n in _BATCH_SIZES
  ]
  return float(np.max(largest))  # Not a number if one of them is not.
