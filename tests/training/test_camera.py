"""Dark corners, and JPEG against Pillow's."""

import io

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from skinseg_jax.training import camera


def _photo(size) -> np.ndarray:
  """Smooth colours with some texture, uint8."""
  rng = np.random.default_rng(0)
  noise = rng.normal(size=(*size, 3))
  smooth = ndimage.gaussian_filter(noise, (6, 6, 0))
  values = 128 + 900 * smooth + 12 * ndimage.gaussian_filter(noise, (1, 1, 0))
  return values.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize('size', [(64, 48), (50, 37)])
@pytest.mark.parametrize('quality', [20, 50, 75, 95])
def test_jpeg_is_pillows(size, quality):
  photo, buffer = _photo(size), io.BytesIO()
  Image.fromarray(photo).save(buffer, 'JPEG', quality=quality, subsampling=0)
  expected = np.asarray(Image.open(buffer)).astype(int)
  ours = camera.jpeg(photo / np.float32(255), np.float32(quality))
  ours = np.rint(np.asarray(ours) * 255).astype(int)
  assert np.abs(expected - photo).mean() > 1
  # The codec rounds cosines to integers; a coefficient may fall to the other
  # side of a half, which changes its whole block.
  assert np.abs(ours - expected).mean() < 0.5
  assert (np.abs(ours - expected) <= 2).mean() > 0.97


def test_as_many_images_are_compressed_as_asked():
  image = _photo((32, 32)) / np.float32(255)
  out = jax.vmap(lambda key: camera.random_jpeg(key, image, 0.3))(
    jax.random.split(jax.random.key(0), 300)
  )
  changed = (np.asarray(out) != image).any(axis=(1, 2, 3))
  # Four standard errors.
  assert changed.mean() == pytest.approx(0.3, abs=0.11)


def test_a_vignette_darkens_the_corners_as_often_as_asked():
  image = np.full((48, 64, 3), 0.8, np.float32)
  out = jax.vmap(lambda key: camera.vignette(key, image, 0.5))(
    jax.random.split(jax.random.key(0), 300)
  )
  out = np.asarray(out)[..., 0]
  assert out.max() <= np.float32(0.8)
  assert out.min() >= 0
  # The middle half of each side is inside of every circle.
  assert np.array_equal(out[:, 12:36, 16:48], np.full((300, 24, 32), 0.8, 'f'))
  corners = out[:, [0, 0, -1, -1], [0, -1, 0, -1]].min(axis=1)
  # Four standard errors.
  assert (corners < 0.8).mean() == pytest.approx(0.5, abs=0.12)
  assert corners.min() < 0.1
