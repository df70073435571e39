"""Decodes and resizes images and masks: bytes in, uint8 arrays out.

The only place that knows about image files. Everything here may be called from
many threads at once.
"""

import contextlib
import functools
import io
import threading
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from PIL import (
  BmpImagePlugin,
  ExifTags,
  Image,
  ImageOps,
  JpegImagePlugin,
  PngImagePlugin,
  TiffImagePlugin,
  WebPImagePlugin,
)

from skinseg_jax.runtime import errors

# Part of every cache's key: raise it whenever a pixel may come out differently.
VERSION = 1

# Extensions of the files that are taken for images, in any case.
EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')

_MAX_PIXELS = 100_000_000
_STRIP_ROWS = 256
# Larger images are decoded one at a time: ten threads with 100 megapixels each
# would fill any memory.
_LARGE_PIXELS = 16_000_000

# By the first bytes of a file. Pillow's own `Image.open` would warn of files
# that are large, but allowed here.
_OPENERS: dict[bytes, Callable[[io.BytesIO], Image.Image]] = {
  b'\xff\xd8\xff': JpegImagePlugin.JpegImageFile,
  b'\x89PNG\r\n\x1a\n': PngImagePlugin.PngImageFile,
  b'BM': BmpImagePlugin.BmpImageFile,
  b'II*\0': TiffImagePlugin.TiffImageFile,
  b'MM\0*': TiffImagePlugin.TiffImageFile,
  b'RIFF': WebPImagePlugin.WebPImageFile,
}

# Held while a large image is decoded. Warning filters belong to the process,
# too: one thread at a time may change them.
_large_lock = threading.Lock()


def decode_image(data: bytes, name: str) -> np.ndarray:
  """Decodes a JPEG, PNG, BMP, TIFF or WebP file.

  EXIF orientation is applied; transparency is dropped, as OpenCV does; 16-bit
  grey values are divided by 257.

  Args:
    data: The file.
    name: What messages call it.

  Returns:
    RGB, uint8 [height, width, 3].

  Raises:
    InputError: If the file is of another format, damaged, of 32-bit pixels, or
      larger than 100 megapixels; the latter is told from its header.
  """
  with _naming(name), _loaded(data, name) as image:
    if _is_16_bit(image):
      return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=2)
    if image.mode == 'P' and image.has_transparency_data:
      image = image.convert('RGBA')  # Straight to RGB, Pillow warns.
    return np.asarray(image.convert('RGB'))


def decode_mask(data: bytes, name: str, *, threshold: int = 0) -> np.ndarray:
  """Decodes a mask of any format that `decode_image` reads.

  What counts is how bright a pixel looks, never a palette's index. Transparent
  is black; EXIF orientation is applied.

  Args:
    data: The file.
    name: What messages call it.
    threshold: Grey value, on a scale of 0 to 255, above which a pixel is
      lesion. 0 is strict: only 0 and the format's white, 0 and 255, or 0 and 1
      are allowed, or one of the two alone.

  Returns:
    1 for lesion and 0 for skin, uint8 [height, width].

  Raises:
    InputError: As for `decode_image`, or if a strict mask has other values.
  """
  with _naming(name), _loaded(data, name) as image:
    grey = _grey(image)
    if threshold:
      return (_to_8_bit(grey) > threshold).view(np.uint8)
    white = grey.max()
    lesion = grey > 0
    allowed = (0, 1, 255, np.iinfo(grey.dtype).max)
    if white not in allowed or np.any(lesion & (grey != white)):
      raise errors.InputError(
        f'{name}: not binary, holds {_describe_values(grey)}; allowed are 0'
        ' and 255 or 0 and 1, unless data.mask_threshold is set to the grey'
        ' value above which a pixel is lesion, such as 127'
      )
    return lesion.view(np.uint8)


def image_size(data: bytes, name: str) -> tuple[int, int]:
  """Height and width that the file will decode to, from its header.

  Raises:
    InputError: As for `decode_image`, as far as the header tells.
  """
  with _naming(name):
    image = _open(data, name)
    width, height = image.size
    if image.format == 'PNG' and b'eXIf' in data:
      image.load()  # EXIF may lie behind the pixels.
    # PNG's own getexif always decodes the pixels, to look behind them.
    orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    # Pillow gives the size of a TIFF file as it is after turning.
    if orientation in (5, 6, 7, 8) and image.format != 'TIFF':
      height, width = width, height
    return height, width


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes by OpenCV's rule INTER_LINEAR, which does not antialias.

  Pixel centres lie at halves and weights are rounded to 11 bits, as in
  OpenCV's `resize.cpp`; builds of OpenCV that use other libraries inside can
  differ by one grey level.

  Args:
    image: uint8 [height, width, channels].
    size: Height and width to resize to, in pixels.

  Returns:
    uint8 [size[0], size[1], channels].
  """
  if image.shape[:2] == size:
    return image
  height, width, channels = image.shape
  # One axis for columns and channels: numpy is slow over a last axis of 3.
  flat = image.reshape(height, width * channels)
  left, right = _linear(width, size[1], channels)
  across = np.multiply(flat.take(left[0], axis=1), left[1], dtype=np.int32)
  across += np.multiply(flat.take(right[0], axis=1), right[1], dtype=np.int32)
  across >>= 4
  top, bottom = _linear(height, size[0], 1)
  upper = across.take(top[0], axis=0) * top[1][:, None]
  lower = across.take(bottom[0], axis=0) * bottom[1][:, None]
  upper >>= 16
  lower >>= 16
  upper += lower
  upper += 2
  upper >>= 2
  return upper.astype(np.uint8).reshape(*size, channels)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes by OpenCV's rule INTER_NEAREST, exactly.

  Args:
    mask: [height, width].
    size: Height and width to resize to, in pixels.

  Returns:
    [size[0], size[1]], of the type of `mask`.
  """
  if mask.shape == size:
    return mask
  rows = _nearest(mask.shape[0], size[0])
  columns = _nearest(mask.shape[1], size[1])
  return mask.take(rows, axis=0).take(columns, axis=1)


def resize_probability(
  probability: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
  """Resizes by OpenCV's rule INTER_LINEAR, in floating point.

  Args:
    probability: float32 [height, width].
    size: Height and width to resize to, in pixels.

  Returns:
    float32 [size[0], size[1]]; within 1e-6 of OpenCV's in [0, 1].
  """
  if probability.shape == size:
    return probability
  # OpenCV's own loops place pixels in single precision, its optimised ones for
  # floating point in double; this is the exact one of the two.
  neighbours = lambda axis: _neighbours(
    probability.shape[axis], size[axis], np.float64
  )
  left, right, share = neighbours(1)
  across = probability.take(left, axis=1)
  across += (probability.take(right, axis=1) - across) * share
  top, bottom, share = neighbours(0)
  resized = across.take(top, axis=0)
  lower = across.take(bottom, axis=0)
  lower -= resized
  lower *= share[:, None]
  resized += lower
  return resized


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
  """Turns whatever Pillow raises into an `InputError` that names the file."""
  try:
    yield
  except errors.InputError:
    raise
  except Exception as error:  # Pillow's errors have no common base.
    raise errors.InputError(f'{name}: cannot be decoded ({error})') from error


def _open(data: bytes, name: str) -> Image.Image:
  """Reads the header."""
  for magic, opener in _OPENERS.items():
    if data.startswith(magic):
      image = opener(io.BytesIO(data))
      break
  else:
    raise errors.InputError(
      f'{name}: no JPEG, PNG, BMP, TIFF or WebP file'
      + (', but empty' if not data else '')
    )
  width, height = image.size
  if width * height > _MAX_PIXELS:
    raise errors.InputError(
      f'{name}: {width} x {height} pixels; at most 100 megapixels are allowed'
    )
  return image


@contextlib.contextmanager
def _loaded(data: bytes, name: str) -> Iterator[Image.Image]:
  """Decodes the pixels and turns them upright; large ones one at a time."""
  image = _open(data, name)
  if image.mode in ('I', 'F'):
    raise errors.InputError(
      f'{name}: 32 bits a pixel; allowed are 1, 8 and 16 bits a channel'
    )
  large = image.width * image.height > _LARGE_PIXELS
  with _large_lock if large else contextlib.nullcontext():
    with _without_size_warning() if large else contextlib.nullcontext():
      ImageOps.exif_transpose(image, in_place=True)
    yield image


@contextlib.contextmanager
def _without_size_warning() -> Iterator[None]:
  """Only with `_large_lock` held. Pillow warns of none but large images."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', Image.DecompressionBombWarning)
    yield


def _is_16_bit(image: Image.Image) -> bool:
  return image.mode.startswith('I;16')


def _to_8_bit(grey: np.ndarray) -> np.ndarray:
  """Scales 0 to 65535 to 0 to 255, rounding; leaves 8 bits as they are."""
  if grey.dtype == np.uint8:
    return grey
  return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _grey(image: Image.Image) -> np.ndarray:
  """Brightness over a black ground, uint8 or uint16 [height, width]."""
  if _is_16_bit(image):
    return np.asarray(image)
  if not image.has_transparency_data:
    return np.asarray(image.convert('L'))
  composed = np.empty((image.height, image.width), np.uint8)
  # In strips: whole, a large image would be in memory six times.
  for top in range(0, image.height, _STRIP_ROWS):
    bottom = min(top + _STRIP_ROWS, image.height)
    strip = image.crop((0, top, image.width, bottom))
    grey, alpha = np.moveaxis(
      np.asarray(strip.convert('RGBA').convert('LA'), np.uint16), 2, 0
    )
    composed[top:bottom] = (grey * alpha + 127) // 255
  return composed


def _describe_values(grey: np.ndarray) -> str:
  values = [str(value) for value in np.unique(grey)]
  if len(values) <= 4:
    return f'the grey values {", ".join(values)}'
  return f'{len(values)} grey values ({", ".join(values[:4])}, ...)'


@functools.lru_cache(maxsize=64)
def _linear(
  source: int, target: int, channels: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
  """Index and weight, out of 2048, of both neighbours of each target pixel.

  Each int [target * channels], for axes that hold channels innermost.
  """
  first, second, fraction = _neighbours(source, target, np.float32)
  weigh = lambda share: np.rint(share * np.float32(2048)).astype(np.int32)
  spread = lambda index: np.add.outer(
    index * channels, np.arange(channels)
  ).ravel()
  return (
    (spread(first), weigh(1 - fraction).repeat(channels)),
    (spread(second), weigh(fraction).repeat(channels)),
  )


@functools.lru_cache(maxsize=64)
def _neighbours(
  source: int, target: int, precision: type[np.floating]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Both neighbours of each target pixel, and the share of the second."""
  position = (np.arange(target) + 0.5) * (1 / (target / source)) - 0.5
  position = position.astype(precision)
  first = np.floor(position)
  fraction = (position - first).astype(np.float32)
  first = first.astype(np.intp)
  # Beyond the border both neighbours are the border's pixel.
  return (
    first.clip(0, source - 1),
    (first + 1).clip(0, source - 1),
    fraction,
  )


@functools.lru_cache(maxsize=64)
def _nearest(source: int, target: int) -> np.ndarray:
  """The source pixel of each target pixel."""
  position = np.floor(np.arange(target) * (1 / (target / source)))
  return np.minimum(position.astype(np.intp), source - 1)
