"""Opens the picture files that people have: bytes in, a Pillow image out.

JPEG, PNG, BMP, GIF, TIFF, WebP and AVIF need Pillow alone. HEIC and DICOM need
the packages of the extra `formats`. Everything here may be called from many
threads at once.
"""

import contextlib
import importlib.util
import io
import math
import pathlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator

from PIL import (
  AvifImagePlugin,
  BmpImagePlugin,
  ExifTags,
  GifImagePlugin,
  Image,
  ImageOps,
  JpegImagePlugin,
  PngImagePlugin,
  TiffImagePlugin,
  WebPImagePlugin,
)

from skinseg_jax.data import dicom
from skinseg_jax.runtime import errors

# Formats that every version has read; a file of another format beside one of
# these, with the same stem, is left out.
FIRST_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
_DICOM_EXTENSIONS = ('.dcm', '.dicom')
_HEIF_EXTENSIONS = ('.heic', '.heif')
# Extensions of the files that are taken for images, in any case.
EXTENSIONS = (
  *FIRST_EXTENSIONS,
  '.gif',
  '.avif',
  *_HEIF_EXTENSIONS,
  *_DICOM_EXTENSIONS,
)
INSTALL = 'pip install "skinseg_jax[formats]"'

_MAX_PIXELS = 100_000_000
# Larger images are decoded one at a time: ten threads with 100 megapixels each
# would fill any memory.
_LARGE_PIXELS = 16_000_000

# Reads of a decoder up to the pixels. Pillow needs three for each chunk of a
# PNG file and each marker of a JPEG file, and one for each byte between
# markers: without a limit, a file of empty parts takes many seconds.
_MAX_READS = 10_000

# By the first bytes of a file. Pillow's own `Image.open` would warn of files
# that are large, but allowed here.
_OPENERS: dict[bytes, Callable[[io.BytesIO], Image.Image]] = {
  b'\xff\xd8\xff': JpegImagePlugin.JpegImageFile,
  b'\x89PNG\r\n\x1a\n': PngImagePlugin.PngImageFile,
  b'BM': BmpImagePlugin.BmpImageFile,
  b'II*\0': TiffImagePlugin.TiffImageFile,
  b'MM\0*': TiffImagePlugin.TiffImageFile,
  b'RIFF': WebPImagePlugin.WebPImageFile,
  b'GIF8': GifImagePlugin.GifImageFile,
}

# Held while a large image is decoded. Warning filters belong to the process:
# one thread at a time may change them.
_large_lock = threading.Lock()


class _Bounded(io.BytesIO):
  """A file that ends a decoder which reads too many parts before the pixels."""

  def __init__(self, data: bytes, name: str):
    super().__init__(data)
    self._name = name
    self.left: float = _MAX_READS

  def read(self, size: int | None = -1, /) -> bytes:
    """Reads as usual, or ends the decoder."""
    self.left -= 1
    if self.left < 0:
      raise errors.InputError(
        f'{self._name}: too many parts before the pixels; save the picture'
        ' again as a plain PNG or JPEG file'
      )
    return super().read(size)


class TooLargeError(errors.InputError):
  """A picture of more than 100 megapixels."""


def check_installed(paths: Iterable[pathlib.Path]) -> None:
  """Refuses files of formats whose package is missing, in one message.

  Raises:
    InputError: Naming the files and what to install.
  """
  lacking = [
    str(path)
    for path in paths
    for extensions, package in (
      (_DICOM_EXTENSIONS, 'pydicom'),
      (_HEIF_EXTENSIONS, 'pillow_heif'),
    )
    if path.suffix.lower() in extensions and not _installed(package)
  ]
  if lacking:
    raise errors.InputError(
      'DICOM and HEIC files need packages that are not installed; run\n'
      f'  {INSTALL}\nfor {len(lacking)} files:\n' + errors.listing(lacking)
    )


def size(data: bytes, name: str) -> tuple[int, int]:
  """Height and width of the upright picture, in pixels, from the header.

  Raises:
    InputError: As for `loaded`, as far as the header tells.
  """
  with naming(name):
    if dicom.is_dicom(data):
      height, width = dicom.size(_dicom_installed(data, name))
      _check_pixels(width, height, name)
      return height, width
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


def pixels(data: bytes, name: str) -> int:
  """Number of pixels, from the header alone: nothing is decoded.

  Raises:
    InputError: As for `loaded`, as far as the header tells.
  """
  with naming(name):
    if dicom.is_dicom(data):
      height, width = dicom.size(_dicom_installed(data, name))
      _check_pixels(width, height, name)
    else:
      width, height = _open(data, name).size
    return width * height


def count(data: bytes, name: str) -> int:
  """How many pictures the file holds; only the first is ever used.

  Raises:
    InputError: As for `loaded`, as far as the header tells.
  """
  with naming(name):
    if dicom.is_dicom(data):
      return dicom.count(_dicom_installed(data, name))
    return getattr(_open(data, name), 'n_frames', 1)


def pixel_spacing(data: bytes, name: str) -> tuple[float, float] | None:
  """Height and width of a pixel in millimetres, where a DICOM file states it.

  Raises:
    InputError: If it is a DICOM file that cannot be read.
  """
  if not dicom.is_dicom(data):
    return None
  with naming(name):
    return dicom.pixel_spacing(_dicom_installed(data, name))


@contextlib.contextmanager
def loaded(data: bytes, name: str) -> Iterator[Image.Image]:
  """Decodes the first picture and turns it upright; large ones one at a time.

  Args:
    data: The file.
    name: What messages call it.

  Raises:
    InputError: If the file is of another format, damaged, or larger than 100
      megapixels; the latter is known from its header. It names the file, also
      where the block itself fails.
  """
  with naming(name):
    if dicom.is_dicom(data):
      height, width = size(data, name)
      open_ = lambda: dicom.decode(data)
    else:
      image = _open(data, name)
      width, height = image.size
      open_ = lambda: image
    large = width * height > _LARGE_PIXELS
    with _large_lock if large else contextlib.nullcontext():
      with _without_size_warning() if large else contextlib.nullcontext():
        image = open_()
        ImageOps.exif_transpose(image, in_place=True)
      yield image


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
  """Turns whatever a decoder raises into an `InputError` with the name."""
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
      file = _Bounded(data, name)
      image = opener(file)
      file.left = math.inf
      break
  else:
    if data[4:8] != b'ftyp':
      raise errors.InputError(
        f'{name}: no JPEG, PNG, BMP, TIFF, WebP, GIF, AVIF, HEIC or DICOM file'
        + (', but empty' if not data else '')
      )
    image = _open_heif(data, name)
  width, height = image.size
  _check_pixels(width, height, name)
  return image


def _open_heif(data: bytes, name: str) -> Image.Image:
  """AVIF and HEIC: one container, told apart by the brands it declares."""
  brands = data[8 : int.from_bytes(data[:4], 'big')]
  if b'avif' in brands or b'avis' in brands:
    return AvifImagePlugin.AvifImageFile(io.BytesIO(data))
  if not _installed('pillow_heif'):
    raise errors.InputError(
      f'{name}: HEIC files need a package that is not installed: {INSTALL}'
    )
  # An optional package. It turns the picture as the file's own box says, and
  # takes EXIF's orientation, which HEIC ignores, off.
  from pillow_heif import HeifImageFile

  return HeifImageFile(io.BytesIO(data))


def _dicom_installed(data: bytes, name: str) -> bytes:
  """Returns `data`, or says what to install."""
  if not _installed('pydicom'):
    raise errors.InputError(
      f'{name}: DICOM files need a package that is not installed: {INSTALL}'
    )
  return data


def _installed(package: str) -> bool:
  return importlib.util.find_spec(package) is not None


def _check_pixels(width: int, height: int, name: str) -> None:
  if width * height > _MAX_PIXELS:
    raise TooLargeError(
      f'{name}: {width} x {height} pixels; at most 100 megapixels are allowed'
    )


@contextlib.contextmanager
def _without_size_warning() -> Iterator[None]:
  """Only with `_large_lock` held. Pillow warns of none but large images."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', Image.DecompressionBombWarning)
    yield
