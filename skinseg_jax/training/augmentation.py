"""Random changes of image and mask together, on the device.

One affine resampling does all of the geometry: bilinear for the image, nearest
pixel for the mask. Colour changes follow. The random draws depend only on the
seed, the step and the image's place in the global batch, so that one device
and eight see the same batch.
"""

import jax
import jax.numpy as jnp
import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax.training import colour

# Rotations by 90, 180 and 270 degrees, without rounding errors.
_QUARTER_TURNS = np.array(
  [[[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]], np.float32
)
# Each random draw folds its number into the image's key, so that draws are
# independent.
_QUARTER, _WHICH, _SCALE, _SHEAR, _TRANSLATION, _COLOUR = range(100, 106)


def rotation(degrees: jax.Array) -> jax.Array:
  """Matrix [2, 2] that rotates (row, column) offsets by `degrees`."""
  cos, sin = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
  return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])


def image_keys(seed: int, step: jax.Array, batch_size: int) -> jax.Array:
  """One key per image of the global batch: the same on 1 device and on 8."""
  step_key = jax.random.fold_in(jax.random.key(seed), step)
  return jax.vmap(jax.random.fold_in, (None, 0))(
    step_key, jnp.arange(batch_size)
  )


def random_matrix(
  key: jax.Array, config: config_lib.AugmentationConfig
) -> jax.Array:
  """Draws the linear map of one image.

  Returns:
    Matrix [2, 2] that maps an offset (row, column) from the centre of the
    output to the offset in the input: flips @ rotation @ shear @ scale @
    quarter turn.
  """
  angle_key, horizontal_key, vertical_key = jax.random.split(key, 3)
  degrees = config.rotation_degrees * jax.random.uniform(
    angle_key, minval=-1.0, maxval=1.0
  )
  flips = jnp.stack(
    [
      jax.random.bernoulli(vertical_key, config.vertical_flip),
      jax.random.bernoulli(horizontal_key, config.horizontal_flip),
    ]
  )
  matrix = rotation(degrees)
  product = lambda other: jnp.matmul(matrix, other, precision='highest')
  if config.shear_degrees:
    slope = jnp.tan(jnp.deg2rad(config.shear_degrees) * _uniform(key, _SHEAR))
    matrix = product(jnp.eye(2).at[1, 0].set(slope))
  if config.scale:
    matrix *= (1 + config.scale) ** _uniform(key, _SCALE)
  if config.quarter_turn:
    which = jax.random.randint(jax.random.fold_in(key, _WHICH), (), 0, 3)
    turned = jax.random.bernoulli(
      jax.random.fold_in(key, _QUARTER), config.quarter_turn
    )
    turn = jnp.asarray(_QUARTER_TURNS)[which]
    matrix = product(jnp.where(turned, turn, jnp.eye(2)))
  return matrix * jnp.where(flips, -1.0, 1.0)[None]


def random_shift(
  key: jax.Array, config: config_lib.AugmentationConfig
) -> jax.Array:
  """Draws the translation of one image, [2], as fractions of height, width."""
  if not config.translation:
    return jnp.zeros(2)
  return config.translation * jax.random.uniform(
    jax.random.fold_in(key, _TRANSLATION), (2,), minval=-1.0, maxval=1.0
  )


def _uniform(key: jax.Array, draw: int) -> jax.Array:
  """A uniform number in [-1, 1) for the draw with this number."""
  return jax.random.uniform(
    jax.random.fold_in(key, draw), minval=-1.0, maxval=1.0
  )


def resample(
  image: jax.Array,
  mask: jax.Array,
  matrix: jax.Array,
  shift: jax.Array,
  *,
  border: str,
) -> tuple[jax.Array, jax.Array]:
  """Resamples one image bilinearly and its mask by the nearest pixel.

  Args:
    image: uint8 [H, W, 3].
    mask: uint8 [H, W] in {0, 1}.
    matrix: [2, 2], see `random_matrix`; the centre is ((H-1)/2, (W-1)/2).
    shift: [2], see `random_shift`; where the output's centre lies in the input,
      relative to the centre of the input.
    border: 'mirror' reflects without repeating the edge (scipy's `mirror`,
      OpenCV's BORDER_REFLECT_101); 'constant' is 0 beyond the edge.

  Returns:
    Image, float32 [H, W, 3] in [0, 1], and mask, uint8 [H, W] in {0, 1}.
  """
  height, width = mask.shape
  centre = ((height - 1) / 2, (width - 1) / 2)
  rows, columns = (
    _source_coordinates(row, height, width, middle + side * share)
    for row, middle, side, share in zip(
      matrix, centre, mask.shape, shift, strict=True
    )
  )
  if border == 'mirror':
    rows, columns = _mirror(rows, height), _mirror(columns, width)
  return (
    _bilinear(image, rows, columns) / 255.0,
    _pick(mask, jnp.floor(rows + 0.5), jnp.floor(columns + 0.5)),
  )


def augment(
  images: jax.Array,
  masks: jax.Array,
  step: jax.Array,
  *,
  seed: int,
  config: config_lib.AugmentationConfig,
) -> tuple[jax.Array, jax.Array]:
  """Augments a global batch.

  Args:
    images: uint8 [B, H, W, 3].
    masks: uint8 [B, H, W] in {0, 1}.
    step: Number of updates before this one, an integer scalar.
    seed: Seed of the run.
    config: Ranges and probabilities.

  Returns:
    Images, float32 [B, H, W, 3] in [0, 1]; masks, uint8 [B, H, W] in {0, 1}.
  """

  def one(key, image, mask):
    image, mask = resample(
      image,
      mask,
      random_matrix(key, config),
      random_shift(key, config),
      border=config.border,
    )
    colour_key = jax.random.fold_in(key, _COLOUR)
    return colour.random_colour(colour_key, image, config), mask

  return jax.vmap(one)(image_keys(seed, step, len(images)), images, masks)


def _source_coordinates(matrix_row, height, width, centre) -> jax.Array:
  """Coordinate [H, W] in the input of each output pixel, along one axis."""
  row_offsets = jnp.arange(height) - (height - 1) / 2
  column_offsets = jnp.arange(width) - (width - 1) / 2
  return (
    matrix_row[0] * row_offsets[:, None]
    + matrix_row[1] * column_offsets[None, :]
    + centre
  )


def _mirror(coordinates: jax.Array, size: int) -> jax.Array:
  """Reflects coordinates at 0 and at size - 1 until they lie between them."""
  last = max(size - 1, 1)
  return last - jnp.abs(coordinates % (2 * last) - last)


def _pick(values: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
  """values[rows, columns], or 0 where the position lies outside."""
  height, width = values.shape[:2]
  inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
  rows = jnp.clip(rows, 0, height - 1).astype(jnp.int32)
  columns = jnp.clip(columns, 0, width - 1).astype(jnp.int32)
  # Gathering with one flat index is faster than with two.
  flat = jnp.asarray(values).reshape(height * width, *values.shape[2:])
  picked = flat.at[rows * width + columns].get(mode='promise_in_bounds')
  inside = inside.reshape(inside.shape + (1,) * (values.ndim - 2))
  return jnp.where(inside, picked, 0)


def _bilinear(image: jax.Array, rows: jax.Array, columns: jax.Array):
  """Bilinear interpolation, float32 in the image's own range."""
  row0, column0 = jnp.floor(rows), jnp.floor(columns)
  row_weight = (rows - row0)[..., None]
  column_weight = (columns - column0)[..., None]

  def blend(row):
    left = _pick(image, row, column0).astype(jnp.float32)
    right = _pick(image, row, column0 + 1).astype(jnp.float32)
    return left + column_weight * (right - left)

  top, bottom = blend(row0), blend(row0 + 1)
  return top + row_weight * (bottom - top)
