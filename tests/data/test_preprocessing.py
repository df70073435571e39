"""Image files of every kind are read right."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from fake_images import random_image
from PIL import ExifTags, Image

from skinseg_jax.data import preprocessing
from skinseg_jax.runtime import errors


def encode(image: np.ndarray | Image.Image, file_format='PNG', **options):
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  buffer = io.BytesIO()
  image.save(buffer, file_format, **options)
  return buffer.getvalue()


# --- Kinds of images ---


def test_rgb_is_read_as_it_is():
  image = random_image(5, 7)
  for file_format, options in (
    ('PNG', {}), ('BMP', {}), ('TIFF', {}), ('WEBP', {'lossless': True}),
  ):  # fmt: skip
    data = encode(image, file_format, **options)
    decoded = preprocessing.decode_image(data, 'x')
    np.testing.assert_array_equal(decoded, image)
    assert preprocessing.image_size(data, 'x') == (5, 7)


def test_grey_becomes_three_equal_channels():
  grey = random_image(5, 7)[..., 0]
  decoded = preprocessing.decode_image(encode(grey), 'x')
  np.testing.assert_array_equal(decoded, np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize('dtype', ['<u2', '>u2'])
def test_16_bit_grey_is_scaled_not_clipped(dtype):
  # 257 * 255 = 65535; 300 / 257 = 1.17; 385 / 257 = 1.498; 386 / 257 = 1.502.
  values = np.array([[0, 257, 300, 385, 386, 32768, 65535]], dtype)
  expected = [0, 1, 1, 1, 2, 128, 255]
  assert preprocessing.decode_image(
    encode(values, 'TIFF'), 'x'
  )[0, :, 0].tolist() == expected  # fmt: skip
  assert preprocessing.decode_image(
    encode(values.astype('<u2'), 'PNG'), 'x'
  )[0, :, 2].tolist() == expected  # fmt: skip


def test_transparency_is_dropped():
  rgba = np.array([[[10, 20, 30, 0], [40, 50, 60, 128]]], np.uint8)
  decoded = preprocessing.decode_image(encode(rgba), 'x')
  assert decoded.tolist() == [[[10, 20, 30], [40, 50, 60]]]
  grey_alpha = Image.fromarray(np.array([[[9, 0], [8, 255]]], np.uint8), 'LA')
  decoded = preprocessing.decode_image(encode(grey_alpha), 'x')
  assert decoded.tolist() == [[[9, 9, 9], [8, 8, 8]]]


@pytest.mark.parametrize('options', [{}, {'transparency': b'\x00\x80'}])
def test_palette_gives_its_colours(options):
  image = Image.fromarray(np.array([[0, 1]], np.uint8), 'P')
  image.putpalette([200, 100, 50, 1, 2, 3])
  decoded = preprocessing.decode_image(encode(image, **options), 'x')
  assert decoded.tolist() == [[[200, 100, 50], [1, 2, 3]]]


def test_cmyk_jpeg_is_read_as_rgb():
  # No cyan and all magenta and yellow is red.
  cmyk = np.tile(np.array([0, 255, 255, 0], np.uint8), (16, 16, 1))
  data = encode(Image.fromarray(cmyk, 'CMYK'), 'JPEG')
  decoded = preprocessing.decode_image(data, 'x')
  assert np.abs(decoded.astype(int) - [255, 0, 0]).max() <= 3


# What a camera stores, by the EXIF standard: for 6, its first row is the right
# side of the scene and its first column the top.
STORED = {
  1: lambda scene: scene,
  2: lambda scene: scene[:, ::-1],
  3: lambda scene: scene[::-1, ::-1],
  4: lambda scene: scene[::-1],
  5: lambda scene: scene.swapaxes(0, 1),
  6: lambda scene: scene[:, ::-1].swapaxes(0, 1),
  7: lambda scene: scene[::-1, ::-1].swapaxes(0, 1),
  8: lambda scene: scene[::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize('orientation', STORED)
@pytest.mark.parametrize('file_format', ['PNG', 'TIFF', 'WEBP', 'JPEG'])
def test_exif_orientation_is_applied(orientation, file_format):
  # Flat blocks of 16 pixels survive JPEG.
  scene = random_image(2, 3).repeat(16, axis=0).repeat(16, axis=1)
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  options = {
    'WEBP': {'lossless': True},
    'JPEG': {'quality': 100, 'subsampling': 0},
  }
  data = encode(
    np.ascontiguousarray(STORED[orientation](scene)),
    file_format,
    exif=exif,
    **options.get(file_format, {}),
  )
  decoded = preprocessing.decode_image(data, 'x')
  assert decoded.shape == scene.shape
  tolerance = 4 if file_format == 'JPEG' else 0
  assert np.abs(decoded.astype(int) - scene).max() <= tolerance
  assert preprocessing.image_size(data, 'x') == (32, 48)
  mask = preprocessing.decode_mask(data, 'x', threshold=127)
  grey = cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY)
  np.testing.assert_array_equal(mask, grey > 127)


def test_orientation_behind_the_pixels_counts():
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = 6
  data = encode(random_image(3, 5))
  chunk = b'eXIf' + exif.tobytes().removeprefix(b'Exif\0\0')
  chunk = (
    struct.pack('>I', len(chunk) - 4) + chunk
    + struct.pack('>I', zlib.crc32(chunk))
  )  # fmt: skip
  end = data.index(b'IEND') - 4
  data = data[:end] + chunk + data[end:]
  assert preprocessing.decode_image(data, 'x').shape == (5, 3, 3)
  assert preprocessing.image_size(data, 'x') == (5, 3)


# --- Masks ---

LESION = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


def palette_mask(colours, indices):
  image = Image.fromarray(indices, 'P')
  image.putpalette(colours)
  return image


MASKS = {
  'white is 255': LESION * np.uint8(255),
  'white is 1': LESION,
  'one bit': Image.fromarray(LESION * np.uint8(255)).convert('1'),
  '16 bit': LESION * np.uint16(65535),
  '16 bit, white is 1': LESION * np.uint16(1),
  '16 bit, white is 255': LESION * np.uint16(255),
  'rgb': np.stack([LESION * np.uint8(255)] * 3, axis=2),
  'palette': palette_mask([0, 0, 0, 255, 255, 255], LESION),
  'inverted palette': palette_mask([255, 255, 255, 0, 0, 0], 1 - LESION),
  'opaque': np.stack([LESION * np.uint8(255)] * 3 + [LESION * 0 + 255], axis=2),
  # White paint, and what is not painted is transparent.
  'transparent': np.stack(
    [np.full_like(LESION, 255)] * 3 + [LESION * np.uint8(255)], axis=2
  ),
}


@pytest.mark.parametrize('kind', MASKS)
@pytest.mark.parametrize('file_format', ['PNG', 'TIFF'])
def test_binary_masks_of_every_kind(kind, file_format):
  data = encode(MASKS[kind], file_format)
  mask = preprocessing.decode_mask(data, 'x')
  assert mask.dtype == np.uint8
  np.testing.assert_array_equal(mask, LESION)


@pytest.mark.parametrize('indices', [LESION, 1 - LESION])
def test_palette_entry_may_be_transparent(indices):
  # Index 0 is white, but not seen; index 1 is white.
  image = palette_mask([255] * 6, indices)
  for transparency in (b'\x00\xff', 0):
    data = encode(image, transparency=transparency)
    np.testing.assert_array_equal(preprocessing.decode_mask(data, 'x'), indices)


@pytest.mark.parametrize(('value', 'lesion'), [(0, 0), (1, 1), (255, 1)])
def test_masks_of_one_value(value, lesion):
  mask = preprocessing.decode_mask(
    encode(np.full((3, 4), value, np.uint8)), 'x'
  )
  np.testing.assert_array_equal(mask, np.full((3, 4), lesion))


@pytest.mark.parametrize(
  ('values', 'found'),
  [
    ([0, 254], 'the grey values 0, 254;'),
    ([1, 255], 'the grey values 1, 255;'),
    ([0, 1, 255], 'the grey values 0, 1, 255;'),
    ([7], 'the grey value 7;'),
    (range(100), r'100 grey values \(0, 1, 2, 3, ...\);'),
  ],
)
def test_strict_masks_have_two_values(values, found):
  data = encode(np.array([values], np.uint8))
  with pytest.raises(errors.InputError, match=f'a mask: not binary.*{found}'):
    preprocessing.decode_mask(data, 'a mask')
  with pytest.raises(errors.InputError, match=r'data\.mask_threshold'):
    preprocessing.decode_mask(data, 'a mask')


def test_threshold_is_exclusive():
  data = encode(np.array([[0, 127, 128, 255]], np.uint8))
  mask = preprocessing.decode_mask(data, 'x', threshold=127)
  assert mask.tolist() == [[0, 0, 1, 1]]
  # 127 * 257 = 32639 is 127 in 8 bits.
  data = encode(np.array([[0, 32639, 32896, 65535]], np.uint16))
  mask = preprocessing.decode_mask(data, 'x', threshold=127)
  assert mask.tolist() == [[0, 0, 1, 1]]


# --- Files that are refused ---


def png_header(width: int, height: int) -> bytes:
  header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  chunks = [header, b'IDAT' + zlib.compress(b'\0' * 1000), b'IEND']
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(chunk) - 4) + chunk
    + struct.pack('>I', zlib.crc32(chunk))
    for chunk in chunks
  )  # fmt: skip


@pytest.mark.parametrize(
  'decode',
  [
    preprocessing.decode_image,
    preprocessing.decode_mask,
    preprocessing.image_size,
  ],
)
@pytest.mark.parametrize('size', [(10_001, 10_000), (40_000, 40_000)])
def test_more_than_100_megapixels_are_refused_by_the_header(decode, size):
  message = f'x: {size[0]} x {size[1]} pixels; at most 100 megapixels'
  with pytest.raises(errors.InputError, match=message):
    decode(png_header(*size), 'x')


@pytest.mark.parametrize('file_format', ['PNG', 'TIFF'])
def test_large_pictures_pass_without_a_warning(file_format):
  # 95 megapixels; Pillow by itself warns from 89 on.
  image = Image.new('1', (9500, 10_000), 1)
  options = {'compression': 'group4'} if file_format == 'TIFF' else {}
  data = encode(image, file_format, **options)
  filters = list(warnings.filters)
  mask = preprocessing.decode_mask(data, 'x')
  assert mask.shape == (10_000, 9500)
  assert mask.all()
  assert warnings.filters == filters


@pytest.mark.parametrize('file_format', ['JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP'])
@pytest.mark.parametrize('share', [0.05, 0.5, 0.95])
def test_truncated_files_are_refused(file_format, share):
  data = encode(random_image(50, 60), file_format)
  data = data[: int(len(data) * share)]
  for decode in (preprocessing.decode_image, preprocessing.decode_mask):
    with pytest.raises(errors.InputError, match=r'a\.jpg: cannot be decoded'):
      decode(data, 'a.jpg')


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (b'', 'x: .*empty'),
    (b'a text', 'x: no JPEG, PNG, BMP, TIFF, WebP, GIF'),
    (encode(random_image(3, 4), 'PPM'), 'x: no JPEG, PNG'),
    (b'\x89PNG\r\n\x1a\nnonsense' * 9, 'x: cannot be decoded'),
    (b'\xff\xd8\xff\xe0nonsense', 'x: cannot be decoded'),
    (b'RIFF\x00\x00\x01\x00WAVEfmt ', 'x: cannot be decoded'),
  ],
)
def test_what_is_no_readable_image_is_refused(data, message):
  for decode in (preprocessing.decode_image, preprocessing.decode_mask):
    with pytest.raises(errors.InputError, match=message):
      decode(data, 'x')
