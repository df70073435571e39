"""Generated dermoscopy-like images with exact masks: no files, no download.

Skin is a white ground seen through pigments, each of which dims red, green and
blue by its own factor (Beer-Lambert). A lesion is a star-shaped region with
more of them. Hair, gel bubbles, rulers, uneven light, a dark rim, blur and
noise come on top and leave the mask as it is. What a class looks like is made
up after descriptions of HAM10000's classes; no medical claim is meant.
"""

import dataclasses
import hashlib
import json
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from skinseg_jax import errors
from skinseg_jax.data import sources

# Raise it with any change of the arrays: caches are keyed by it.
_VERSION = 1

# Lengths are in half the shorter side of the image, from its centre.

# Colour of the ground, and how strongly a unit of each pigment dims it.
_GROUND = np.log([250, 235, 226])
_PIGMENTS = np.array([
  [0.50, 0.85, 1.10],  # Melanin near the surface: brown.
  [0.15, 0.85, 0.70],  # Blood: red.
  [1.05, 0.85, 0.60],  # Melanin deep in the skin: blue-grey.
], np.float32)  # fmt: skip


class _Class(NamedTuple):
  """What lesions of a class have in common; ranges are (lowest, highest)."""

  probability: float
  melanin: tuple[float, float]
  blood: tuple[float, float]
  deep: tuple[float, float]
  # How much the border departs from an ellipse, relative to the radius.
  irregularity: tuple[float, float]
  # How much pigment varies within, relative to its mean.
  variety: tuple[float, float]


_CLASSES = {
  'akiec': _Class(
    0.09, (0.1, 0.4), (0.5, 1.0), (0, 0.1), (0.2, 0.4), (0.3, 0.5)
  ),
  'bcc': _Class(
    0.12, (0.1, 0.5), (0.3, 0.8), (0.2, 0.7), (0.1, 0.4), (0.3, 0.6)
  ),
  'bkl': _Class(0.14, (0.5, 1.1), (0, 0.3), (0, 0.3), (0.1, 0.3), (0.2, 0.5)),
  'df': _Class(0.07, (0.5, 0.9), (0.1, 0.4), (0, 0.1), (0.05, 0.2), (0.2, 0.4)),
  'mel': _Class(0.15, (0.8, 1.8), (0, 0.5), (0.2, 0.9), (0.3, 0.6), (0.4, 0.7)),
  'nv': _Class(0.36, (0.5, 1.5), (0, 0.2), (0, 0.2), (0.05, 0.25), (0.1, 0.4)),
  'vasc': _Class(
    0.07, (0, 0.2), (1, 2.2), (0.1, 0.5), (0.05, 0.25), (0.1, 0.4)
  ),
}


class _Waves(NamedTuple):
  """A smooth random field: a sum of plane waves, of variance 1."""

  vectors: np.ndarray  # [count, (x, y)], in radians per unit of length.
  phases: np.ndarray
  amplitudes: np.ndarray

  @classmethod
  def draw(cls, rng, count: int, lowest: float, highest: float) -> '_Waves':
    """Waves with `lowest` to `highest` radians per unit of length."""
    frequency = np.exp(rng.uniform(np.log(lowest), np.log(highest), count))
    angle = rng.uniform(0, 2 * np.pi, count)
    amplitudes = frequency**-0.5
    return cls(
      frequency[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1),
      rng.uniform(0, 2 * np.pi, count),
      amplitudes * np.sqrt(2 / np.sum(amplitudes**2)),
    )

  def moved(self, turn: np.ndarray, center: np.ndarray) -> '_Waves':
    """The field whose value at p is this one's at turn @ (p - center)."""
    vectors = self.vectors @ turn
    return self._replace(vectors=vectors, phases=self.phases - vectors @ center)

  def values(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values, float32 [len(y), len(x)], at columns `x` and rows `y`."""
    columns = np.outer(self.vectors[:, 0], x).astype(np.float32)
    rows = np.outer(self.vectors[:, 1], y) + self.phases[:, None]
    rows, amplitudes = rows.astype(np.float32), self.amplitudes[:, None]
    scaled = amplitudes.astype(np.float32)
    # cos(a + b) makes a sum of outer products out of a sum of waves.
    return (scaled * np.cos(rows)).T @ np.cos(columns) - (
      scaled * np.sin(rows)
    ).T @ np.sin(columns)


@dataclasses.dataclass(frozen=True)
class _Lesion:
  """What stays the same when a lesion is photographed again."""

  dx: str
  # Share of a square image that it covers, about.
  area: float
  # Length over width.
  aspect: float
  # Border: radius(angle) = Re(sum_k harmonics[k] exp(i k angle)), mean 1.
  harmonics: np.ndarray
  # Width over which pigment fades at the border, relative to the radius.
  fading: float
  # Mean of each pigment in it, and how much they vary.
  levels: np.ndarray
  variety: float
  # How pronounced network and pale centre are, 0 to 1.
  network: float
  pale_center: float
  # Colour of the skin: its melanin (Fitzpatrick I to VI) and blood.
  skin: np.ndarray
  patches: list[_Waves]
  mesh: _Waves


def _draw_lesion(seed: int, number: int) -> _Lesion:
  rng = np.random.default_rng([seed, 0, number])
  names = list(_CLASSES)
  dx = rng.choice(names, p=[_CLASSES[name].probability for name in names])
  look = _CLASSES[dx]
  orders = np.arange(1, 13)
  sizes = rng.exponential(size=12) / orders ** rng.uniform(1, 2)
  # Below 1 in sum, so that the radius stays positive.
  sizes *= rng.uniform(*look.irregularity) / max(1, sizes[:3].sum())
  sizes *= min(1, 0.75 / sizes.sum())
  phases = np.exp(1j * rng.uniform(0, 2 * np.pi, size=12))
  fair = rng.random() < 0.75
  return _Lesion(
    dx=str(dx),
    area=float(np.clip(rng.lognormal(np.log(0.17), 0.6), 0.03, 0.42)),
    aspect=rng.uniform(1, 1.6),
    harmonics=np.concatenate([[1], sizes * phases]),
    fading=rng.uniform(0.05, 0.35),
    levels=np.array([
      rng.uniform(*look.melanin), rng.uniform(*look.blood),
      rng.uniform(*look.deep),
    ]),
    variety=rng.uniform(*look.variety),
    network=rng.uniform(0, 0.7) if dx in ('nv', 'mel', 'df') else 0.0,
    pale_center=rng.uniform(0.3, 0.7) if dx == 'df' else 0.0,
    skin=np.array([
      rng.uniform(0.02, 0.4) if fair else rng.uniform(0.4, 1.4),
      rng.uniform(0.1, 0.4), 0.0,
    ]),
    patches=[_Waves.draw(rng, 16, 2, 14) for _ in range(3)],
    mesh=_Waves.draw(rng, 24, 40, 60),
  )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _View:
  """One photograph of a lesion, other than hair and noise."""

  # Where the lesion's centre lies, (x, y).
  center: np.ndarray
  # Orientation in radians, and magnification.
  angle: float
  zoom: float
  # Logarithms: of the colour of white, and of the change of light along x, y.
  balance: np.ndarray
  slope: np.ndarray
  # Where a round dark rim begins, relative to half the diagonal; 0 for none.
  rim: float
  rim_width: float
  # Standard deviations of blur (of the shorter side) and noise (grey levels).
  blur: float
  noise: float
  patches: _Waves
  texture: _Waves


def _draw_view(rng: np.random.Generator) -> _View:
  centered = rng.random() < 0.8
  return _View(
    center=rng.normal(0, 0.13, 2) if centered else rng.uniform(-0.75, 0.75, 2),
    angle=rng.uniform(0, 2 * np.pi),
    zoom=rng.uniform(0.9, 1.15),
    balance=(_GROUND + rng.normal(0, 0.04, 3) + rng.normal(0, 0.08)).astype(
      np.float32
    ),
    slope=rng.normal(0, 0.08, 2),
    rim=rng.uniform(0.75, 0.95) if rng.random() < 0.35 else 0.0,
    rim_width=rng.uniform(0.01, 0.05),
    blur=rng.uniform(0.001, 0.004),
    noise=np.float32(rng.uniform(2, 9)),
    patches=_Waves.draw(rng, 12, 1, 6),
    texture=_Waves.draw(rng, 40, 15, 90),
  )


class _Grid(NamedTuple):
  """Pixel centres: columns [width] and rows [height]."""

  x: np.ndarray
  y: np.ndarray

  @classmethod
  def of(cls, size: tuple[int, int]) -> '_Grid':
    height, width = size
    shorter = min(size)
    return cls(
      (2 * np.arange(width) + 1 - width) / shorter,
      (2 * np.arange(height) + 1 - height) / shorter,
    )


def _place(lesion: _Lesion, view: _View) -> np.ndarray:
  """Matrix [2, 2] from offsets in the image to those in the lesion.

  There the border is at the distance radius(angle) from the centre.
  """
  cos, sin = np.cos(view.angle), np.sin(view.angle)
  stretch = np.sqrt(lesion.aspect)
  unit = view.zoom * np.sqrt(4 * lesion.area / np.pi)
  return np.array([
    [cos / stretch, -sin / stretch], [sin * stretch, cos * stretch]
  ]) / unit  # fmt: skip


def _depth(lesion: _Lesion, view: _View, grid: _Grid) -> np.ndarray:
  """Distance from the centre over the border's, float32 [height, width].

  The lesion is where it is below 1.
  """
  turn = _place(lesion, view)
  columns = (turn @ [[1], [0]]) * (grid.x - view.center[0])
  rows = (turn @ [[0], [1]]) * (grid.y - view.center[1])
  offset = (1j * columns[1] + columns[0]).astype(np.complex64) + (
    1j * rows[1] + rows[0]
  ).astype(np.complex64)[:, None]
  distance = np.maximum(np.abs(offset), np.float32(1e-6))
  direction = offset / distance
  # Horner's scheme for sum_k harmonics[k] direction**k.
  harmonics = lesion.harmonics.astype(np.complex64)
  radius = np.full_like(direction, harmonics[-1])
  for harmonic in harmonics[-2::-1]:
    radius *= direction
    radius += harmonic
  return distance / radius.real


def _pigments(
  lesion: _Lesion, view: _View, grid: _Grid, depth: np.ndarray
) -> np.ndarray:
  """Amount of each pigment at each pixel, float32 [3, height, width]."""
  texture = view.texture.values(grid.x, grid.y)
  uneven = view.patches.values(grid.x, grid.y)
  # Half of the pigment is gone a little within the border, as it looks there.
  fade = np.clip((1 + 0.5 * lesion.fading - depth) / (2 * lesion.fading), 0, 1)
  inside = fade * fade * (3 - 2 * fade)
  turn = _place(lesion, view) * np.sqrt(4 * lesion.area / np.pi)
  amounts = np.empty((3, *depth.shape), np.float32)
  for index, waves in enumerate(lesion.patches):
    amount = waves.moved(turn, view.center).values(grid.x, grid.y)
    amount *= lesion.variety
    amount += 1 + 0.1 * texture
    if index == 0 and lesion.pale_center:
      amount -= lesion.pale_center * np.exp(-6 * depth * depth)
    amounts[index] = inside * np.maximum(amount, 0.25) * lesion.levels[index]
  if lesion.network:
    lines = np.abs(lesion.mesh.moved(turn, view.center).values(grid.x, grid.y))
    amounts[0] *= 1 + lesion.network * (0.4 - np.minimum(lines, 1.2))
  amounts[0] += lesion.skin[0] * (1 + 0.15 * uneven) + 0.025 * texture
  amounts[1] += lesion.skin[1] * (1 + 0.25 * uneven - 0.15 * texture)
  return amounts


def _light(view: _View, grid: _Grid, depth: np.ndarray) -> np.ndarray:
  """Light that reaches each pixel, float32 [height, width]."""
  light = np.exp(view.slope[1] * grid.y)[:, None] * np.exp(
    view.slope[0] * grid.x
  )
  if view.rim:
    radius = np.hypot(grid.x, grid.y[:, None])
    edge = view.rim * np.hypot(grid.x[-1], grid.y[-1])
    # No dark rim where it would hide a part of the lesion.
    if not np.any((depth < 1) & (radius > edge)):
      light = light * np.clip(1 - (radius - edge) / view.rim_width, 0.03, 1)
  return light.astype(np.float32)


def _strokes(
  size: tuple[int, int], rng: np.random.Generator
) -> Image.Image | None:
  """Opacity of hair and ruler marks, or None where there are none."""
  height, width = (2 * n for n in size)
  num_hairs = int(rng.exponential(6)) if rng.random() < 0.5 else 0
  ruler = rng.random() < 0.08
  if not (num_hairs or ruler):
    return None
  layer = Image.new('L', (width, height))
  draw = ImageDraw.Draw(layer)
  shorter = min(width, height)
  thickness = rng.uniform(0.004, 0.011) * shorter
  grain = rng.uniform(0, np.pi)
  t = np.linspace(0, 1, 13)[:, None]
  for _ in range(num_hairs):
    start = rng.uniform(0, 1, 2) * (width, height)
    angle = grain + rng.normal(0, 0.5)
    length = rng.uniform(0.4, 1.6) * shorter
    end = start + length * np.array([np.cos(angle), np.sin(angle)])
    bend = (start + end) / 2 + rng.normal(0, 0.2, 2) * length
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    draw.line(
      points.ravel().tolist(),
      fill=int(rng.uniform(130, 250)),
      width=max(1, round(thickness * rng.uniform(0.7, 1.3))),
    )
  if ruler:
    gap = rng.uniform(0.05, 0.09) * shorter
    for number in range(int(width / gap)):
      x = (number + 0.5) * gap
      long = 0.07 if number % 5 == 0 else 0.04
      draw.line((x, height, x, height - long * shorter), 220, 2)
  return layer.reduce(2)


def _bubbles(
  size: tuple[int, int], rng: np.random.Generator
) -> Image.Image | None:
  """Opacity of the reflections of gel bubbles, or None."""
  if rng.random() > 0.2:
    return None
  height, width = (2 * n for n in size)
  layer = Image.new('L', (width, height))
  draw = ImageDraw.Draw(layer)
  for _ in range(rng.integers(1, 9)):
    x, y = rng.uniform(0, 1, 2) * (width, height)
    r = rng.uniform(0.01, 0.05) * min(width, height)
    start = rng.uniform(0, 360)
    draw.ellipse((x - r, y - r, x + r, y + r), outline=60, width=2)
    draw.arc((x - r, y - r, x + r, y + r), start, start + 80, 200, 2)
    dot = 0.25 * r
    x, y = x - 0.4 * r, y - 0.4 * r
    draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=220)
  return layer.reduce(2)


def _render(
  lesion: _Lesion,
  view: _View,
  size: tuple[int, int],
  rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
  """Draws the image [height, width, 3] and its mask [height, width]."""
  grid = _Grid.of(size)
  depth = _depth(lesion, view, grid)
  pigments = _pigments(lesion, view, grid, depth)
  dimming = np.tensordot(_PIGMENTS.T, pigments, 1)
  colors = np.exp(view.balance[:, None, None] - dimming)
  colors *= _light(view, grid, depth)
  colors += view.noise * rng.standard_normal(colors.shape, np.float32)
  planes = np.clip(colors, 0, 255, out=colors).astype(np.uint8)
  image = Image.merge('RGB', [Image.fromarray(plane) for plane in planes])
  if strokes := _strokes(size, rng):
    color = np.array([60, 45, 35]) * rng.uniform(0.3, 1.5)
    image.paste(tuple(color.astype(int).tolist()), mask=strokes)
  if bubbles := _bubbles(size, rng):
    image.paste((255, 250, 245), mask=bubbles)
  # Last, and so after the noise: a camera's noise is not that of one pixel.
  image = image.filter(ImageFilter.BoxBlur(view.blur * min(size)))
  return np.asarray(image), (depth < 1).astype(np.uint8)


class SyntheticSource:
  """Generated images; see `sources.Source`.

  Of four images in a row the last two show one lesion, so that splits by
  lesion mean something. An image depends on the seed, its index and the size
  alone.
  """

  name = 'synthetic'

  def __init__(self, num_images: int, size: tuple[int, int], seed: int):
    """Describes the images; each is drawn when it is read.

    Args:
      num_images: Number of images.
      size: Height and width in pixels.
      seed: Of all that is random; 0 or more.

    Raises:
      InputError: If the seed is negative.
    """
    if seed < 0:
      raise errors.InputError(
        f'data.seed is {seed}; synthetic images need 0 or more.'
      )
    self._size = size
    self._seed = seed
    self.image_ids = [f'synthetic_{i:06d}' for i in range(num_images)]
    self.metadata = [self._row(index) for index in range(num_images)]
    self.fingerprint = hashlib.sha256(
      json.dumps([self.name, _VERSION, num_images, list(size), seed]).encode()
    ).hexdigest()

  def _row(self, index: int) -> dict[str, str]:
    number = _lesion_number(index)
    return {
      'image_id': self.image_ids[index],
      'lesion_id': f'lesion_{number:06d}',
      'dx': _draw_lesion(self._seed, number).dx,
      'sex': '',
      'age': '',
      'localization': '',
    }

  def __len__(self) -> int:
    return len(self.image_ids)

  def __getitem__(self, index: int) -> sources.Example:
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} of {len(self)} images')
    rng = np.random.default_rng([self._seed, 1, index])
    lesion = _draw_lesion(self._seed, _lesion_number(index))
    image, mask = _render(lesion, _draw_view(rng), self._size, rng)
    return {'image_id': self.image_ids[index], 'image': image, 'mask': mask}


def _lesion_number(index: int) -> int:
  """Three lesions for each four images."""
  return index // 4 * 3 + min(index % 4, 2)
