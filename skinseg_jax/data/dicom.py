"""Decodes DICOM pictures: VL photographic and dermoscopic, secondary capture.

https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.7.6.3.html
The only module that uses pydicom, which it imports where it is called: the
package is optional.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

_PREAMBLE = 128


def is_dicom(data: bytes) -> bool:
  """Whether the bytes are a DICOM file (part 10, with its preamble)."""
  return data[_PREAMBLE : _PREAMBLE + 4] == b'DICM'


def size(data: bytes) -> tuple[int, int]:
  """Height and width in pixels, from the header.

  Raises:
    ValueError: If the file holds no picture.
  """
  header = _read(data, pixels=False)
  if 'Rows' not in header or 'Columns' not in header:
    raise ValueError('a DICOM file without a picture')
  return int(header.Rows), int(header.Columns)


def count(data: bytes) -> int:
  """Number of frames."""
  return int(_read(data, pixels=False).get('NumberOfFrames') or 1)


def pixel_spacing(data: bytes) -> tuple[float, float] | None:
  """Distance between rows and between columns in millimetres, or None.

  From `PixelSpacing`, for a file with functional groups from the group that all
  frames share, or for a secondary capture from `NominalScannedPixelSpacing`.
  Anything but two positive values states no distance.
  """
  header = _read(data, pixels=False)
  places = [header]
  for group in header.get('SharedFunctionalGroupsSequence') or []:
    places += group.get('PixelMeasuresSequence') or []
  for keyword in ('PixelSpacing', 'NominalScannedPixelSpacing'):
    for place in places:
      # A value alone is no sequence, and an empty one no number.
      spacing = place.get(keyword)
      if isinstance(spacing, Sequence) and len(spacing) == 2 and all(spacing):
        rows, columns = map(float, spacing)
        if 0 < rows < math.inf and 0 < columns < math.inf:
          return rows, columns
  return None


def decode(data: bytes) -> Image.Image:
  """Decodes the first frame.

  Colours become RGB, whatever the file stores (RGB, YBR, palette). Grey values
  are scaled from the range of the stored bits to 8 bits, or to 16 bits where
  more than 8 are stored; MONOCHROME1, where 0 is white, is inverted. Window and
  rescale values are not applied.

  Returns:
    Mode RGB, L or I;16.

  Raises:
    Exception: Whatever pydicom raises for a damaged file, or for a compression
      that no installed package reads.
  """
  from pydicom import pixels

  header = _read(data, pixels=True)
  values = pixels.pixel_array(header, index=0)
  bits = int(header.BitsStored)
  match header.PhotometricInterpretation:
    case 'PALETTE COLOR':
      values = pixels.apply_color_lut(values, header)
      # Entries of a 16-bit palette use the whole range, by the standard.
      bits = values.dtype.itemsize * 8
    case 'MONOCHROME1' | 'MONOCHROME2' as kind:
      if header.PixelRepresentation:
        values = values.astype(np.int64) + 2 ** (bits - 1)
      if kind == 'MONOCHROME1':
        values = 2**bits - 1 - values.astype(np.int64)
      if bits > 8:
        return Image.fromarray(_scale(values, bits, np.uint16))
  return Image.fromarray(_scale(values, bits, np.uint8))


def _scale(values: np.ndarray, bits: int, dtype: type) -> np.ndarray:
  """From 0 to 2 ** bits - 1, to the whole range of `dtype`, rounding."""
  most, least = np.iinfo(dtype).max, 2**bits - 1
  if least == most:
    return values.astype(dtype)
  scaled = values.astype(np.int64) * most
  return ((scaled + least // 2) // least).clip(0, most).astype(dtype)


def _read(data: bytes, *, pixels: bool):
  import pydicom

  return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=not pixels)
