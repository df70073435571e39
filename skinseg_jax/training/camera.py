"""What a camera adds to an image: dark corners, and traces of JPEG."""

import jax
import jax.numpy as jnp
import numpy as np

# Of a vignette: the radius where it begins and the width of its edge, as shares
# of the half diagonal; the shift of its centre, as a share of each side; and
# how much of the light it takes away.
_RADIUS, _EDGE = (0.6, 0.95), (0.02, 0.3)
_SHIFT, _DARKNESS = 0.05, (0.3, 1.0)
_QUALITY = (25.0, 95.0)
# Tables K.1 and K.2 of ITU-T T.81, for luminance and chrominance.
_LUMINANCE = np.array([
  [16, 11, 10, 16, 24, 40, 51, 61],
  [12, 12, 14, 19, 26, 58, 60, 55],
  [14, 13, 16, 24, 40, 57, 69, 56],
  [14, 17, 22, 29, 51, 87, 80, 62],
  [18, 22, 37, 56, 68, 109, 103, 77],
  [24, 35, 55, 64, 81, 104, 113, 92],
  [49, 64, 78, 87, 103, 121, 120, 101],
  [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip
_CHROMINANCE = np.full((8, 8), 99)
_CHROMINANCE[:4, :4] = [
  [17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]
]  # fmt: skip
_TABLES = np.stack([_LUMINANCE, _CHROMINANCE, _CHROMINANCE], axis=-1)
# From RGB to luminance and both colour differences, by JFIF.
_TO_YCC = np.array(
  [
    [0.299, 0.587, 0.114],
    [-0.168735892, -0.331264108, 0.5],
    [0.5, -0.418687589, -0.081312411],
  ],
  np.float32,
)
# JPEG stores luminance less this.
_MIDDLE = np.array([[[128, 0, 0]]], np.float32)
_TO_RGB = np.linalg.inv(_TO_YCC.astype(np.float64)).astype(np.float32)


def _cosines() -> np.ndarray:
  """The orthonormal DCT-II of 8 values, [frequency, position]."""
  frequency, position = np.mgrid[:8, :8]
  basis = np.cos(np.pi * (2 * position + 1) * frequency / 16) / 2
  basis[0] /= np.sqrt(2)
  return basis.astype(np.float32)


_DCT = _cosines()


def vignette(key: jax.Array, image: jax.Array, probability: float) -> jax.Array:
  """Darkens what lies outside a circle, as the tube of a dermatoscope does.

  Args:
    key: Random key for this draw.
    image: Float32 [H, W, 3] in [0, 1].
    probability: Probability that the image gets one.
  """
  height, width = image.shape[:2]
  there, radius, edge, darkness, row, column = jax.random.uniform(key, (6,))
  y = jnp.arange(height) - (height - 1) / 2 - _between(row, _SHIFT) * height
  x = jnp.arange(width) - (width - 1) / 2 - _between(column, _SHIFT) * width
  distance = jnp.hypot(y[:, None], x[None]) / (np.hypot(height, width) / 2)
  radius, edge = _scaled(radius, _RADIUS), _scaled(edge, _EDGE)
  cover = jnp.clip((distance - radius) / edge, 0, 1)
  cover *= _scaled(darkness, _DARKNESS) * (there < probability)
  return image * (1 - cover[..., None])


def random_jpeg(
  key: jax.Array, image: jax.Array, probability: float
) -> jax.Array:
  """Compresses an image at a random quality, or not at all.

  Args:
    key: Random key for this draw.
    image: Float32 [H, W, 3] in [0, 1].
    probability: Probability that the image is compressed.
  """
  there, quality = jax.random.uniform(key, (2,))
  compressed = jpeg(image, jnp.round(_scaled(quality, _QUALITY)))
  return jnp.where(there < probability, compressed, image)


def jpeg(image: jax.Array, quality: jax.Array) -> jax.Array:
  """The image after baseline JPEG, all colours at full resolution.

  Args:
    image: Float32 [H, W, 3] in [0, 1].
    quality: 1 to 100, as the Independent JPEG Group counts it.
  """
  height, width = image.shape[:2]
  padding = [(0, -height % 8), (0, -width % 8), (0, 0)]
  pixels = jnp.round(jnp.pad(jnp.clip(image, 0, 1), padding, mode='edge') * 255)
  ycc = _per_pixel(pixels, _TO_YCC) - _MIDDLE
  rows, columns = ycc.shape[0] // 8, ycc.shape[1] // 8
  blocks = jnp.round(ycc).reshape(rows, 8, columns, 8, 3)
  scale = jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality)
  steps = jnp.clip(jnp.floor((_TABLES * scale + 50) / 100), 1, 255)
  waves = jnp.einsum('ui,aibjc,vj->aubvc', _DCT, blocks, _DCT)
  steps = steps[None, :, None]  # [1, 8, 1, 8, 3], beside the blocks.
  waves = jnp.round(waves / steps) * steps
  ycc = jnp.einsum('ui,aubvc,vj->aibjc', _DCT, waves, _DCT)
  ycc = jnp.round(ycc.reshape(pixels.shape)) + _MIDDLE
  rgb = jnp.clip(jnp.round(_per_pixel(ycc, _TO_RGB)), 0, 255)
  return rgb[:height, :width] / 255


def _per_pixel(image: jax.Array, matrix: np.ndarray) -> jax.Array:
  """Maps each pixel x of [H, W, 3] to matrix @ x."""
  # Elementwise, because a matrix product of three channels is slower.
  channels = [image[..., i, None] * matrix[:, i][None, None] for i in range(3)]
  return channels[0] + channels[1] + channels[2]


def _scaled(share: jax.Array, ends: tuple[float, float]) -> jax.Array:
  return ends[0] + share * (ends[1] - ends[0])


def _between(share: jax.Array, most: float) -> jax.Array:
  return _scaled(share, (-most, most))
