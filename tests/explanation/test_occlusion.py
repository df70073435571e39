"""Occlusion of networks whose answer is known."""

import numpy as np
import pytest

from skinseg_jax.explanation import occlusion
from skinseg_jax.runtime import errors


def _grey(images):
  """Logits that are the grey value of each pixel."""
  assert len(images) <= occlusion.BATCH_SIZE
  return images.astype(np.float32).mean(axis=-1, keepdims=True)


def test_a_network_of_single_pixels():
  # Patches of 4 start at 0, 2 and 4. Only the first one hides pixel (0, 0). Its
  # grey value is 64 and the picture's mean 1: hiding it costs 63.
  image = np.zeros((8, 8, 3), np.uint8)
  image[0, 0] = 64
  pixels = np.zeros((8, 8), bool)
  pixels[0, 0] = True
  found = occlusion.sensitivity(_grey, image, pixels, 4)
  # Rows 0 and 1 lie in one patch of this axis, rows 2 and 3 in two.
  expected = np.zeros((8, 8), np.float32)
  expected[:4, :4] = 63 * np.outer([1, 1, 0.5, 0.5], [1, 1, 0.5, 0.5])
  assert np.array_equal(found, expected)


def test_a_network_that_looks_elsewhere():
  # The logit of every pixel is the red of the bottom right corner.
  image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
  image[-1, -1, 0] = 255

  def predict(images):
    corner = images[:, -1, -1, 0].astype(np.float32)
    return np.broadcast_to(corner[:, None, None, None], (*images.shape[:3], 1))

  pixels = np.zeros((32, 48), bool)
  pixels[3:7, 5] = True
  found = occlusion.sensitivity(predict, image, pixels, 5)
  y, x = np.nonzero(found)
  assert (y.min(), x.min()) == (32 - 5, 48 - 5)
  assert found.max() == 255 - np.rint(image[..., 0].mean())
  assert found[-1, -1] == found.max()


def test_size_of_the_patch():
  assert occlusion.patch_size(None, (160, 224)) == 20
  assert occlusion.patch_size(None, (16, 16)) == 4
  assert occlusion.patch_size(80, (160, 224)) == 80
  for wrong in (0, -5, 3, 81, 500):
    with pytest.raises(errors.InputError, match='--patch.*160 x 224.* 4 to 80'):
      occlusion.patch_size(wrong, (160, 224))
