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

from skinseg_jax.data.sources import interface
from skinseg_jax.runtime import errors

# Raise it when the arrays change: it is part of the key of caches.
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


_CLASSES = {
  'akiec': _Class(0.09, (0.1, 0.4), (0.5, 1), (0, 0.1), (0.2, 0.4)),
  'bcc': _Class(0.12, (0.1, 0.5), (0.3, 0.8), (0.2, 0.7), (0.1, 0.4)),
  'bkl': _Class(0.14, (0.5, 1.1), (0, 0.3), (0, 0.3), (0.1, 0.3)),
  'df': _Class(0.07, (0.5, 0.9), (0.1, 0.4), (0, 0.1), (0.05, 0.2)),
  'mel': _Class(0.15, (0.8, 1.8), (0, 0.5), (0.2, 0.9), (0.3, 0.6)),
  'nv': _Class(0.36, (0.5, 1.5), (0, 0.2), (0, 0.2), (0.05, 0.25)),
  'vasc': _Class(0.07, (0, 0.2), (1, 2.2), (0.1, 0.5), (0.05, 0.25)),
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
    columns = np.outer(self.vectors[:, 0], x)
    rows = np.outer(self.vectors[:, 1], y) + self.phases[:, None]
    # cos(a + b) makes one product of matrices out of a sum of waves.
    left = self.amplitudes[:, None] * np.stack([np.cos(rows), -np.sin(rows)])
    right = np.stack([np.cos(columns), np.sin(columns)])
    left = left.reshape(-1, len(y)).T.astype(np.float32)
    right = right.reshape(-1, len(x)).astype(np.float32)
    # In slices that BLAS computes in one thread: several threads take longer,
    # and the readers already run in parallel.
    step = max(1, 200_000 // right.size)
    slices = [left[i : i + step] @ right for i in range(0, len(y), step)]
    return np.concatenate(slices)


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
  # Mean of each pigment in it, and how much they vary, relative to that.
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
  irregularity = rng.uniform(*look.irregularity)
  sizes = rng.exponential(size=12) / np.arange(1, 13) ** rng.uniform(1, 2)
  sizes *= irregularity / max(1, sizes[:3].sum())
  # Below 1 in sum, so that the radius stays positive.
  sizes *= min(1, 0.75 / sizes.sum())
  phases = np.exp(1j * rng.uniform(0, 2 * np.pi, size=12))
  darker = rng.uniform(0.4, 1) if rng.random() < 0.25 else 0.0
  return _Lesion(
    dx=str(dx),
    area=float(np.clip(rng.lognormal(np.log(0.17), 0.6), 0.03, 0.42)),
    aspect=rng.uniform(1, 1.6),
    harmonics=np.concatenate([[1], sizes * phases]),
    fading=rng.uniform(0.05, 0.35),
    levels=np.array(
      [rng.uniform(*span) for span in (look.melanin, look.blood, look.deep)]
    ),
    variety=rng.uniform(0.1, 0.3) + 0.6 * irregularity,
    network=rng.uniform(0, 0.7) if dx in ('nv', 'mel', 'df') else 0.0,
    pale_center=rng.uniform(0.3, 0.7) if dx == 'df' else 0.0,
    skin=np.array([rng.uniform(0.02, 0.4) + darker, rng.uniform(0.1, 0.4)]),
    patches=[_Waves.draw(rng, 16, 2, 14) for _ in range(3)],
    mesh=_Waves.draw(rng, 24, 40, 60),
  )


@dataclasses.dataclass(frozen=True)
class _View:
  """One photograph of a lesion, other than hair and noise."""

  # Where the lesion's centre lies, (x, y).
  center: np.ndarray
  # Orientation in radians, and magnification.
  angle: float
  zoom: float
  # Logarithms: of the colour of white, and of the change of light along x, y.
  white: np.ndarray
  slope: np.ndarray
  # Where a round dark rim begins, relative to half the diagonal; 0 for none.
  rim: float
  rim_width: float
  # Radius of the blur, relative to the shorter side, and standard deviation of
  # the noise before it, in grey levels.
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
    white=_GROUND + rng.normal(0, 0.04, 3) + rng.normal(0, 0.08),
    slope=rng.normal(0, 0.08, 2),
    rim=rng.uniform(0.75, 0.95) if rng.random() < 0.35 else 0.0,
    rim_width=rng.uniform(0.01, 0.05),
    blur=rng.uniform(0.001, 0.004),
    noise=rng.uniform(2, 9),
    patches=_Waves.draw(rng, 12, 1, 6),
    texture=_Waves.draw(rng, 40, 15, 90),
  )


class _Frame:
  """A lesion seen in a view, at the pixels of an image.

  Attributes:
    x: Columns of pixel centres, [width].
    y: Rows of pixel centres, [height].
    depth: Distance from the lesion's centre over that of its border, float32
      [height, width]; the lesion is where it is below 1.
  """

  def __init__(self, lesion: _Lesion, view: _View, size: tuple[int, int]):
    height, width = size
    self.x = (2 * np.arange(width) + 1 - width) / min(size)
    self.y = (2 * np.arange(height) + 1 - height) / min(size)
    self._center = view.center
    # From offsets in the image to those in the lesion, before it was turned
    # and stretched.
    cos, sin = np.cos(view.angle), np.sin(view.angle)
    stretch = np.sqrt(lesion.aspect) ** np.array([[-1], [1]])
    self._matrix = stretch * [[cos, -sin], [sin, cos]] / view.zoom
    self.depth = self._depth(lesion)

  def _depth(self, lesion: _Lesion) -> np.ndarray:
    unit = np.sqrt(4 * lesion.area / np.pi)
    across, down = (self._matrix / unit).T @ [1, 1j]
    across = (across * (self.x - self._center[0])).astype(np.complex64)
    down = (down * (self.y - self._center[1])).astype(np.complex64)
    offset = across + down[:, None]
    distance = np.maximum(np.abs(offset), np.float32(1e-6))
    direction = offset / distance
    # Horner's scheme for sum_k harmonics[k] direction**k.
    harmonics = lesion.harmonics.astype(np.complex64)
    radius = np.full_like(direction, harmonics[-1])
    for harmonic in harmonics[-2::-1]:
      radius *= direction
      radius += harmonic
    return distance / radius.real

  def of_image(self, waves: _Waves) -> np.ndarray:
    """Values of a field that is fixed to the image."""
    return waves.values(self.x, self.y)

  def of_lesion(self, waves: _Waves) -> np.ndarray:
    """Values of a field that turns and moves with the lesion."""
    return waves.moved(self._matrix, self._center).values(self.x, self.y)


def _pigments(lesion: _Lesion, view: _View, frame: _Frame) -> np.ndarray:
  """Amount of each pigment at each pixel, float32 [3, height, width]."""
  texture = frame.of_image(view.texture)
  uneven = frame.of_image(view.patches)
  # A tenth of the pigment is left at the border: there it seems to end.
  fade = (1 + 0.4 * lesion.fading - frame.depth) / (2 * lesion.fading)
  fade = np.clip(fade, 0, 1)
  inside = fade * fade * (3 - 2 * fade)
  amounts = np.empty((3, *fade.shape), np.float32)
  for index, waves in enumerate(lesion.patches):
    amount = 1 + lesion.variety * frame.of_lesion(waves) + 0.1 * texture
    if index == 0 and lesion.pale_center:
      amount -= lesion.pale_center * np.exp(-6 * frame.depth**2)
    amounts[index] = inside * np.maximum(amount, 0.25) * lesion.levels[index]
  if lesion.network:
    lines = np.minimum(np.abs(frame.of_lesion(lesion.mesh)), 1.2)
    amounts[0] *= 1 + lesion.network * (0.4 - lines)
  amounts[0] += lesion.skin[0] * (1 + 0.15 * uneven) + 0.025 * texture
  amounts[1] += lesion.skin[1] * (1 + 0.25 * uneven - 0.15 * texture)
  return amounts


def _light(view: _View, frame: _Frame) -> np.ndarray:
  """Light that reaches each pixel, float32 [height, width]."""
  x, y = frame.x, frame.y[:, None]
  light = np.exp(view.slope[0] * x) * np.exp(view.slope[1] * y)
  radius = np.hypot(x, y)
  edge = view.rim * np.hypot(x[-1], y[-1])
  # No dark rim where it would hide a part of the lesion.
  if view.rim and not np.any((frame.depth < 1) & (radius > edge)):
    light *= np.clip(1 - (radius - edge) / view.rim_width, 0.03, 1)
  return light.astype(np.float32)


def _draw_hairs(canvas: Image.Image, rng: np.random.Generator) -> None:
  shorter = min(canvas.size)
  thickness = rng.uniform(0.004, 0.011) * shorter
  grain = rng.uniform(0, np.pi)
  t = np.linspace(0, 1, 13)[:, None]
  for _ in range(int(rng.exponential(6))):
    start = rng.uniform(0, canvas.size)
    angle = grain + rng.normal(0, 0.5)
    length = rng.uniform(0.4, 1.6) * shorter
    end = start + length * np.array([np.cos(angle), np.sin(angle)])
    bend = (start + end) / 2 + rng.normal(0, 0.2, 2) * length
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    ImageDraw.Draw(canvas).line(
      points.ravel().tolist(),
      fill=int(rng.uniform(130, 250)),
      width=max(1, round(thickness * rng.uniform(0.7, 1.3))),
    )


def _draw_ruler(canvas: Image.Image, rng: np.random.Generator) -> None:
  width, height = canvas.size
  gap = rng.uniform(0.05, 0.09) * min(canvas.size)
  for number, x in enumerate(np.arange(gap / 2, width, gap)):
    length = (0.07 if number % 5 == 0 else 0.04) * min(canvas.size)
    ImageDraw.Draw(canvas).line((x, height, x, height - length), 220, 2)


def _draw_bubbles(canvas: Image.Image, rng: np.random.Generator) -> None:
  draw = ImageDraw.Draw(canvas)
  for _ in range(rng.integers(1, 9)):
    x, y = rng.uniform(0, canvas.size)
    r = rng.uniform(0.01, 0.05) * min(canvas.size)
    box = (x - r, y - r, x + r, y + r)
    draw.ellipse(box, outline=60, width=2)
    start = rng.uniform(0, 360)
    draw.arc(box, start, start + 80, 200, 2)
    draw.circle((x - 0.4 * r, y - 0.4 * r), 0.25 * r, fill=220)


def _paste(image: Image.Image, drawings, color, rng) -> None:
  """Blends in what each function draws, with smooth edges."""
  canvas = Image.new('L', (2 * image.width, 2 * image.height))
  for draw in drawings:
    draw(canvas, rng)
  image.paste(color, mask=canvas.reduce(2))


def _render(
  lesion: _Lesion, view: _View, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws the image [height, width, 3] and its mask [height, width]."""
  frame = _Frame(lesion, view, size)
  dimming = np.einsum('pc,phw->chw', _PIGMENTS, _pigments(lesion, view, frame))
  colors = np.exp(view.white.astype(np.float32)[:, None, None] - dimming)
  colors *= _light(view, frame)
  noise = rng.standard_normal(colors.shape, np.float32)
  colors += np.float32(view.noise) * noise
  planes = np.clip(colors, 0, 255, out=colors).astype(np.uint8)
  image = Image.merge('RGB', [Image.fromarray(plane) for plane in planes])
  odds = {_draw_hairs: 0.5, _draw_ruler: 0.08}
  if strokes := [draw for draw in odds if rng.random() < odds[draw]]:
    shade = rng.uniform(0.3, 1.5)
    _paste(image, strokes, tuple(int(shade * c) for c in (60, 45, 35)), rng)
  if rng.random() < 0.2:
    _paste(image, [_draw_bubbles], (255, 250, 245), rng)
  # Last, after the noise: the noise of a camera spans several pixels.
  image = image.filter(ImageFilter.BoxBlur(view.blur * min(size)))
  return np.array(image), (frame.depth < 1).astype(np.uint8)


class SyntheticSource:
  """Generated images; see `interface.Source`.

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
    shaping = json.dumps([self.name, _VERSION, num_images, list(size), seed])
    self.fingerprint = hashlib.sha256(shaping.encode()).hexdigest()

  def _row(self, index: int) -> dict[str, str]:
    number = _lesion_number(index)
    return {
      'image_id': self.image_ids[index],
      'lesion_id': f'lesion_{number:06d}',
      'dx': _draw_lesion(self._seed, number).dx,
      **dict.fromkeys(('sex', 'age', 'localization'), ''),
    }

  def __len__(self) -> int:
    return len(self.image_ids)

  def __getitem__(self, index: int) -> interface.Example:
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} of {len(self)} images')
    rng = np.random.default_rng([self._seed, 1, index])
    lesion = _draw_lesion(self._seed, _lesion_number(index))
    image, mask = _render(lesion, _draw_view(rng), self._size, rng)
    return {'image_id': self.image_ids[index], 'image': image, 'mask': mask}


def _lesion_number(index: int) -> int:
  """Three lesions for each four images."""
  return index // 4 * 3 + min(index % 4, 2)
