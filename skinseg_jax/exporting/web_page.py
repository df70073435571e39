"""A folder with a page that runs the network in the browser, without a server.

`index.html` with the files beside it is for a web host: it can be installed and
works offline once `service_worker.js` has stored its files. `single_file.html`
has everything inside and also works when it is opened from a disk.
"""

import base64
import gzip
import hashlib
import json
import pathlib
import shutil
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from skinseg_jax.exporting import portable, web_runtime
from skinseg_jax.viewer import shared_page

# In bytes; some mail systems and chat programs refuse larger files.
SINGLE_FILE_LIMIT = 25 * 2**20

_NAME = 'Outline a skin lesion'
_COLOUR = '#005a92'  # Of viewer.css.
_ICONS = {f'icon-{side}.png': side for side in (180, 192, 512)}
# What the browser stores besides the model and its runtime.
_SHELL = ['./', 'index.html', 'manifest.webmanifest', *_ICONS]
# Of the probabilities that the page compares with Flax's before its first
# picture, every how many-th is kept.
_STRIDE = 401


def write(
  output: pathlib.Path,
  model: Any,
  about: dict[str, Any],
  runtime: pathlib.Path,
) -> tuple[float, int]:
  """Writes the folder.

  Args:
    output: An existing folder.
    model: An `inference.trained_model.TrainedModel`.
    about: More for `model.json`, such as licence and scores.
    runtime: Folder that `web_runtime.check` accepted.

  Returns:
    The largest difference to Flax's probabilities, and the bytes that
    `single_file.html` has or, if that is more than `SINGLE_FILE_LIMIT`, would
    have: then it is not written.

  Raises:
    InputError: See `portable.write_network`.
  """
  description = portable.write_network(
    output, 'onnx', model, about, halves=True
  )
  for name in web_runtime.DIGESTS:
    shutil.copyfile(runtime / name, output / name)
  (output / 'onnxruntime-web-licence.txt').write_text(web_runtime.LICENCE)
  settings = _settings(output, description)
  inside = {name: _packed(output / name) for name in _needed(settings, 'wasm')}
  single = _page(settings, inside).encode()
  settings['single_file'] = len(single) <= SINGLE_FILE_LIMIT
  if settings['single_file']:
    (output / 'single_file.html').write_bytes(single)
  _write_shell(output, settings)
  return description['largest_difference_to_flax'], len(single)


def check_picture(height: int, width: int) -> np.ndarray:
  """A dark disc on skin, uint8 [height, width, 3]; `worker.js` draws it too."""
  rows, columns = np.mgrid[:height, :width]
  distance = (2 * rows - height) ** 2 + (2 * columns - width) ** 2
  inside = 4 * distance < min(height, width) ** 2
  disc, skin = np.array([[90, 60, 50], [200, 150, 140]], np.uint8)
  return np.where(inside[..., None], disc, skin)


def _settings(folder: pathlib.Path, description: dict[str, Any]) -> Any:
  """What the scripts of the page know about the model and the files."""
  _, height, width, _ = description['input']['shape']
  file = description['file']
  predict = portable.load_onnx(folder / file)
  expected = predict(check_picture(height, width)[None]).ravel()[::_STRIDE]
  network, licence = description['network'], description['licence']
  names = ' '.join(filter(None, (network['architecture'], network['encoder'])))
  if '-nc-' in licence:
    licence += ', not for commercial use'
  digests = {file: description['sha256'], **web_runtime.DIGESTS}
  return {
    'model': file,
    'runtimes': web_runtime.FILES,
    'files': {
      name: {
        'address': f'{name}?sha256={digest}',
        'sha256': digest,
        'bytes': (folder / name).stat().st_size,
      }
      for name, digest in digests.items()
    },
    'height': height,
    'width': width,
    'threshold': description['threshold'],
    'about': f'Model: {names}, step'
    f' {description["step"]}, SHA-256 {description["sha256"][:12]}. Licence of'
    f' the training data: {licence}.',
    'check': {'stride': _STRIDE, 'expected': expected.tolist()},
  }


def _needed(settings: Any, provider: str) -> list[str]:
  return [settings['model'], *settings['runtimes'][provider]]


def _page(settings: Any, inside: dict[str, str]) -> str:
  """The page; with the files that it needs inside if there are any."""
  templates = shared_page.environment('skinseg_jax.exporting')
  shared = shared_page.parts(templates, 'stored.js', 'web.js')
  # The scripts of the runtime are run from memory after their digests were
  # compared, so everything else is refused.
  script, style = (shared_page.source(shared[n]) for n in ('script', 'style'))
  policy = (
    f"default-src 'none'; script-src {script} blob: 'wasm-unsafe-eval';"
    f" style-src {style}; connect-src 'self'; worker-src 'self' blob:;"
    " manifest-src 'self'; img-src 'self' blob: data:; base-uri 'none';"
    " form-action 'none'"
  )
  return templates.get_template('web.html').render(
    name=_NAME,
    colour=_COLOUR,
    policy=policy,
    settings=settings,
    inside=inside,
    worker=shared_page.joined(
      templates, 'resize.js', 'upright.js', 'png.js', 'worker.js'
    ),
    types='image/*',
    **shared,
  )


def _packed(path: pathlib.Path) -> str:
  return base64.b64encode(gzip.compress(path.read_bytes(), 9, mtime=0)).decode()


def _write_shell(output: pathlib.Path, settings: Any) -> None:
  """Writes the page and what makes a program of it that can be installed."""
  index = _page(settings, {})
  (output / 'index.html').write_text(index, encoding='utf-8')
  for name, side in _ICONS.items():
    _icon(side).save(output / name, optimize=True)
  manifest = {
    'name': _NAME,
    'short_name': 'Lesion outline',
    'description': shared_page.NOTICE,
    'id': './',
    'start_url': './',
    'scope': './',
    'display': 'standalone',
    'background_color': '#ffffff',
    'theme_color': _COLOUR,
    'icons': [
      {
        'src': name,
        'sizes': f'{side}x{side}',
        'type': 'image/png',
        'purpose': purpose,
      }
      for name, side in _ICONS.items()
      for purpose in ('any', 'maskable')
    ],
  }
  (output / 'manifest.webmanifest').write_text(json.dumps(manifest, indent=2))
  _write_service_worker(output, settings)


def _write_service_worker(output: pathlib.Path, settings: Any) -> None:
  """Writes what stores the files; all of them are in the folder by now."""
  digest = lambda data: hashlib.sha256(data).hexdigest()
  shell = {
    name: digest((output / name.replace('./', 'index.html')).read_bytes())
    for name in _SHELL
  }
  files = {
    # The page comes last: without its model it is of no use.
    provider: {
      file['address']: file['sha256']
      for file in map(settings['files'].get, _needed(settings, provider))
    }
    | shell
    for provider in settings['runtimes']
  }
  script = shared_page.environment('skinseg_jax.exporting').get_template(
    'service_worker.js'
  )
  text = script.render(
    version=digest(json.dumps(files).encode())[:16], files=files
  )
  (output / 'service_worker.js').write_text(text + '\n', encoding='utf-8')


def _icon(side: int) -> Image.Image:
  """A lesion with its outline, in the middle 80 % that every system shows."""
  large = Image.new('RGB', (4 * side, 4 * side), '#e8bfa8')
  draw = ImageDraw.Draw(large)
  box = lambda *ends: [int(4 * side * end) for end in ends]
  draw.ellipse(box(0.22, 0.26, 0.78, 0.74), '#ffffff')
  draw.ellipse(box(0.25, 0.29, 0.75, 0.71), _COLOUR)
  draw.ellipse(box(0.28, 0.32, 0.72, 0.68), '#6b4030')
  return large.resize((side, side), Image.Resampling.LANCZOS)
