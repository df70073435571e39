"""Random changes of colour and sharpness, and random hair, on the device.

Brightness, contrast, saturation, hue and light are each an affine map of RGB.
They are composed first and applied once. Only the changes that the config
enables are computed.
"""

import jax
import jax.numpy as jnp
import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax.training import camera

# Weights of red, green and blue in grey, by ITU-R BT.601.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Most hairs in an image; range of their thickness, and their greatest length,
# as fractions of the image height.
_HAIRS = 6
_THICKNESS, _LENGTH = (0.004, 0.012), 1.2
_BROWN = np.array([1.0, 0.8, 0.65], np.float32)
# Each random draw folds its number into the image's key, so that draws are
# independent.
(
  _BRIGHTNESS,
  _CONTRAST,
  _SATURATION,
  _HUE,
  _LIGHT,
  _GAMMA,
  _BLUR,
  _NOISE,
  _HAIR,
  _VIGNETTE,
  _JPEG,
) = range(11)


def random_colour(
  key: jax.Array, image: jax.Array, config: config_lib.AugmentationConfig
) -> jax.Array:
  """Changes one image.

  In this order: hair, vignette, colour, gamma, blur, noise, JPEG.

  Args:
    key: Random key for this image and step.
    image: Float32 [H, W, 3] in [0, 1].
    config: Ranges; 0 disables a change.

  Returns:
    Float32 [H, W, 3] in [0, 1].
  """
  unchanged = image
  if config.hair:
    image = draw_hair(jax.random.fold_in(key, _HAIR), image, config.hair)
  if config.vignette:
    vignette_key = jax.random.fold_in(key, _VIGNETTE)
    image = camera.vignette(vignette_key, image, config.vignette)
  if _has_affine(config):
    matrix, offset = random_affine(key, image, config)
    image = apply_affine(image, matrix, offset)
  if config.gamma:
    image = jnp.clip(image, 0, 1)
    image **= (1 + config.gamma) ** _uniform(key, _GAMMA)
  if config.blur:
    blur_key = jax.random.fold_in(key, _BLUR)
    image = blur(image, config.blur * jax.random.uniform(blur_key), config.blur)
  if config.noise:
    deviation_key, noise_key = jax.random.split(jax.random.fold_in(key, _NOISE))
    deviation = config.noise * jax.random.uniform(deviation_key)
    image += deviation * jax.random.normal(noise_key, image.shape)
  if config.jpeg:
    jpeg_key = jax.random.fold_in(key, _JPEG)
    image = camera.random_jpeg(jpeg_key, image, config.jpeg)
  return image if image is unchanged else jnp.clip(image, 0, 1)


def random_affine(
  key: jax.Array, image: jax.Array, config: config_lib.AugmentationConfig
) -> tuple[jax.Array, jax.Array]:
  """Draws the RGB map of one image: x becomes matrix @ x + offset.

  Returns:
    Matrix [3, 3] and offset [3]. They combine, in this order, light, hue,
    saturation, contrast about the image's mean grey, and brightness.
  """
  matrix, offset = jnp.eye(3), jnp.zeros(3)
  if config.colour_constancy:
    light_key = jax.random.fold_in(key, _LIGHT)
    light = jax.random.uniform(light_key, (3,), minval=-1.0, maxval=1.0)
    matrix *= 1 + config.colour_constancy * light[:, None]
  if config.hue_degrees:
    turn = hue_turn(config.hue_degrees * _uniform(key, _HUE))
    matrix = jnp.matmul(turn, matrix, precision='highest')
  if config.saturation:
    factor = 1 + config.saturation * _uniform(key, _SATURATION)
    matrix = jnp.matmul(saturate(factor), matrix, precision='highest')
  if config.contrast:
    factor = 1 + config.contrast * _uniform(key, _CONTRAST)
    mean = jnp.sum(matrix * image.mean(axis=(0, 1))[None], axis=1)
    grey = jnp.sum(_LUMA * mean)
    matrix, offset = factor * matrix, offset + (1 - factor) * grey
  if config.brightness:
    offset += config.brightness * _uniform(key, _BRIGHTNESS)
  return matrix, offset


def hue_turn(degrees: jax.Array) -> jax.Array:
  """Matrix [3, 3] that rotates RGB about the grey axis (Rodrigues' formula)."""
  cos, sin = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
  axis = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.float32)
  cross = axis / np.sqrt(3)
  return (
    cos * jnp.eye(3) + sin * cross.astype(np.float32) + (1 - cos) / 3
  ).astype(jnp.float32)


def saturate(factor: jax.Array) -> jax.Array:
  """Matrix [3, 3] that scales a colour's distance from grey of equal luma."""
  grey = jnp.broadcast_to(_LUMA[None], (3, 3))
  return factor * jnp.eye(3) + (1 - factor) * grey


def apply_affine(
  image: jax.Array, matrix: jax.Array, offset: jax.Array
) -> jax.Array:
  """Maps each pixel x to matrix @ x + offset; image is [H, W, 3]."""
  # Elementwise, because a matrix product of three channels is slower.
  channels = [image[..., i, None] * matrix[:, i][None, None] for i in range(3)]
  return sum(channels, offset[None, None])


def blur(image: jax.Array, sigma: jax.Array, most: float) -> jax.Array:
  """Gaussian blur; edge pixels are repeated outwards (scipy's `nearest`).

  Args:
    image: Float32 [H, W, 3].
    sigma: Standard deviation in pixels; 0 changes nothing.
    most: Greatest possible `sigma`. Every Gaussian is cut at three times this
      value.
  """
  radius = int(3 * most + 0.5)
  offsets = jnp.arange(-radius, radius + 1)
  weights = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma, 1e-3)) ** 2)
  weights /= weights.sum()
  for axis in (0, 1):
    size = image.shape[axis]
    widths = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
    padded = jnp.pad(image, widths, mode='edge')
    image = sum(  # type: ignore[assignment]
      weights[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
      for i in range(2 * radius + 1)
    )
  return image


def draw_hair(
  key: jax.Array, image: jax.Array, probability: float
) -> jax.Array:
  """Draws dark curved lines over an image, or none.

  Args:
    key: Random key for this draw.
    image: Float32 [H, W, 3] in [0, 1].
    probability: Probability that the image gets any hair.
  """
  height, width = image.shape[:2]
  draws = jax.random.uniform(key, (_HAIRS + 1, 7))
  any_hair = draws[-1, 0] < probability
  colour = (0.05 + 0.25 * draws[-1, 1]) * _BROWN
  cover = jnp.zeros((height, width))
  rows = jnp.arange(height)[:, None] / height
  columns = jnp.arange(width)[None] / height
  for row, column, angle, bend, thickness, length, there in draws[:-1]:
    down, right = jnp.sin(jnp.pi * angle), jnp.cos(jnp.pi * angle)
    y, x = rows - row, columns - column * width / height
    along, across = y * down + x * right, y * right - x * down
    # A parabola approximates a bent hair well enough.
    distance = jnp.abs(across - (bend - 0.5) * along**2)
    half = (_THICKNESS[0] + thickness * (_THICKNESS[1] - _THICKNESS[0])) / 2
    line = jnp.clip((half - distance) * height + 0.5, 0, 1)
    line *= (jnp.abs(along) < length * _LENGTH / 2) & (there < 0.7)
    cover = jnp.maximum(cover, line)
  cover = (0.85 * cover * any_hair)[..., None]
  return image * (1 - cover) + cover * colour[None, None]


def _has_affine(config: config_lib.AugmentationConfig) -> bool:
  return bool(
    config.brightness
    or config.contrast
    or config.saturation
    or config.hue_degrees
    or config.colour_constancy
  )


def _uniform(key: jax.Array, draw: int) -> jax.Array:
  """A uniform number in [-1, 1) for the draw with this number."""
  return jax.random.uniform(
    jax.random.fold_in(key, draw), minval=-1.0, maxval=1.0
  )
