"""Every parameter of the classical methods, with the values in use.

Lengths are shares of the shorter side of the image, except the few in pixels,
whose names say so. `scripts/studies/classical.py` lists the fields whose values
it chose, at 128 px and on training images of HAM10000 only.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Light:
  """How the colour of the skin is fitted.

  Attributes:
    offset: Added to the values before the logarithm, which is steep near 0.
    side: Most rows and columns that the surface is fitted to.
    rounds: Fits; the pixels that look like skin are chosen again after each.
    outer: At the start, pixels farther from the centre than this are skin; 1 is
      the middle of a side.
    tail: So are pixels brighter than the middle of two quantiles of the
      brightness, this one and 1 minus this one.
    below: Largest distance of skin below the surface, in standard deviations.
    above: The same above the surface.
    floor: Smallest standard deviation, in logarithms.
    least: Smallest share of the pixels that are skin; with less, fitting ends.
  """

  offset: float = 8.0
  side: int = 64
  rounds: int = 4
  outer: float = 0.75
  tail: float = 0.02
  below: float = 1.5
  above: float = 3.0
  floor: float = 0.01
  least: float = 0.05


@dataclasses.dataclass(frozen=True)
class Corrections:
  """What is corrected before a lesion is looked for.

  Attributes:
    hair_width: Largest width of a dark line that counts as hair.
    hair_depth: Grey values by which it is darker than its surroundings.
    hair_length: Smallest extent of a hair.
    hair_rim_pixels: Width by which hair grows before it is painted over.
    hair_paint_pixels: Radius around a painted pixel whose colours count.
    corner_level: Largest value of red, green and blue in dark corners, which
      the tube of the dermatoscope leaves.
    corner_blur_pixels: Side of the Gaussian filter before; odd.
    corner_radius: Smallest distance of a dark corner from the centre; 1 is the
      middle of a side.
    corner_rim: Radius of the disc by which dark corners grow.
    illumination: Degree of the polynomial of row and column that describes the
      colour of the skin, 0 to 2; 0 leaves the illumination as it is.
    light: How that polynomial is fitted.
  """

  hair_width: float = 0.07
  hair_depth: int = 20
  hair_length: float = 0.12
  hair_rim_pixels: int = 1
  hair_paint_pixels: int = 3
  corner_level: int = 50
  corner_blur_pixels: int = 5
  corner_radius: float = 0.8
  corner_rim: float = 0.024
  illumination: int = 2
  light: Light = Light()


@dataclasses.dataclass(frozen=True)
class CleanUp:
  """How a rough mask becomes one region without holes.

  Attributes:
    opening: Radius of the disc that removes thin parts.
    closing: Radius of the disc that closes gaps.
    centre: Weight of the centre when one region is chosen: a pixel counts
      exp(-centre * r**2), and r is 1 at the middle of a side.
    growth: Radius of the disc by which the region grows at last, because
      experts draw the outline outside of what a threshold finds.
  """

  opening: float = 0.024
  closing: float = 0.024
  centre: float = 1.0
  growth: float = 0.016


@dataclasses.dataclass(frozen=True)
class Otsu:
  """Parameters of `otsu.segment`.

  Attributes:
    channel: 'grey', 'blue' or 'saturation'.
    place: Where the threshold lies between the skin (0) and Otsu's (1).
    blur: Standard deviation of the Gaussian blur of the channel.
    corrections: What is corrected first.
    clean_up: What makes one region of the pixels beyond the threshold.
  """

  channel: str = 'blue'
  place: float = 0.6
  blur: float = 0.008
  corrections: Corrections = Corrections()
  clean_up: CleanUp = CleanUp()


OTSU_SATURATION = Otsu(
  channel='saturation',
  place=0.7,
  corrections=Corrections(illumination=1),
  clean_up=CleanUp(centre=3.0),
)


@dataclasses.dataclass(frozen=True)
class Edges:
  """Parameters of `edges.segment`.

  Attributes:
    channel: 'grey', 'blue' or 'saturation'.
    blur: Standard deviation of the Gaussian blur within Canny's detector.
    low: Share of the pixels with a smaller gradient than the lower threshold.
    high: The same of the upper threshold.
    corrections: What is corrected first.
    clean_up: Its closing joins the edges; what they enclose is filled.
  """

  channel: str = 'grey'
  blur: float = 0.016
  low: float = 0.7
  high: float = 0.8
  corrections: Corrections = Corrections()
  clean_up: CleanUp = CleanUp(closing=0.05)


@dataclasses.dataclass(frozen=True)
class GrabCut:
  """Parameters of `grabcut.segment`.

  Attributes:
    seed: Otsu's threshold, which finds the probable lesion; its corrections are
      those of the whole method.
    margin: Width of the band at the edge of the image that is surely skin.
    rounds: Iterations of GrabCut.
    band: Width, to each side of the outline, in which K-means decides.
    kmeans_rounds: Most iterations of K-means.
    kmeans_change: It ends when the two mean colours move less than this.
    kmeans_starts: Random starts, of which the best counts.
    random_seed: Seed of OpenCV's random numbers.
    clean_up: What makes one region of the result.
  """

  seed: Otsu = OTSU_SATURATION
  margin: float = 0.02
  rounds: int = 1
  band: float = 0.015
  kmeans_rounds: int = 20
  kmeans_change: float = 0.5
  kmeans_starts: int = 3
  random_seed: int = 0
  clean_up: CleanUp = CleanUp(growth=0.024)


@dataclasses.dataclass(frozen=True)
class BeeColony:
  """Parameters of `bee_colony.segment`.

  Attributes:
    channel: 'grey', 'blue' or 'saturation'.
    thresholds: Number of thresholds, at least 1.
    lesion_classes: How many of the `thresholds` + 1 classes are lesion,
      counted from the most unlike skin; 1 to `thresholds`.
    smoothing: Radius of the disc of the morphological filter (a closing, then
      an opening) that removes noise from the channel.
    sources: Food sources, at least 2: as many employed bees, and as many
      onlookers.
    cycles: Rounds of employed, onlooker and scout bees.
    limit: Trials after which a source that did not improve is given up.
    random_seed: Seed of the bees.
    corrections: What is corrected first.
    clean_up: What makes one region of the classes of the lesion.
  """

  channel: str = 'blue'
  thresholds: int = 2
  lesion_classes: int = 2
  smoothing: float = 0.008
  sources: int = 20
  cycles: int = 100
  limit: int = 40
  random_seed: int = 0
  corrections: Corrections = Corrections()
  clean_up: CleanUp = CleanUp(growth=0.008)


Settings = Otsu | Edges | GrabCut | BeeColony

METHODS: dict[str, Settings] = {
  'otsu_grey': Otsu(channel='grey'),
  'otsu_blue': Otsu(),
  'otsu_saturation': OTSU_SATURATION,
  'edges': Edges(),
  'grabcut_kmeans': GrabCut(),
  'bee_colony': BeeColony(),
}
