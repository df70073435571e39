import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from skinseg_jax import augmentation
from skinseg_jax import config as config_lib

_MODES = {'mirror': 'mirror', 'constant': 'grid-constant'}  # Ours: scipy's.


def _example(height=48, width=64, seed=0):
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (height, width, 3), np.uint8)
  mask = ndimage.gaussian_filter(rng.normal(size=(height, width)), 4) > 0
  return image, mask.astype(np.uint8)


@pytest.mark.parametrize('border', ['mirror', 'constant'])
@pytest.mark.parametrize('degrees', [0.0, 17.3, -35.0, 90.0, 123.4])
def test_rotation_equals_scipy(degrees, border):
  image, mask = _example()
  got_image, got_mask = augmentation.resample(
    image, mask, augmentation.rotation(degrees), jnp.zeros(2), border=border
  )
  rotate = lambda x, order: ndimage.rotate(
    x, -degrees, reshape=False, order=order, mode=_MODES[border]
  )
  np.testing.assert_allclose(
    got_image, rotate(image.astype(np.float64), 1) / 255, atol=1e-3
  )
  # float32 and float64 may round a coordinate on a tie to different pixels.
  assert np.mean(np.asarray(got_mask) != rotate(mask, 0)) <= (
    0 if degrees % 90 else 0.05
  )
  assert set(np.unique(got_mask)) <= {0, 1}


def test_flips_by_hand():
  image = np.zeros((16, 16, 3), np.uint8)
  image[0, 0] = 255
  mask = image[..., 0] // 255
  config = config_lib.AugmentationConfig(
    rotation_degrees=0.0, horizontal_flip=1.0, vertical_flip=1.0
  )
  images, masks = augmentation.augment(
    image[None], mask[None], jnp.int32(0), seed=0, config=config
  )
  assert np.argwhere(masks[0]).tolist() == [[15, 15]]
  assert images[0, 15, 15].tolist() == [1, 1, 1]
  assert float(images.sum()) == 3


def test_image_and_mask_stay_aligned():
  # An image that is its mask: after any map the mask is the rounded image,
  # but for ties.
  _, mask = _example(64, 64)
  image = np.repeat(255 * mask[..., None], 3, axis=-1)
  images, masks = augmentation.augment(
    np.stack([image] * 16),
    np.stack([mask] * 16),
    jnp.int32(3),
    seed=1,
    config=config_lib.AugmentationConfig(rotation_degrees=180.0),
  )
  agree = (np.asarray(images[..., 0]) > 0.5) == (np.asarray(masks) == 1)
  # Bilinear and nearest differ only where the border curves within a pixel.
  assert agree.mean() > 0.99
  assert set(np.unique(masks)) == {0, 1}
  assert 0 <= images.min() <= images.max() <= 1


def test_flip_and_angle_rates():
  keys = augmentation.image_keys(0, jnp.int32(0), 4000)
  matrices = jax.vmap(
    lambda k: augmentation.random_matrix(k, config_lib.AugmentationConfig())
  )(keys)
  # cos > 0 within 35 degrees, so the signs of the diagonal are the flips.
  vertical, horizontal = (matrices[:, i, i] < 0 for i in (0, 1))
  # Four standard errors: sqrt(p (1 - p) / 4000) is .0079 and .0047.
  assert horizontal.mean() == pytest.approx(0.5, abs=0.032)
  assert vertical.mean() == pytest.approx(0.1, abs=0.019)
  degrees = np.rad2deg(np.arccos(np.abs(matrices[:, 0, 0])))
  assert degrees.max() <= 35.001
  assert degrees.mean() == pytest.approx(17.5, abs=0.65)


def test_every_step_and_image_differs_and_repeats():
  image, mask = _example(32, 32)
  images, masks = np.stack([image] * 4), np.stack([mask] * 4)
  run = lambda step: np.asarray(
    augmentation.augment(
      images,
      masks,
      jnp.int32(step),
      seed=0,
      config=config_lib.AugmentationConfig(),
    )[0]
  )
  first, second = run(0), run(1)
  assert np.array_equal(first, run(0))
  assert len({x.tobytes() for x in [*first, *second]}) == 8


_ON_DEVICES = """
import jax, numpy as np, sys
from skinseg_jax import augmentation, config
from skinseg_jax.data import input_pipeline
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (8, 32, 32, 3), np.uint8)
masks = rng.integers(0, 2, (8, 32, 32), np.uint8)
put = lambda x: jax.device_put(x, input_pipeline.data_sharding())
augment = jax.jit(lambda i, m: augmentation.augment(
    i, m, 5, seed=3, config=config.AugmentationConfig()))
out = augment(put(images), put(masks))
assert len(out[0].sharding.device_set) == int(sys.argv[1]), out[0].sharding
np.savez(sys.argv[2], *map(np.asarray, out))
"""


def test_one_device_and_eight_give_the_same_batch(tmp_path):
  results = []
  for devices in (1, 8):
    path = tmp_path / f'{devices}.npz'
    flag = f'--xla_force_host_platform_device_count={devices}'
    subprocess.run(
      [sys.executable, '-c', _ON_DEVICES, str(devices), path],
      check=True,
      env={**os.environ, 'XLA_FLAGS': flag, 'JAX_PLATFORMS': 'cpu'},
    )
    with np.load(path) as arrays:
      results.append([arrays[name] for name in arrays.files])
  (one_image, one_mask), (eight_image, eight_mask) = results
  np.testing.assert_allclose(one_image, eight_image, atol=1e-6)
  assert np.array_equal(one_mask, eight_mask)
