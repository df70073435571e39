"""Formats beyond those that every camera writes; several pictures in a file."""

import importlib.util
import io

import numpy as np
import pytest
from fake_dicom import dicom
from fake_images import random_image
from PIL import ExifTags, Image

from skinseg_jax.data import pictures, preprocessing
from skinseg_jax.runtime import errors


def scene(height=48, width=64) -> np.ndarray:
  """Grey with a red top left corner and a blue bottom right one."""
  image = np.full((height, width, 3), 180, np.uint8)
  image[: height // 2, : width // 2] = (200, 30, 30)
  image[-height // 4 :, -width // 4 :] = (30, 30, 200)
  return image


def test_a_file_of_empty_parts_is_refused():
  buffer = io.BytesIO()
  Image.fromarray(scene()).save(buffer, 'JPEG')
  jpeg = buffer.getvalue()
  padded = lambda count: jpeg[:2] + count * b'\xff' + jpeg[2:]
  assert pictures.pixels(padded(100), 'x.jpg') == 48 * 64
  with pytest.raises(errors.InputError, match=r'x\.jpg: too many parts'):
    pictures.pixels(padded(20_000), 'x.jpg')


def test_dicom_rgb():
  data = dicom(scene(), 'RGB', PixelSpacing=[0.02, 0.03])
  np.testing.assert_array_equal(preprocessing.decode_image(data, 'x'), scene())
  assert preprocessing.image_size(data, 'x') == (48, 64)
  assert pictures.pixel_spacing(data, 'x') == (0.02, 0.03)
  assert pictures.count(data, 'x') == 1


@pytest.mark.parametrize(
  'spacing', [None, 0.02, ['', ''], ['', 0.02], [0.02] * 3, [0.0, 0.02]]
)
def test_dicom_that_states_no_spacing(spacing):
  data = dicom(scene(), 'RGB', PixelSpacing=spacing)
  assert pictures.pixel_spacing(data, 'x') is None


def test_dicom_ybr_full():
  ybr = np.asarray(Image.fromarray(scene()).convert('YCbCr'))
  decoded = preprocessing.decode_image(dicom(ybr, 'YBR_FULL'), 'x')
  assert np.abs(decoded.astype(int) - scene()).max() <= 2


@pytest.mark.parametrize(
  ('syntax', 'codec'), [('JPEGBaseline8Bit', 'jpeg'), ('JPEG2000', 'jpeg2000')]
)
def test_compressed_dicom_is_what_its_codec_gives(syntax, codec):
  pydicom = pytest.importorskip('pydicom')
  buffer = io.BytesIO()
  options = {'irreversible': True} if codec == 'jpeg2000' else {}
  Image.fromarray(scene()).save(buffer, codec, no_jp2=True, **options)
  kind = 'YBR_ICT' if codec == 'jpeg2000' else 'YBR_FULL_422'
  file = pydicom.dcmread(io.BytesIO(dicom(scene(), kind)))
  file.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
  file.PixelData = pydicom.encaps.encapsulate([buffer.getvalue()])
  compressed = io.BytesIO()
  file.save_as(compressed, enforce_file_format=True)
  decoded = preprocessing.decode_image(compressed.getvalue(), 'x')
  expected = np.asarray(Image.open(buffer).convert('RGB')).astype(int)
  assert np.abs(decoded - expected).max() <= 3


@pytest.mark.parametrize('kind', ['MONOCHROME1', 'MONOCHROME2'])
@pytest.mark.parametrize(
  ('dtype', 'bits'), [('u1', 8), ('<u2', 12), ('<u2', 16), ('<i2', 12)]
)
def test_dicom_grey(kind, dtype, bits):
  # Black, white, and what 8 bits call 100.
  low = -(2 ** (bits - 1)) if dtype == '<i2' else 0
  most = 2**bits - 1
  values = np.array([[0, most, round(100 / 255 * most), 0]]).repeat(4, axis=0)
  data = dicom((values + low).astype(dtype), kind, bits=bits)
  decoded = preprocessing.decode_image(data, 'x')
  expected = [0, 255, 100, 0]
  if kind == 'MONOCHROME1':
    expected = [255, 0, 155, 255]
  assert decoded[2].tolist() == [[value] * 3 for value in expected]


def test_dicom_palette():
  lut = np.array([[10, 20, 30], [200, 100, 50]], np.uint16) * 257
  tags = {}
  for channel, name in enumerate(('Red', 'Green', 'Blue')):
    tags[f'{name}PaletteColorLookupTableDescriptor'] = [2, 0, 16]
    tags[f'{name}PaletteColorLookupTableData'] = lut[:, channel].tobytes()
  data = dicom(np.array([[0, 1], [1, 1]], np.uint8), 'PALETTE COLOR', **tags)
  decoded = preprocessing.decode_image(data, 'x')
  assert decoded[0].tolist() == [[10, 20, 30], [200, 100, 50]]


def test_dicom_of_many_frames_and_shared_spacing():
  pydicom = pytest.importorskip('pydicom')
  measures, group = pydicom.Dataset(), pydicom.Dataset()
  measures.PixelSpacing = [0.1, 0.1]
  group.PixelMeasuresSequence = [measures]
  frames = np.stack([scene(), 255 - scene()])
  data = dicom(frames, 'RGB', frames=2, SharedFunctionalGroupsSequence=[group])
  np.testing.assert_array_equal(preprocessing.decode_image(data, 'x'), scene())
  assert pictures.count(data, 'x') == 2
  assert pictures.pixel_spacing(data, 'x') == (0.1, 0.1)


def test_damaged_dicom_is_refused():
  data = dicom(scene(), 'RGB')
  for cut in (200, len(data) - 100):
    with pytest.raises(errors.InputError, match='x: cannot be decoded'):
      preprocessing.decode_image(data[:cut], 'x')


def test_large_dicom_is_refused_by_its_header():
  data = dicom(np.zeros((2, 2), np.uint8), 'MONOCHROME2', Rows=20_000,
               Columns=20_000)  # fmt: skip
  with pytest.raises(errors.InputError, match='at most 100 megapixels'):
    preprocessing.decode_image(data, 'x')


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
@pytest.mark.parametrize('kind', ['HEIF', 'AVIF'])
def test_phone_formats_are_upright(kind, orientation):
  stored = {
    1: scene(),
    3: np.rot90(scene(), 2),
    6: np.rot90(scene(), 1),  # Viewers turn it clockwise.
    8: np.rot90(scene(), -1),
  }[orientation]
  image = Image.fromarray(np.ascontiguousarray(stored))
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  buffer = io.BytesIO()
  if kind == 'HEIF':
    heif = pytest.importorskip('pillow_heif').from_pillow(image)
    heif.save(buffer, quality=95, exif=exif.tobytes())
  else:
    image.save(buffer, kind, quality=95, exif=exif)
  data = buffer.getvalue()
  assert preprocessing.image_size(data, 'x') == (48, 64)
  decoded = preprocessing.decode_image(data, 'x')
  assert decoded.shape == scene().shape
  # Inside the corners: blue or red may bleed at their edges.
  assert np.abs(decoded[4:20, 4:28].astype(int) - scene()[0, 0]).max() < 12
  assert np.abs(decoded[-8:-2, -12:-2].astype(int) - (30, 30, 200)).max() < 12


def test_gif():
  image = Image.fromarray(scene()).quantize(4)
  buffer = io.BytesIO()
  image.save(buffer, 'GIF')
  expected = np.asarray(image.convert('RGB'))
  decoded = preprocessing.decode_image(buffer.getvalue(), 'x')
  np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize('kind', ['TIFF', 'WEBP', 'GIF', 'AVIF'])
def test_the_first_of_several_pictures_counts(kind):
  first, second = (Image.fromarray(random_image(16, 16, s)) for s in (0, 1))
  one, two = io.BytesIO(), io.BytesIO()
  options = {'lossless': True} if kind == 'WEBP' else {}
  first.save(one, kind, **options)
  first.save(two, kind, save_all=True, append_images=[second], **options)
  assert pictures.count(one.getvalue(), 'x') == 1
  assert pictures.count(two.getvalue(), 'x') == 2
  decoded = preprocessing.decode_image(two.getvalue(), 'x').astype(int)
  far = 0 if kind in ('TIFF', 'WEBP') else 60
  assert np.abs(decoded - np.asarray(first)).mean() <= far


@pytest.mark.parametrize(
  ('package', 'data', 'name'),
  [
    ('pydicom', b'\0' * 128 + b'DICM', 'x.dcm'),
    ('pillow_heif', b'\0\0\0\x18ftypheic' + b'\0' * 12, 'x.heic'),
  ],
)
def test_a_missing_package_is_named(monkeypatch, tmp_path, package, data, name):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda n: None if n == package else find(n)
  )
  install = r'pip install "skinseg_jax\[formats\]"'
  with pytest.raises(errors.InputError, match=install):
    preprocessing.decode_image(data, 'x')
  paths = [tmp_path / name, tmp_path / f'y{name}', tmp_path / 'z.jpg']
  with pytest.raises(errors.InputError, match=install) as caught:
    pictures.check_installed(paths)
  assert str(caught.value).count('pip install') == 1
  assert 'for 2 files' in str(caught.value)
