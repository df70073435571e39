import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from skinseg_jax import config as config_lib
from skinseg_jax.training import augmentation, colour

_OFF = config_lib.AugmentationConfig()


def _image(seed=0, size=(24, 20)):
  return np.random.default_rng(seed).random((*size, 3)).astype(np.float32)


def _changed(image, seed=0, **fields):
  config = dataclasses.replace(_OFF, **fields)
  return np.asarray(colour.random_colour(jax.random.key(seed), image, config))


def test_all_off_changes_no_bit():
  image = _image() * 1.5 - 0.2  # Values outside [0, 1] are not clipped either.
  assert np.array_equal(_changed(image), image)


def test_brightness_adds_one_number_within_range():
  image = 0.3 + 0.4 * _image()
  added = np.array([_changed(image, s, brightness=0.1) for s in range(8)])
  added -= image
  assert added.std(axis=(1, 2, 3)).max() < 1e-6
  means = added.mean(axis=(1, 2, 3))
  assert 0.02 < means.max() <= 0.1
  assert -0.1 <= means.min() < -0.02


def test_contrast_scales_about_the_mean_grey():
  image = 0.4 + 0.2 * _image()
  grey = lambda x: x @ np.float32([0.299, 0.587, 0.114])
  changed = _changed(image, 3, contrast=0.5)
  factor = grey(changed).std() / grey(image).std()
  assert 0.5 <= factor <= 1.5
  assert abs(factor - 1) > 0.01
  mean = grey(image).mean()
  np.testing.assert_allclose(changed, mean + factor * (image - mean), atol=1e-5)


def test_saturation_of_none_is_opencvs_grey():
  image = _image()
  grey = colour.apply_affine(image, colour.saturate(0.0), jnp.zeros(3))
  expected = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  for channel in range(3):
    np.testing.assert_allclose(grey[..., channel], expected, atol=1e-6)


def test_hue_turn_of_a_third_swaps_channels():
  # By 120 degrees about the grey axis, red becomes green, green becomes blue
  # and blue becomes red.
  image = _image()
  turned = colour.apply_affine(image, colour.hue_turn(120.0), jnp.zeros(3))
  np.testing.assert_allclose(turned, np.roll(image, 1, axis=-1), atol=1e-6)
  greys = np.full((2, 2, 3), 0.4, np.float32)
  kept = colour.apply_affine(greys, colour.hue_turn(33.0), jnp.zeros(3))
  np.testing.assert_allclose(kept, greys, atol=1e-6)


def test_composed_map_equals_one_after_the_other():
  config = dataclasses.replace(
    _OFF,
    brightness=0.1,
    contrast=0.3,
    saturation=0.3,
    hue_degrees=20.0,
    colour_constancy=0.2,
  )
  image = 0.4 + 0.2 * _image()
  key = jax.random.key(5)
  expected = image
  for name in (
    'colour_constancy',
    'hue_degrees',
    'saturation',
    'contrast',
    'brightness',
  ):
    one = dataclasses.replace(_OFF, **{name: getattr(config, name)})
    expected = colour.random_colour(key, expected, one)
  np.testing.assert_allclose(
    colour.random_colour(key, image, config), expected, atol=1e-5
  )


def test_gamma_is_one_power_within_range():
  image = 0.1 + 0.8 * _image()
  exponents = [
    np.log(_changed(image, seed, gamma=0.5)) / np.log(image)
    for seed in range(6)
  ]
  assert max(x.std() for x in exponents) < 1e-4
  means = [x.mean() for x in exponents]
  assert 1 / 1.5 <= min(means) < 1 < max(means) <= 1.5


def test_light_scales_each_channel():
  image = 0.2 + 0.5 * _image()
  factors = _changed(image, 1, colour_constancy=0.2) / image
  assert factors.std(axis=(0, 1)).max() < 1e-5
  assert np.ptp(factors.mean(axis=(0, 1))) > 0.01
  assert np.abs(factors - 1).max() <= 0.2001


@pytest.mark.parametrize('sigma', [0.0, 0.6, 1.3])
def test_blur_equals_scipy(sigma):
  image = _image()
  # All Gaussians are cut where the widest is: 3 * 1.3, rounded, is 4 pixels.
  expected = ndimage.gaussian_filter(
    image, (sigma, sigma, 0), mode='nearest', radius=4
  )
  np.testing.assert_allclose(
    colour.blur(image, sigma, 1.3), expected, atol=1e-6
  )


def test_noise_has_its_deviation_and_no_mean():
  image = np.full((64, 64, 3), 0.5, np.float32)
  noise = [_changed(image, seed, noise=0.05) - 0.5 for seed in range(12)]
  deviations = [x.std() for x in noise]
  # Deviations are uniform from 0 to .05; twelve draws spread over this range.
  assert 0.03 < max(deviations) <= 0.0505
  assert min(deviations) < 0.02
  # Five standard errors of the mean of 12,288 values.
  assert max(abs(x.mean()) for x in noise) < 5 * 0.05 / 12288**0.5


def test_hair_is_dark_thin_and_as_frequent_as_asked():
  image = np.full((96, 96, 3), 0.8, np.float32)
  drawn = jax.vmap(lambda key: colour.draw_hair(key, image, 0.5))(
    jax.random.split(jax.random.key(0), 200)
  )
  drawn = np.asarray(drawn)
  assert drawn.max() == np.float32(0.8)
  dark = (drawn[..., 0] < 0.5).mean(axis=(1, 2))
  # Four standard errors; some hairs lie outside the image.
  assert (dark > 0).mean() == pytest.approx(0.5, abs=0.15)
  assert 0.002 < dark[dark > 0].mean() < 0.1


def test_colour_leaves_masks_alone():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
  masks = rng.integers(0, 2, (3, 32, 32)).astype(np.uint8)
  run = lambda config: augmentation.augment(
    images, masks, jnp.int32(2), seed=0, config=config
  )
  strong = dataclasses.replace(_OFF, brightness=0.3, gamma=0.5, blur=1.0)
  (plain, masks_plain), (changed, masks_changed) = run(_OFF), run(strong)
  assert np.array_equal(masks_plain, masks_changed)
  assert not np.allclose(plain, changed)
  assert 0 <= changed.min() <= changed.max() <= 1
