"""The script that resizes in the browser, against Python's."""

import pathlib

import chromium
import numpy as np
import pytest
from fake_images import random_image

from skinseg_jax.data import preprocessing
from skinseg_jax.exporting import web_page

_TEMPLATES = pathlib.Path(web_page.__file__).parent / 'templates'


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  with chromium.started(tmp_path_factory.mktemp('profile')) as driver:
    yield driver


_RESIZE = """
{code}
const [height, width, pixels, toHeight, toWidth] = arguments;
const data = Uint8ClampedArray.from(pixels);
// Strips of three rows.
const rows = (top) => ({{
  top, data: data.subarray(4 * width * top, 4 * width * (top + 3))}});
const small = [...resizeImage(rows, width, height, toWidth, toHeight)];
const levels = Float32Array.from(small, (value) => value / 255);
const large = [];
for (const row of resizedProbability(
  levels, 3 * toWidth, toHeight, width, height)) large.push(...row);
return [small, large];
"""


@pytest.mark.browser
@pytest.mark.parametrize('size', [(1, 1), (31, 17), (32, 48), (150, 200)])
def test_its_script_resizes_as_python_does(browser, size):
  code = (_TEMPLATES / 'resize.js').read_text()
  image, target = random_image(*size), (32, 48)
  opaque = np.full((*size, 1), 255, np.uint8)
  pixels = np.concatenate([image, opaque], axis=2).ravel().tolist()
  browser.get('data:text/html,')
  small, large = browser.execute_script(
    _RESIZE.format(code=code), *size, pixels, *target
  )
  expected = preprocessing.resize_image(image, target)
  np.testing.assert_array_equal(np.reshape(small, (*target, 3)), expected)
  levels = expected.reshape(32, -1).astype(np.float32) / np.float32(255)
  np.testing.assert_allclose(
    np.reshape(large, size),
    preprocessing.resize_probability(levels, size),
    atol=1e-6,
  )
