"""The files of onnxruntime-web: the program that runs networks in browsers.

No Python package has them, and nothing is downloaded here: the user names a
folder, and the files must be those that the page was tested with.
"""

import hashlib
import pathlib

from skinseg_jax.runtime import errors

VERSION = '1.30.0'
LICENCE = f"""onnxruntime-web {VERSION}

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""

# By where the network runs: the script and its WebAssembly.
FILES = {
  'wasm': ('ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm'),
  'webgpu': (
    'ort.webgpu.bundle.min.mjs',
    'ort-wasm-simd-threaded.asyncify.wasm',
  ),
}
DIGESTS = {
  'ort.wasm.bundle.min.mjs': (
    '11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90'
  ),
  'ort-wasm-simd-threaded.wasm': (
    '3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2'
  ),
  'ort.webgpu.bundle.min.mjs': (
    '0730816731ce2cdfb06f273da065d4a1c7091eb9d1756a83b2916c8a89d015e2'
  ),
  'ort-wasm-simd-threaded.asyncify.wasm': (
    '39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da'
  ),
}

_REMEDY = (
  f'Get them with "npm pack onnxruntime-web@{VERSION}" and "tar -xzf'
  f' onnxruntime-web-{VERSION}.tgz", then give --runtime_dir package/dist'
)


def check(folder: pathlib.Path | None) -> None:
  """Refuses a folder without the files.

  Args:
    folder: What the user gave as --runtime_dir, or None for nothing.

  Raises:
    InputError: Naming the files that are missing or differ, and how to get
      them.
  """
  if folder is None:
    raise errors.InputError(
      f'--format web needs the files of onnxruntime-web {VERSION}, which runs'
      f' the network in the browser. {_REMEDY}'
    )
  wrong = [name for name in DIGESTS if _digest(folder / name) != DIGESTS[name]]
  if wrong:
    raise errors.InputError(
      f'--runtime_dir {folder}: {", ".join(wrong)} missing, or not of'
      f' onnxruntime-web {VERSION} (SHA-256 differs). {_REMEDY}'
    )


def _digest(path: pathlib.Path) -> str:
  try:
    with path.open('rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError:
    return ''
