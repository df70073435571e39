"""What the pictures of networks are drawn of: boxes, arrows and a legend.

A box stands for features. Its row says how high and wide they are, the number
in it is that of their channels. Both come from a traced network.
"""

import dataclasses
import io
import itertools
from collections.abc import Sequence

import matplotlib
import matplotlib.figure
import matplotlib.patches
import network_shapes

# All lengths are in points. The width lets a phone show letters of 9 pixels.
WIDTH = 374
_FONT = 10.5
# Heights of the boxes by stride; a box is never lower than its text.
_HEIGHTS = {1: 40, 2: 34, 4: 29, 8: 25, 16: 21, 32: 18}
_BADGE = 6.5

# Fill and edge of boxes. All texts on them are almost black.
_BOXES = {
  'image': ('#ffffff', '#777777', 'image and logits'),
  'encoder': ('#cfe0f0', '#4a6f94', 'way down'),
  'decoder': ('#d5ead0', '#5b8a4e', 'way up'),
  'context': ('#e4daf0', '#7a5c9e', 'context'),
  'attention': ('#fbdfb8', '#b9762a', 'attention'),
  'unused': ('#ffffff', '#aaaaaa', 'not computed'),
}
# Colour and dashes of arrows.
_ARROWS = {
  'step': ('#444444', 'solid'),
  'down': ('#444444', 'solid'),
  'up': ('#3d7d2f', 'solid'),
  'skip': ('#2f6db5', (0, (4, 2))),
  'gate': ('#b9762a', (0, (1.2, 1.6))),
}
_JOINS = {'concat': 'C', 'add': '+', 'multiply': '×'}


@dataclasses.dataclass(eq=False)
class Box:
  """Features, or something that is done to them.

  Attributes:
    x: Centre.
    y: Centre, downwards from the top.
    features: Channels and stride of what it stands for.
    kind: A name in `_BOXES`.
    join: How several arrows become its input: a name in `_JOINS`, or empty.
    fan_in: Channels that its first convolution takes; None where unknown.
    text: Instead of the number of channels.
    width: Of the box.
    height: Of the box.
  """

  x: float
  y: float
  features: network_shapes.Features
  kind: str
  join: str
  fan_in: int | None
  text: str
  width: float
  height: float

  @property
  def label(self) -> str:
    """What is written in it."""
    return self.text or str(self.features.channels)


@dataclasses.dataclass(eq=False)
class Arrow:
  """Features on their way from box to box.

  Attributes:
    start: Where it starts.
    end: Where it ends.
    kind: A name in `_ARROWS`.
    channels: Of the features where they arrive.
    points: Corners of the line.
  """

  start: Box
  end: Box
  kind: str
  channels: int
  points: list[tuple[float, float]]


class Sheet:
  """A picture that boxes and arrows are put on."""

  def __init__(
    self,
    shapes: network_shapes.Shapes,
    strides: Sequence[int],
    *,
    gap: float = 58,
    tall: dict[int, float] | None = None,
  ):
    """Starts a picture.

    Args:
      shapes: The network that it shows.
      strides: Of its rows, from the top.
      gap: Height of a row.
      tall: Heights of other rows, by stride.
    """
    self.shapes = shapes
    heights = [(tall or {}).get(stride, gap) for stride in strides]
    ends = [*itertools.accumulate(heights)]
    bands = itertools.pairwise([0, *ends])
    self.bands = dict(zip(strides, bands, strict=True))
    self.rows = {s: (top + end) / 2 for s, (top, end) in self.bands.items()}
    self.boxes: list[Box] = []
    self.arrows: list[Arrow] = []
    self.panels: list[tuple[float, float, float, float]] = []

  def box(
    self,
    x: float,
    features: network_shapes.Features | str,
    kind: str = 'decoder',
    *,
    join: str = '',
    entry: str = '',
    text: str = '',
    y: float | None = None,
    width: float = 36,
    height: float | None = None,
  ) -> Box:
    """Adds a box.

    Args:
      x: Centre.
      features: Of what it stands for, or the path of the module that returns
        them.
      kind: A name in `_BOXES`.
      join: A name in `_JOINS`, or empty.
      entry: Path of its first convolution.
      text: Instead of the number of channels.
      y: Centre; the row of its features unless given.
      width: Of the box.
      height: Of the box; that of its row unless given.
    """
    if isinstance(features, str):
      (features,) = self.shapes.outputs[features]
    box = Box(
      x=x,
      y=self.rows[int(features.stride)] if y is None else y,
      features=features,
      kind=kind,
      join=join,
      fan_in=self.shapes.fan_in[entry] if entry else None,
      text=text,
      width=width,
      height=height or _HEIGHTS[int(features.stride)],
    )
    self.boxes.append(box)
    return box

  def arrow(
    self,
    start: Box,
    end: Box,
    kind: str = 'step',
    *,
    route: str = 'h',
    via: str = '',
    at: float = 0,
  ) -> Arrow:
    """Adds an arrow.

    Args:
      start: Where it starts.
      end: Where it ends.
      kind: A name in `_ARROWS`.
      route: 'h' or 'v' for a straight one, 'hv' or 'vh' for one corner, 'hvh'
        for two, 'd' for a slanted one; 'branch' and 'drop' leave another
        arrow, one that goes up and one that goes right; 'hidden'.
      via: Path of a module on the way that changes the channels.
      at: Where it turns, or where it leaves the other arrow.
    """
    channels = start.features.channels
    if via:
      channels = self.shapes.outputs[via][0].channels
    points = _route(start, end, route, at)
    self.arrows.append(Arrow(start, end, kind, channels, points))
    return self.arrows[-1]

  def panel(self, x: float, y: float, width: float, height: float) -> None:
    """Adds a background that says what belongs together."""
    self.panels.append((x, y, width, height))

  def svg(self, legend: dict[str, str], title: str) -> str:
    """The picture.

    Args:
      legend: What arrows and joins mean; names of boxes that differ.
      title: For readers that do not see it.
    """
    buffer = io.StringIO()
    settings = {'svg.hashsalt': 'skinseg_jax', 'svg.fonttype': 'path'}
    with matplotlib.rc_context(settings):
      self.figure(legend).savefig(
        buffer,
        format='svg',
        metadata={'Title': title, 'Date': None, 'Creator': None},
      )
    return '\n'.join(line.rstrip() for line in buffer.getvalue().splitlines())

  def figure(self, legend: dict[str, str]) -> matplotlib.figure.Figure:
    """Draws what was added."""
    bottom = max(end for _, end in self.bands.values())
    height = bottom + self._legend_height(legend)
    figure = matplotlib.figure.Figure((WIDTH / 72, height / 72), dpi=144)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis('off')
    self._draw_rows(axes)
    for x, y, w, h in self.panels:
      _rectangle(axes, x, y, w, h, '#e9f1f8', 'none', 6, zorder=1)
    for arrow in (arrow for arrow in self.arrows if arrow.points):
      _draw_line(axes, arrow.points, *_ARROWS[arrow.kind])
    for box in self.boxes:
      _draw_box(axes, box)
    self._draw_legend(axes, legend, bottom)
    return figure

  def _draw_rows(self, axes) -> None:
    for number, (stride, y) in enumerate(self.rows.items()):
      if number % 2 == 0:
        top, end = self.bands[stride]
        band = (0, top, WIDTH, end - top)
        _rectangle(axes, *band, '#f6f6f6', 'none', 0, zorder=0)
      name = '1' if stride == 1 else f'1/{stride}'
      _write(axes, 6, y - 7, name, ha='left', fontweight='bold')
      pixels = f'{network_shapes.IMAGE_SIZE // stride} px'
      _write(axes, 6, y + 7, pixels, ha='left', color='#555555')

  def _kinds(self) -> list[str]:
    used = {box.kind for box in self.boxes} - {'image'}
    return [kind for kind in _BOXES if kind in used]

  def _legend_height(self, legend: dict[str, str]) -> float:
    lines = len(legend.keys() - _BOXES) + (len(self._kinds()) + 1) // 2
    return 16 * lines + 12

  def _draw_legend(self, axes, legend: dict[str, str], top: float) -> None:
    y = top + 14
    for number, kind in enumerate(self._kinds()):
      fill, edge, meaning = _BOXES[kind]
      x = 12 + number % 2 * WIDTH / 2
      style = '--' if kind == 'unused' else '-'
      _rectangle(axes, x, y - 5, 20, 10, fill, edge, 2, linestyle=style)
      _write(axes, x + 28, y, legend.get(kind, meaning), ha='left')
      y += 16 if number % 2 or number == len(self._kinds()) - 1 else 0
    for kind, meaning in legend.items():
      if kind in _BOXES:
        continue
      if kind in _ARROWS:
        _draw_line(axes, [(10, y), (34, y)], *_ARROWS[kind])
      else:
        _draw_badge(axes, 22, y, _JOINS[kind])
      _write(axes, 40, y, meaning, ha='left')
      y += 16


def _route(start: Box, end: Box, route: str, at: float):
  """Corners of a line from the edge of one box to that of another."""
  away = 1 if end.x > start.x else -1
  down = 1 if end.y > start.y else -1
  side = start.x + away * start.width / 2
  # A badge sits on the side that arrows from the left arrive at.
  into = end.x - away * (end.width / 2 + (_BADGE if end.join else 0))
  foot = start.y + down * start.height / 2
  head = end.y - down * end.height / 2
  match route:
    case 'h':
      return [(side, start.y), (into, start.y)]
    case 'v':
      return [(start.x, foot), (start.x, head)]
    case 'hv':
      return [(side, start.y), (end.x, start.y), (end.x, head)]
    case 'vh':
      return [(start.x, foot), (start.x, end.y), (into, end.y)]
    case 'hvh':
      return [(side, start.y), (at, start.y), (at, end.y), (into, end.y)]
    case 'd':
      return [(start.x + away * start.width / 3, foot), (end.x, head)]
    case 'branch':
      middle = (start.y + end.y + down * (start.height - end.height) / 2) / 2
      return [(at, middle), (end.x, middle), (end.x, head)]
    case 'drop':
      return [(at, start.y), (at, end.y), (into, end.y)]
    case 'hidden':
      return []
  raise ValueError(f'unknown route {route!r}')


def _rectangle(axes, x, y, w, h, fill, edge, radius, **options):
  axes.add_patch(
    matplotlib.patches.FancyBboxPatch(
      (x, y),
      w,
      h,
      boxstyle=matplotlib.patches.BoxStyle.Round(pad=0, rounding_size=radius),
      facecolor=fill,
      edgecolor=edge,
      **{'linewidth': 1, 'zorder': 4, **options},
    )
  )


def _write(axes, x, y, text, **options):
  options = {'ha': 'center', 'color': '#1a1a1a', 'zorder': 6, **options}
  axes.text(x, y, text, va='center_baseline', fontsize=_FONT, **options)


def _draw_box(axes, box: Box) -> None:
  fill, edge, _ = _BOXES[box.kind]
  left, top = box.x - box.width / 2, box.y - box.height / 2
  style = '--' if box.kind == 'unused' else '-'
  _rectangle(
    axes, left, top, box.width, box.height, fill, edge, 3, linestyle=style
  )
  # Beside the badge.
  _write(axes, box.x + (4 if box.join else 0), box.y, box.label)
  if box.join:
    _draw_badge(axes, left, box.y, _JOINS[box.join])


def _draw_badge(axes, x, y, text) -> None:
  circle = matplotlib.patches.Circle(
    (x, y), _BADGE, facecolor='#ffffff', edgecolor='#444444', zorder=5
  )
  axes.add_patch(circle)
  axes.text(
    x, y, text, ha='center', va='center_baseline', fontsize=8.5, zorder=6
  )


def _draw_line(axes, points, colour, dashes) -> None:
  """A line with a head at its end."""
  (x0, y0), (x, y) = points[-2:]
  length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
  dx, dy = (x - x0) / length, (y - y0) / length
  xs, ys = zip(*points[:-1], (x - 4 * dx, y - 4 * dy), strict=True)
  axes.plot(xs, ys, color=colour, linestyle=dashes, linewidth=1.3, zorder=2)
  head = [
    (x, y),
    (x - 6 * dx - 3 * dy, y - 6 * dy + 3 * dx),
    (x - 6 * dx + 3 * dy, y - 6 * dy - 3 * dx),
  ]
  axes.add_patch(
    matplotlib.patches.Polygon(head, color=colour, linewidth=0, zorder=3)
  )
