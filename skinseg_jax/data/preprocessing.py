"""Decodes and resizes images and masks: bytes in, uint8 arrays out.

`pictures` opens the files. Everything here may be called from many threads at
once.
"""

import functools
import os
import pathlib

import numpy as np
from PIL import Image, ImageOps

from skinseg_jax.data import masks, pictures
from skinseg_jax.data import remedies as remedies_lib
from skinseg_jax.runtime import errors, paths

# What Python programs give: an array, a Pillow image, or a file.
Picture = np.ndarray | Image.Image | str | os.PathLike[str]

# Part of every cache's key: raise it when any pixel may change.
VERSION = 2

_STRIP_ROWS = 256


def decode_image(data: bytes, name: str) -> np.ndarray:
  """Decodes a JPEG, PNG, BMP, TIFF, WebP, GIF, AVIF, HEIC or DICOM file.

  The picture is upright: the orientation that EXIF or HEIC states is applied.
  Transparency is dropped, as OpenCV does; 16-bit grey values are divided by
  257. Of several pictures in a file the first is decoded.

  Args:
    data: The file.
    name: What messages call it.

  Returns:
    RGB, uint8 [height, width, 3].

  Raises:
    InputError: If the file is of another format, damaged, of 32-bit pixels,
      larger than 100 megapixels, or needs a package that is not installed.
  """
  with pictures.loaded(data, name) as image:
    return to_rgb(image, name)


def to_rgb(image: Image.Image, name: str) -> np.ndarray:
  """Takes the pixels of a Pillow image, as `decode_image` does.

  Args:
    image: Of any mode.
    name: What messages call it.

  Returns:
    RGB, uint8 [height, width, 3].

  Raises:
    InputError: If the image has 32-bit pixels.
  """
  if _is_32_bit(image):
    raise errors.InputError(
      f'{name}: 32 bits a pixel; allowed are 1, 8 and 16 bits a channel. Save'
      ' the image with 8 bits a channel'
    )
  if _is_16_bit(image):
    grey = masks.to_8_bit(np.asarray(image))
    return np.repeat(grey[..., None], 3, axis=2)
  if image.mode == 'P' and image.has_transparency_data:
    image = image.convert('RGBA')  # Straight to RGB, Pillow warns.
  return np.asarray(image.convert('RGB'))


def to_array(picture: Picture, name: str) -> np.ndarray:
  """Reads a picture that a Python program gives.

  Args:
    picture: uint8 [height, width, 3] or [height, width], a Pillow image, or a
      file. EXIF orientation is applied to the last two.
    name: How a message names it.

  Returns:
    RGB, uint8 [height, width, 3].

  Raises:
    InputError: If it is none of these, or cannot be read.
  """
  if isinstance(picture, (str, os.PathLike)):
    path = paths.user_path(os.fspath(picture))
    return decode_image(_bytes(path), str(path))
  if isinstance(picture, Image.Image):
    with pictures.naming(name):
      upright = ImageOps.exif_transpose(picture)
      array = to_rgb(upright, name)
  elif hasattr(picture, '__array__'):
    array = np.asarray(picture)
  else:
    raise errors.InputError(
      f'{name} is of type {type(picture).__name__}; give an array, a Pillow'
      ' image or the path of a file.'
    )
  if array.ndim == 2:
    array = np.repeat(array[..., None], 3, axis=2)
  right = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3
  if not right or not array.size:
    raise errors.InputError(
      f'{name} is an array of {array.dtype} {list(array.shape)}; give uint8'
      ' [height, width, 3], RGB from 0 to 255.'
    )
  return array


def decode_mask(
  data: bytes,
  name: str,
  *,
  threshold: int = 0,
  invert: bool = False,
  remedies: remedies_lib.Remedies = remedies_lib.CONFIG,
) -> np.ndarray:
  """Decodes a mask of any format that `decode_image` reads.

  What counts is how bright a pixel looks, never a palette's index. Transparent
  is black; if all that is painted is black too, opaque is white instead. The
  orientation that EXIF or HEIC states is applied. Pixels of 32 bits, such as
  floats from 0 to 1, are allowed.

  Args:
    data: The file.
    name: What messages call it.
    threshold: Grey value, on a scale of 0 to 255, above which a pixel is
      lesion. 0 is strict: black and white, or two colours of which one is
      clearly the background; `masks.lesion` has the rule.
    invert: Whether to swap lesion and skin.
    remedies: What the user types to change how masks are read.

  Returns:
    1 for lesion and 0 for skin, uint8 [height, width].

  Raises:
    InputError: As for `decode_image`, or if a strict mask has other values.
  """
  with pictures.loaded(data, name) as image:
    lesion = masks.lesion(
      _grey(image), name, threshold=threshold, remedies=remedies
    )
    return (~lesion if invert else lesion).view(np.uint8)


def image_size(data: bytes, name: str) -> tuple[int, int]:
  """Height and width of the decoded file, from its header.

  Raises:
    InputError: As for `decode_image`, as far as the header tells.
  """
  return pictures.size(data, name)


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


def _bytes(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise errors.InputError(
      f'{path} cannot be read ({error.strerror}); give a file that can.'
    ) from error


def _is_16_bit(image: Image.Image) -> bool:
  return image.mode.startswith('I;16')


def _is_32_bit(image: Image.Image) -> bool:
  return image.mode in ('I', 'F')


def _grey(image: Image.Image) -> np.ndarray:
  """Brightness over a black ground, [height, width], of 8, 16 or 32 bits.

  Black paint cannot be seen on it: where there is nothing else, how opaque each
  pixel is.
  """
  if _is_16_bit(image) or _is_32_bit(image):
    return np.asarray(image)
  if not image.has_transparency_data:
    return np.asarray(image.convert('L'))
  composed = np.empty((image.height, image.width), np.uint8)
  opacity = np.empty_like(composed)
  # In strips, because a whole large image would be in memory six times.
  for top in range(0, image.height, _STRIP_ROWS):
    bottom = min(top + _STRIP_ROWS, image.height)
    strip = image.crop((0, top, image.width, bottom))
    grey, alpha = np.moveaxis(
      np.asarray(strip.convert('RGBA').convert('LA'), np.uint16), 2, 0
    )
    composed[top:bottom] = (grey * alpha + 127) // 255
    opacity[top:bottom] = alpha
  painted_black = not composed.any() and opacity.min() < opacity.max()
  return opacity if painted_black else composed


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
