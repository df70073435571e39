import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from skinseg_jax import config as config_lib
from skinseg_jax.training import augmentation

_MODES = {'mirror': 'mirror', 'constant': 'grid-constant'}  # Ours to scipy's.


def _example(height=48, width=64, seed=0):
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (height, width, 3), np.uint8)
  mask = ndimage.gaussian_filter(rng.normal(size=(height, width)), 4) > 0
  return image, mask.astype(np.uint8)


@pytest.mark.parametrize('border', ['mirror', 'constant'])
@pytest.mark.parametrize('degrees', [0.0, 17.3, -35.0, 90.0, 123.4])
def test_rotation_equals_scipy(degrees, border):
  # Square at 90 degrees; otherwise every coordinate would be a tie.
  image, mask = _example(48, 48 if degrees == 90 else 64)
  got_image, got_mask = augmentation.resample(
    image, mask, augmentation.rotation(degrees), jnp.zeros(2), border=border
  )
  rotate = lambda x, order: ndimage.rotate(
    x, -degrees, reshape=False, order=order, mode=_MODES[border]
  )
  np.testing.assert_allclose(
    got_image, rotate(image.astype(np.float64), 1) / 255, atol=1e-4
  )
  np.testing.assert_array_equal(got_mask, rotate(mask, 0))


_STRONG = config_lib.AugmentationConfig(
  rotation_degrees=180.0,
  vertical_flip=0.5,
  quarter_turn=0.75,
  scale=0.3,
  translation=0.2,
  shear_degrees=15.0,
)


@pytest.mark.parametrize('border', ['mirror', 'constant'])
def test_any_map_equals_scipy(border):
  image, mask = _example()
  middle = (np.array(mask.shape) - 1) / 2
  for key in augmentation.image_keys(1, jnp.int32(0), 4):
    matrix = augmentation.random_matrix(key, _STRONG)
    shift = augmentation.random_shift(key, _STRONG)
    got_image, got_mask = augmentation.resample(
      image, mask, matrix, shift, border=border
    )
    matrix = np.asarray(matrix, np.float64)
    offset = middle + np.array(mask.shape) * shift - matrix @ middle
    affine = lambda x, order, m=matrix, o=offset: ndimage.affine_transform(
      x, m, o, order=order, mode=_MODES[border]
    )
    expected = [affine(image[..., i].astype(np.float64), 1) for i in range(3)]
    np.testing.assert_allclose(
      got_image, np.stack(expected, -1) / 255, atol=1e-4
    )
    np.testing.assert_array_equal(got_mask, affine(mask, 0))


def test_ranges_of_scale_shear_and_translation():
  keys = augmentation.image_keys(0, jnp.int32(0), 2000)
  none = config_lib.AugmentationConfig(
    rotation_degrees=0.0, horizontal_flip=0.0, vertical_flip=0.0
  )
  draw = lambda function, **fields: np.asarray(
    jax.vmap(lambda k: function(k, dataclasses.replace(none, **fields)))(keys)
  )
  matrices = draw(augmentation.random_matrix, scale=0.25)
  assert np.array_equal(matrices[:, 0, 1], np.zeros(2000))
  sizes = np.log(matrices[:, 0, 0])
  assert np.abs(sizes).max() <= np.log(1.25) + 1e-6
  # Enlarging is as likely as shrinking. The limit is four standard errors of
  # the mean of a uniform distribution.
  assert abs(sizes.mean()) < 4 * np.log(1.25) / np.sqrt(3 * 2000)
  matrices = draw(augmentation.random_matrix, shear_degrees=20.0)
  degrees = np.rad2deg(np.arctan(matrices[:, 1, 0]))
  assert 19 < degrees.max() <= 20.001
  assert -20.001 <= degrees.min() < -19
  assert np.array_equal(matrices[:, 0], np.tile([1.0, 0.0], (2000, 1)))
  shifts = draw(augmentation.random_shift, translation=0.1)
  assert 0.099 < shifts.max() <= 0.1
  assert -0.1 <= shifts.min() < -0.099


def test_quarter_turns_are_exact_and_each_as_likely():
  image, mask = _example(16, 16)
  config = config_lib.AugmentationConfig(
    rotation_degrees=0.0,
    horizontal_flip=0.0,
    vertical_flip=0.0,
    quarter_turn=0.75,
  )
  images, masks = augmentation.augment(
    np.stack([image] * 400),
    np.stack([mask] * 400),
    jnp.int32(0),
    seed=0,
    config=config,
  )
  turns = [np.rot90(image, k) / np.float32(255) for k in range(4)]
  found = [
    next(k for k in range(4) if np.allclose(one, turns[k], atol=1e-6))
    for one in np.asarray(images)
  ]
  for k, one in zip(found, np.asarray(masks), strict=True):
    assert np.array_equal(one, np.rot90(mask, k))
  # Four standard errors: sqrt(.25 * .75 / 400) is .0217.
  assert np.allclose(np.bincount(found) / 400, 0.25, atol=0.087)


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
  # The image shows its mask. After any map, the mask is the rounded image,
  # except at ties.
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
from skinseg_jax import config
from skinseg_jax.training import augmentation
from skinseg_jax.data import input_pipeline
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (8, 32, 32, 3), np.uint8)
masks = rng.integers(0, 2, (8, 32, 32), np.uint8)
put = lambda x: jax.device_put(x, input_pipeline.data_sharding())
everything = config.AugmentationConfig(
    quarter_turn=0.5, scale=0.1, translation=0.1, shear_degrees=5.0,
    brightness=0.1, contrast=0.1, saturation=0.1, hue_degrees=5.0, gamma=0.1,
    colour_constancy=0.1, blur=1.0, noise=0.1, hair=0.5,
    vignette=0.5, jpeg=0.5)
augment = jax.jit(lambda i, m: augmentation.augment(
    i, m, 5, seed=3, config=everything))
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
