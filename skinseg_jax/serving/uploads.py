"""From a request to a picture. Uploads stay in memory, never on a disk."""

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
from starlette import datastructures, formparsers, requests

from skinseg_jax.data import pictures, preprocessing
from skinseg_jax.runtime import errors
from skinseg_jax.serving import limits as limits_lib
from skinseg_jax.serving import refusals

# The form field with the picture.
FIELD = 'file'
# What every browser can show. Each further format is a decoder to attack.
FORMATS = 'JPEG, PNG or WebP'
TYPES = ('image/jpeg', 'image/png', 'image/webp')

# What messages call a picture: names of files are never used.
_NAME = 'the picture'
# Room for what multipart adds to a file.
_ENVELOPE = 64 * 1024


class _InMemory(formparsers.MultiPartParser):
  """Starlette's parser, which otherwise writes large files to a disk."""

  spool_max_size = 2**62

  def __init__(self, request: requests.Request, limits: limits_lib.Limits):
    super().__init__(
      request.headers, self._body(request, limits), max_files=1, max_fields=0
    )
    self._ended = False

  def on_end(self) -> None:
    """The last boundary was there."""
    self._ended = True

  async def _body(
    self, request: requests.Request, limits: limits_lib.Limits
  ) -> AsyncGenerator[bytes, None]:
    """The body, up to the limit, also where no length was declared."""
    seen = 0
    async for chunk in request.stream():
      seen += len(chunk)
      if seen > limits.upload_bytes + _ENVELOPE:
        raise _too_large(limits)
      yield chunk
    # All of it was parsed by now. Raised here, it closes the file.
    if not self._ended:
      raise refusals.RefusedError(
        400, 'the form ends before its last boundary; send the whole form'
      )


async def read(request: requests.Request, limits: limits_lib.Limits) -> bytes:
  """Reads the file of a multipart request.

  Raises:
    RefusedError: If there is none, or it is too large or too slow.
    ClientDisconnect: If the client went away.
  """
  kind = request.headers.get('content-type', '')
  if kind.partition(';')[0].strip().lower() != 'multipart/form-data':
    raise refusals.RefusedError(
      415, f'send multipart/form-data with the picture in the field "{FIELD}"'
    )
  length = request.headers.get('content-length', '')
  if length.isdecimal() and int(length) > limits.upload_bytes + _ENVELOPE:
    raise _too_large(limits)
  try:
    async with asyncio.timeout(limits.upload_seconds):
      form = await _InMemory(request, limits).parse()
  except TimeoutError as error:
    raise refusals.RefusedError(
      408, f'the upload took more than {limits.upload_seconds:.0f} seconds'
    ) from error
  except formparsers.MultiPartException as error:
    raise refusals.RefusedError(
      400, f'not a valid form: {error.message}'
    ) from error
  try:
    file = form.get(FIELD)
    if not isinstance(file, datastructures.UploadFile):
      raise refusals.RefusedError(
        422,
        f'the form has no file in the field "{FIELD}"; put the picture there',
      )
    data = await file.read()
  finally:
    await form.close()
  if len(data) > limits.upload_bytes:
    raise _too_large(limits)
  return data


def check(data: bytes, limits: limits_lib.Limits) -> int:
  """Returns the number of pixels, from the header; nothing is decoded.

  Raises:
    RefusedError: If it is no picture of these formats, or too large.
  """
  webp = data[:4] == b'RIFF' and data[8:12] == b'WEBP'
  if not (webp or data.startswith((b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'))):
    raise refusals.RefusedError(
      415,
      f'the file is not a {FORMATS} picture. Its content is checked, not its'
      ' name. Convert it to one of these formats',
    )
  # Not the limit of `pictures`, which is higher.
  allowed = f'at most {limits.pixels / 1e6:g} megapixels are allowed. Reduce it'
  try:
    pixels = pictures.pixels(data, _NAME)
  except pictures.TooLargeError as error:
    raise refusals.RefusedError(
      413, f'{_NAME} has too many pixels; {allowed}'
    ) from error
  except errors.InputError as error:
    raise refusals.RefusedError(422, str(error)) from error
  if pixels > limits.pixels:
    raise refusals.RefusedError(
      413, f'{_NAME} has {pixels / 1e6:.1f} megapixels; {allowed}'
    )
  return pixels


def decode(data: bytes) -> np.ndarray:
  """Decodes a picture and turns it upright; RGB, uint8 [height, width, 3].

  Raises:
    RefusedError: If the file is damaged.
  """
  try:
    return preprocessing.decode_image(data, _NAME)
  except errors.InputError as error:
    raise refusals.RefusedError(422, str(error)) from error


def _too_large(limits: limits_lib.Limits) -> refusals.RefusedError:
  return refusals.RefusedError(
    413,
    f'the file has more than {limits.upload_bytes / 2**20:g} MiB; send a'
    ' smaller one',
  )
