"""Where the boxes and arrows of each network's picture are."""

from network_shapes import Features, Shapes
from picture_parts import Box, Sheet

_LEFT, _RIGHT = 112, 290  # Columns of a U without an encoder.
_ENCODER = 92  # Column of an encoder.
_ALL = (1, 2, 4, 8, 16, 32)


def _image(sheet: Sheet, x: float) -> Box:
  return sheet.box(x, sheet.shapes.inputs[''][0], 'image', width=30)


def _logits(sheet: Sheet, x: float, last: Box, entry: str, **options) -> Box:
  """The last box, with an arrow to it."""
  box = sheet.box(x, '', 'image', entry=entry, width=26)
  sheet.arrow(last, box, **options)
  return box


def _encoder(sheet: Sheet, x: float, *, deeper: float = 48) -> list[Box]:
  """The image, and what an encoder returns; equal sizes go to the right."""
  boxes = [_image(sheet, x)]
  for features in sheet.shapes.outputs['encoder'][1:]:
    above = boxes[-1]
    same = above.features.stride == features.stride
    place = above.x + deeper if same else above.x
    box = sheet.box(place, features, 'encoder', width=34)
    sheet.arrow(above, box, 'down', route='h' if same else 'v')
    boxes.append(box)
  first, last = boxes[1], boxes[-1]
  top = first.y - first.height / 2 - 5
  bottom = last.y + last.height / 2 + 5
  sheet.panel(x - 22, top, 44, bottom - top)
  if last.x > x:
    height = last.height + 10
    sheet.panel(x - 22, bottom - height, last.x - x + 44, height)
  return boxes


def _way_down(sheet: Sheet, paths: list[str], entries: list[str]) -> list[Box]:
  """The left side of a U without an encoder."""
  boxes = [_image(sheet, 66)]
  for path, entry in zip(paths, entries, strict=True):
    box = sheet.box(_LEFT, path, 'encoder', entry=entry)
    first = len(boxes) == 1
    kind, route = ('step', 'h') if first else ('down', 'v')
    sheet.arrow(boxes[-1], box, kind, route=route)
    boxes.append(box)
  return boxes[1:]


def unet(shapes: Shapes) -> Sheet:
  """The paper's U-Net."""
  sheet = Sheet(shapes, _ALL[:5])
  paths = [f'downs/{n}' for n in range(4)]
  skips = _way_down(sheet, paths, [f'{path}/conv1' for path in paths])
  x = sheet.box(200, 'bottleneck', 'encoder', entry='bottleneck/conv1')
  sheet.arrow(skips[-1], x, 'down', route='vh')
  for n, skip in enumerate(reversed(skips)):
    path = f'up_blocks/{n}'
    box = sheet.box(_RIGHT, path, join='concat', entry=f'{path}/conv1')
    sheet.arrow(skip, box, 'skip')
    sheet.arrow(x, box, 'up', route='v' if n else 'hv', via=f'ups/{n}')
    x = box
  _logits(sheet, 346, x, 'head')
  return sheet


def encoder_unet(shapes: Shapes) -> Sheet:
  """U-Net on an encoder."""
  sheet = Sheet(shapes, _ALL)
  *skips, x = _encoder(sheet, _ENCODER)[1:]
  for n, skip in enumerate([*reversed(skips), None]):
    path = f'decoder/blocks/{n}'
    join = 'concat' if skip else ''
    box = sheet.box(_RIGHT, path, join=join, entry=f'{path}/conv1/conv')
    if skip:
      sheet.arrow(skip, box, 'skip')
    sheet.arrow(x, box, 'up', route='v' if n else 'hv')
    x = box
  _logits(sheet, 346, x, 'segmentation_head/conv')
  return sheet


def attention_unet(shapes: Shapes) -> Sheet:
  """Attention U-Net."""
  sheet = Sheet(shapes, _ALL[:5])
  levels = ['level' + '/below' * n for n in range(4)]
  paths = ['first', *(f'{level}/down' for level in levels)]
  entries = [f'{path}/convs/0/conv' for path in paths]
  skips = _way_down(sheet, paths[:4], entries[:4])
  x = sheet.box(200, paths[4], 'encoder', entry=entries[4])
  sheet.arrow(skips[-1], x, 'down', route='vh')
  for level, skip in zip(reversed(levels), reversed(skips), strict=True):
    gate = sheet.box(200, f'{level}/gate', 'attention', text='gate', height=18)
    box = sheet.box(
      _RIGHT, f'{level}/merge', join='concat', entry=f'{level}/merge/conv'
    )
    lowest = x.x < _RIGHT
    sheet.arrow(skip, gate, 'skip')
    sheet.arrow(gate, box, 'skip')
    sheet.arrow(x, gate, 'gate', route='branch', at=_RIGHT, via=f'{level}/up')
    route = 'hv' if lowest else 'v'
    sheet.arrow(x, box, 'up', route=route, via=f'{level}/up')
    x = box
  _logits(sheet, 346, x, 'head')
  return sheet


def segnet(shapes: Shapes) -> Sheet:
  """SegNet."""
  sheet = Sheet(shapes, _ALL)
  paths = [f'downs/{n}' for n in range(5)]
  entries = [f'{path}/layers/0/conv' for path in paths]
  downs = _way_down(sheet, paths, entries)
  channels, stride = downs[-1].features
  x = sheet.box(200, Features(channels, 2 * stride), 'encoder')
  sheet.arrow(downs[-1], x, 'down', route='vh')
  for n, down in enumerate(reversed(downs)):
    path = f'ups/{n}'
    box = sheet.box(_RIGHT, path, entry=f'{path}/layers/0/conv')
    sheet.arrow(down, box, 'gate')
    sheet.arrow(x, box, 'up', route='v' if n else 'hv')
    x = box
  _logits(sheet, 346, x, 'head')
  return sheet


def resunetplusplus(shapes: Shapes) -> Sheet:
  """ResUNet++."""
  sheet = Sheet(shapes, _ALL[:4], gap=86)
  paths = ['stem', *(f'downs/{n}' for n in range(3))]
  entries = ['stem/conv', *(f'{path}/first/conv' for path in paths[1:])]
  *skips, deepest = _way_down(sheet, paths, entries)
  column = 252
  x = sheet.box(178, 'bridge', 'context', entry='bridge/convs/0')
  sheet.arrow(deepest, x)
  for n, skip in enumerate(reversed(skips)):
    path = f'ups/{n}'
    gate = sheet.box(
      column,
      f'{path}/attend',
      'attention',
      text='attention',
      y=(x.y + skip.y) / 2,
      width=62,
      height=18,
    )
    entry = f'{path}/block/first/conv'
    box = sheet.box(column, path, join='concat', entry=entry)
    sheet.arrow(x, gate, 'up', route='v' if n else 'hv')
    sheet.arrow(skip, gate, 'gate', route='drop', at=180)
    sheet.arrow(skip, box, 'skip')
    sheet.arrow(gate, box, 'up', route='v')
    x = box
  box = sheet.box(305, 'pyramid', 'context', entry='pyramid/convs/0')
  sheet.arrow(x, box)
  _logits(sheet, 352, box, 'head')
  return sheet


def unetplusplus(shapes: Shapes) -> Sheet:
  """UNet++: a triangle of nodes."""
  sheet = Sheet(shapes, _ALL)
  encoder = _encoder(sheet, 78)[1:]
  below = encoder[-1:]
  for level, features in enumerate(reversed(encoder[:-1])):
    row = [features]
    for column in range(level + 1):
      path = f'decoder/blocks/x_{level - column}_{level}'
      box = sheet.box(
        136 + 52 * column,
        path,
        join='concat',
        entry=f'{path}/conv1/conv',
        width=34,
      )
      sheet.arrow(below[column], box, 'up', route='d')
      for beside in row:
        near = beside is row[-1]
        sheet.arrow(beside, box, 'skip', route='h' if near else 'hidden')
      row.append(box)
    below = row
  path = 'decoder/blocks/x_0_4'
  box = sheet.box(318, path, entry=f'{path}/conv1/conv', width=30)
  sheet.arrow(below[-1], box, 'up', route='d')
  _logits(sheet, 356, box, 'segmentation_head/conv')
  return sheet


def fpn(shapes: Shapes) -> Sheet:
  """Feature pyramid network."""
  sheet = Sheet(shapes, _ALL)
  encoder = _encoder(sheet, _ENCODER)
  x, levels = None, []
  for n in (5, 4, 3, 2):
    path, join = f'decoder/p{n}', 'add' if x else ''
    entry, via = ('', f'{path}/skip_conv') if x else (path, '')
    box = sheet.box(172, path, 'context', join=join, entry=entry)
    sheet.arrow(encoder[n], box, 'skip', via=via)
    if x:
      sheet.arrow(x, box, 'up', route='v')
    x = box
    levels.append(box)
  total = sheet.box(318, 'decoder/seg_blocks/3', join='add')
  for n, level in enumerate(levels):
    path = f'decoder/seg_blocks/{n}/block/0'
    branch = sheet.box(240, path, entry=f'{path}/conv')
    sheet.arrow(level, branch)
    route = 'h' if branch.y == total.y else 'hvh'
    sheet.arrow(branch, total, route=route, at=284)
  _logits(sheet, 318, total, 'segmentation_head/conv', kind='up', route='v')
  return sheet


def manet(shapes: Shapes) -> Sheet:
  """MA-Net."""
  sheet = Sheet(shapes, _ALL, gap=72)
  encoder = _encoder(sheet, _ENCODER)[1:]
  *skips, deepest = encoder
  x = sheet.box(
    190,
    'decoder/center',
    'attention',
    entry='decoder/center/bottom_conv',
    text='positions',
    width=62,
  )
  sheet.arrow(deepest, x)
  for n, skip in enumerate(reversed(skips)):
    path = f'decoder/blocks/{n}'
    (wide,) = shapes.inputs[f'{path}/gate_above']
    gate = sheet.box(
      _RIGHT,
      wide,
      'attention',
      text='channels',
      y=(skip.y + x.y + (x.height - skip.height) / 2) / 2 + 1,
      width=60,
      height=16,
    )
    entry = f'{path}/conv1/conv'
    box = sheet.box(_RIGHT, path, join='concat', entry=entry)
    above = f'{path}/above/1'
    sheet.arrow(x, gate, 'up', route='v' if n else 'hv', via=above)
    sheet.arrow(skip, gate, 'gate', route='drop', at=210)
    sheet.arrow(skip, box, 'skip')
    sheet.arrow(gate, box, 'up', route='v')
    x = box
  path = 'decoder/blocks/4'
  box = sheet.box(_RIGHT, path, entry=f'{path}/conv1/conv')
  sheet.arrow(x, box, 'up', route='v')
  _logits(sheet, 346, box, 'segmentation_head/conv')
  return sheet


def linknet(shapes: Shapes) -> Sheet:
  """LinkNet."""
  sheet = Sheet(shapes, _ALL)
  *skips, x = _encoder(sheet, _ENCODER)[1:]
  for n, skip in enumerate([*reversed(skips), None]):
    path = f'decoder/blocks/{n}'
    box = sheet.box(_RIGHT, path, join='add' if skip else '')
    if skip:
      sheet.arrow(skip, box, 'skip')
    sheet.arrow(x, box, 'up', route='v' if n else 'hv', via=path)
    x = box
  _logits(sheet, 346, x, 'segmentation_head/conv')
  return sheet


def pspnet(shapes: Shapes) -> Sheet:
  """PSPNet."""
  sheet = Sheet(shapes, _ALL, gap=52, tall={8: 130})
  x = _encoder(sheet, _ENCODER)[-1]
  for n in (4, 5):
    features = Features(shapes.model.encoder.features[n], 2.0**n)
    sheet.box(_ENCODER, features, 'unused', width=34)
  joined = sheet.box(
    280, 'decoder/conv', join='concat', entry='decoder/conv/conv'
  )
  sheet.arrow(x, joined, 'skip')
  for n, offset in enumerate((-48, -20, 20, 48)):
    path = f'decoder/pools/{n}'
    size = shapes.model.decoder.pools[n].size
    channels = shapes.outputs[path][0].channels
    pool = sheet.box(
      182,
      path,
      'context',
      entry=f'{path}/conv',
      text=f'{size}×{size}: {channels}',
      y=x.y + offset,
      width=64,
      height=20,
    )
    sheet.arrow(x, pool, route='hvh', at=130)
    sheet.arrow(pool, joined, route='hvh', at=238)
  entry = 'segmentation_head/conv'
  _logits(sheet, 280, joined, entry, kind='up', route='v')
  return sheet


def fcn(shapes: Shapes) -> Sheet:
  """FCN on a dilated encoder."""
  sheet = Sheet(shapes, _ALL[:4])
  x = _encoder(sheet, _ENCODER, deeper=56)[-1]
  box = sheet.box(270, 'conv', entry='conv')
  sheet.arrow(x, box)
  _logits(sheet, 270, box, 'head', kind='up', route='v')
  return sheet


def _pyramid(sheet: Sheet, source: Box, x: float, path: str) -> Box:
  """Five branches, and what joins them; `x` is that of the branches."""
  pyramid = sheet.shapes.model
  for name in path.split('/'):
    pyramid = getattr(pyramid, name)
  join = sheet.box(
    x + 62,
    f'{path}/project',
    'context',
    join='concat',
    entry=f'{path}/project/conv',
    width=34,
  )
  for n, branch in enumerate(pyramid.convs):
    conv = branch.conv
    # A separable convolution dilates its first half.
    conv = getattr(conv, 'depthwise', conv)
    entry = f'{path}/convs/{n}/conv'
    if conv is not branch.conv:
      entry += '/depthwise'
    text = f'rate {conv.dilation}' if conv.dilation > 1 else '1×1'
    box = sheet.box(
      x,
      f'{path}/convs/{n}',
      'context',
      entry=entry,
      text='mean' if n == len(pyramid.convs) - 1 else text,
      y=source.y + 24 * (n - 2),
      width=48,
      height=19,
    )
    turn = source.x + 24
    sheet.arrow(source, box, route='h' if n == 2 else 'hvh', at=turn)
    sheet.arrow(box, join, route='h' if n == 2 else 'hvh', at=x + 32)
  return join


def deeplabv3(shapes: Shapes) -> Sheet:
  """DeepLabV3."""
  sheet = Sheet(shapes, _ALL[:4], tall={8: 134})
  source = _encoder(sheet, 76)[-1]
  x = _pyramid(sheet, source, 232, 'aspp')
  box = sheet.box(344, 'conv', entry='conv', width=34)
  sheet.arrow(x, box)
  _logits(sheet, 344, box, 'head', kind='up', route='v')
  return sheet


def deeplabv3plus(shapes: Shapes) -> Sheet:
  """DeepLabV3+."""
  sheet = Sheet(shapes, _ALL[:5], tall={16: 134})
  encoder = _encoder(sheet, 76)
  x = _pyramid(sheet, encoder[5], 190, 'decoder/pyramid')
  entry = 'decoder/conv/depthwise'
  deep = sheet.box(306, 'decoder/conv', entry=entry)
  sheet.arrow(x, deep)
  entry = 'decoder/skip/conv'
  skip = sheet.box(190, 'decoder/skip', entry=entry)
  sheet.arrow(encoder[2], skip, 'skip')
  entry = 'decoder/merge/conv/depthwise'
  box = sheet.box(306, 'decoder/merge', join='concat', entry=entry)
  sheet.arrow(skip, box, 'skip')
  sheet.arrow(deep, box, 'up', route='v')
  _logits(sheet, 306, box, 'segmentation_head/conv', kind='up', route='v')
  return sheet
