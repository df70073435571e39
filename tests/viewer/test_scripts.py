"""The scripts that both pages share, in Chromium, against Pillow."""

import base64
import io
import pathlib
import struct
import zlib

import chromium
import numpy as np
import pytest
from fake_images import random_image
from PIL import Image

from skinseg_jax.data import preprocessing
from skinseg_jax.viewer import shared_page

pytestmark = pytest.mark.browser

_TEMPLATES = pathlib.Path(shared_page.__file__).parent / 'templates'
_HEIGHT, _WIDTH = 24, 40


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  with chromium.started(tmp_path_factory.mktemp('profile')) as driver:
    driver.get('data:text/html,')
    yield driver


def _file(kind, orientation, *, ends=b'', **options):
  """A picture that is to be turned, and that a browser decodes exactly."""
  exif = Image.Exif()
  exif[0x010F] = 'maker'
  exif[0x0112] = orientation
  file = io.BytesIO()
  Image.fromarray(random_image(_HEIGHT, _WIDTH)).save(
    file, kind, exif=exif.tobytes() + ends, **options
  )
  return file.getvalue()


def _late(png):
  """The same PNG with its EXIF after the pixels."""
  start = png.index(b'eXIf') - 4
  end = start + 12 + struct.unpack('>I', png[start : start + 4])[0]
  return png[:start] + png[end:-12] + png[start:end] + png[-12:]


def _webp(orientation, **options):
  return _file('WEBP', orientation, lossless=True, **options)


def _big_endian(webp, *, long=False):
  """The same WebP with EXIF in the other order of bytes, and its prefix."""
  value = (
    struct.pack('>HII', 4, 1, 6) if long else struct.pack('>HIHH', 3, 1, 6, 0)
  )
  head = b'Exif\0\0MM\0*' + struct.pack('>IHH', 8, 1, 0x112)
  exif = head + value + bytes(4)
  start = webp.index(b'EXIF')
  parts = webp[12:start] + b'EXIF' + struct.pack('<I', len(exif)) + exif
  return b'RIFF' + struct.pack('<I', 4 + len(parts)) + b'WEBP' + parts


def _without_flag(webp):
  """The same WebP, whose first part does not speak of its EXIF."""
  assert webp[12:16] == b'VP8X'
  return webp[:20] + bytes([webp[20] & ~8]) + webp[21:]


_READ = """
const [base64, done] = arguments;
(async () => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const {file, orientation} = await unturned(new Blob([bytes]));
  const bitmap = await createImageBitmap(file);
  const [width, height] =
    turnedSize(orientation, bitmap.width, bitmap.height);
  const strips = stripsOf(bitmap, orientation);
  const all = [];
  while (all.length < 4 * width * height) {
    all.push(...strips(all.length / (4 * width)).data);
  }
  done([height, width, all]);
})();
"""


@pytest.mark.parametrize(
  'data',
  [
    *(pytest.param(_webp(n), id=f'webp {n}') for n in range(1, 9)),
    *(pytest.param(_late(_file('PNG', n)), id=f'late {n}') for n in (3, 6)),
    pytest.param(_file('PNG', 8), id='png'),
    pytest.param(_file('PNG', 200), id='no such orientation'),
    pytest.param(_webp(6, ends=b'\0'), id='odd length'),
    pytest.param(_big_endian(_webp(6)), id='big-endian'),
    pytest.param(_big_endian(_webp(6), long=True), id='32 bits'),
    pytest.param(_without_flag(_webp(6)), id='no flag'),
  ],
)
def test_pictures_are_turned_as_pillow_does(browser, data):
  expected = preprocessing.decode_image(data, 'picture')
  code = (_TEMPLATES / 'upright.js').read_text()
  # Strips of a few rows.
  assert 'STRIP = 2 ** 25' in code
  code = code.replace('STRIP = 2 ** 25', 'STRIP = 700')
  height, width, pixels = browser.execute_async_script(
    code + _READ, base64.b64encode(data).decode()
  )
  found = np.reshape(pixels, (height, width, 4))
  np.testing.assert_array_equal(found[..., :3], expected)


_SIZES = """
const [base64, done] = arguments;
const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
const sizes = [];
const {arrayBuffer} = Blob.prototype;
Blob.prototype.arrayBuffer = function () {
  sizes.push(this.size);
  return arrayBuffer.call(this);
};
unturned(new Blob([bytes])).then(({orientation}) => {
  Blob.prototype.arrayBuffer = arrayBuffer;
  done([orientation, sizes]);
});
"""


def _with_parts(png, count, size):
  """The same PNG with parts before its pixels that no one reads."""
  part = struct.pack('>I', size) + b'skIp' + bytes(size)
  part += struct.pack('>I', zlib.crc32(part[4:]))
  start = png.index(b'IDAT') - 4
  return png[:start] + count * part + png[start:]


@pytest.mark.parametrize(
  ('count', 'size', 'times'),
  # One for the head, one for the EXIF, and those that find the parts.
  [(20, 2**18, 23), (5000, 40, 7)],
  ids=['long parts', 'short parts'],
)
def test_a_large_file_is_read_in_pieces(browser, count, size, times):
  data = _with_parts(_late(_file('PNG', 6)), count, size)
  code = (_TEMPLATES / 'upright.js').read_text()
  orientation, sizes = browser.execute_async_script(
    code + _SIZES, base64.b64encode(data).decode()
  )
  assert orientation == 6
  assert max(sizes) <= 2**16
  assert len(sizes) <= times


_WRITE = """
const [width, height, done] = arguments;
function* rows() {
  for (let y = 0; y < height; y++) {
    yield Float32Array.from({length: width}, (_, x) => (x * y) % 7 / 7);
  }
}
let waiting = 0, most = 0;
const packer = CompressionStream;
self.CompressionStream = class {
  // As slow as a phone.
  constructor(kind) {
    const slow = new TransformStream({async transform(data, out) {
      await new Promise((go) => setTimeout(go, 5));
      waiting--;
      out.enqueue(data);
    }});
    this.writable = slow.writable;
    this.readable = slow.readable.pipeThrough(new packer(kind));
    const {getWriter} = WritableStream.prototype;
    slow.writable.getWriter = () => {
      const writer = getWriter.call(slow.writable);
      const {write} = writer;
      writer.write = (data) => {
        most = Math.max(most, ++waiting);
        return write.call(writer, data);
      };
      return writer;
    };
  }
};
maskPng(width, height, rows(), 0.5).then(async (file) => {
  self.CompressionStream = packer;
  done([most, [...new Uint8Array(await file.arrayBuffer())]]);
});
"""


def test_a_mask_is_written_while_its_rows_are_made(browser):
  width, height = 50, 5000
  code = (_TEMPLATES / 'png.js').read_text()
  most, data = browser.execute_async_script(code + _WRITE, width, height)
  rows, columns = np.mgrid[:height, :width]
  expected = (rows * columns) % 7 / 7 > 0.5
  with Image.open(io.BytesIO(bytes(data))) as image:
    assert image.mode == 'L'
    np.testing.assert_array_equal(np.asarray(image), 255 * expected)
  # Of 20 parts, few wait in memory.
  assert most <= 2
