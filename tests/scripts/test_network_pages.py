"""The pictures and numbers of docs/reference/networks.md fit the networks."""

import json
import pathlib

import network_costs
import network_pictures
import network_shapes
import pytest
from matplotlib.backends import backend_agg

from skinseg_jax.models import build

_ROOT = pathlib.Path(__file__).parents[2]
_PAGE = _ROOT / 'docs' / 'reference' / 'networks.md'
_COSTS = _ROOT / 'docs' / 'benchmarks' / 'network_costs.json'
_PICTURES = _ROOT / 'docs' / 'pictures' / 'networks'
pictures = pytest.mark.parametrize('name', network_pictures.PICTURES)


@pytest.fixture(scope='module')
def sheets():
  """Every picture, drawn once."""
  made = {}
  return lambda name: made.setdefault(name, network_pictures.sheet(name))


def test_every_network_has_a_picture_and_the_page_shows_it():
  names = {p.architecture for p in network_pictures.PICTURES.values()}
  assert names == set(build.ARCHITECTURES)
  text = _PAGE.read_text()
  for name in network_pictures.PICTURES:
    assert f'](../pictures/networks/{name}.svg)' in text
  for name in build.ARCHITECTURES:
    assert f'| name | `{name}`' in text
  files = {path.stem for path in _PICTURES.iterdir()}
  assert files == set(network_pictures.PICTURES)


@pictures
def test_what_arrives_at_a_box_has_the_channels_that_it_takes(sheets, name):
  sheet = sheets(name)
  assert sheet.boxes
  for box in sheet.boxes:
    arrived = [
      arrow.channels
      for arrow in sheet.arrows
      if arrow.end is box and arrow.kind != 'gate'
    ]
    if box.kind == 'unused' or not arrived:
      assert box.kind in ('unused', 'image')
    elif box.join == 'concat':
      assert sum(arrived) == box.fan_in
      assert len(arrived) > 1
    elif box.join == 'add':
      assert set(arrived) == {box.features.channels}
      assert len(arrived) > 1
    else:
      assert len(arrived) == 1
      if box.fan_in is not None:
        assert arrived == [box.fan_in]


@pictures
def test_arrows_lead_where_their_kind_says(sheets, name):
  sheet = sheets(name)
  for arrow in sheet.arrows:
    start, end = arrow.start.features.stride, arrow.end.features.stride
    if arrow.kind == 'down':
      assert end in (start, 2 * start)
    elif arrow.kind == 'up':
      assert end <= start
    elif arrow.kind == 'skip':
      assert end == start
  # Everything but what is not computed leads to the logits.
  leading = {sheet.boxes[-1]} | {b for b in sheet.boxes if b.kind == 'unused'}
  logits = [
    b for b in sheet.boxes if b.kind == 'image' and b.features.channels == 1
  ]
  assert len(logits) == 1
  leading |= set(logits)
  while more := {a.start for a in sheet.arrows if a.end in leading} - leading:
    leading |= more
  assert leading == set(sheet.boxes)


def test_labels_of_known_networks(sheets):
  labels = lambda name, kind: [
    box.label for box in sheets(name).boxes if box.kind == kind
  ]
  # Ronneberger et al., figure 1.
  assert labels('unet', 'encoder') == ['64', '128', '256', '512', '1024']
  assert labels('unet', 'decoder') == ['512', '256', '128', '64']
  # EfficientNet-B0, table 1.
  lite = ['16', '24', '40', '112', '320']
  assert labels('fpn', 'encoder') == lite
  assert labels('fpn', 'context') == ['256'] * 4
  assert labels('pspnet', 'encoder') == lite[:3]
  assert labels('pspnet', 'unused') == lite[3:]
  rates = [label for label in labels('deeplabv3', 'context') if 'rate' in label]
  assert rates == ['rate 12', 'rate 24', 'rate 36']


@pictures
def test_pictures_in_the_repository_are_those_that_are_drawn(sheets, name):
  # Bytes depend on the version of matplotlib, so the labels are compared.
  picture = network_pictures.PICTURES[name]
  drawn = sheets(name).svg(picture.legend, 'title')
  labels = lambda text: [
    line.strip()
    for line in text.splitlines()
    if line.strip().startswith('<!--')
  ]
  assert labels(drawn)
  assert labels((_PICTURES / f'{name}.svg').read_text()) == labels(drawn)


def test_texts_do_not_leave_the_picture(sheets):
  for name, picture in network_pictures.PICTURES.items():
    figure = sheets(name).figure(picture.legend)
    (axes,) = figure.axes
    renderer = backend_agg.FigureCanvasAgg(figure).get_renderer()
    width, height = figure.bbox.size
    for text in axes.texts:
      box = text.get_window_extent(renderer)
      assert box.x0 >= 0, (name, text)
      assert box.x1 <= width, (name, text)
      assert box.y0 >= 0, (name, text)
      assert box.y1 <= height, (name, text)


@pytest.mark.parametrize(
  ('architecture', 'encoder', 'width', 'parameters', 'multiply_adds'),
  [
    # Of the twins, counted in PyTorch; multiply-adds in 10^9.
    ('unet', '', 16, 1_942_577, 2.32),
    ('unet', 'resnet34', 64, 24_436_369, 5.98),
    ('linknet', 'efficientnet_lite0', 64, 3_117_233, 0.39),
    ('manet', 'efficientnet_lite0', 64, 8_033_159, 2.05),
    ('deeplabv3plus', 'efficientnet_lite0', 64, 3_858_769, 1.08),
    ('attention_unet', '', 16, 1_987_705, 2.04),
    ('resunetplusplus', '', 16, 4_062_993, 12.00),
    ('pspnet', 'resnet34', 64, 21_437_985, 1.79),
  ],
)
def test_costs_are_those_of_the_twins(
  architecture, encoder, width, parameters, multiply_adds
):
  found = network_costs.costs(
    network_shapes.model_config(architecture, encoder, width)
  )
  assert found['parameters'] == parameters
  assert found['multiply_adds'] / 1e9 == pytest.approx(multiply_adds, abs=0.006)


def test_the_page_has_the_table_of_the_counted_costs():
  content = json.loads(_COSTS.read_text())
  assert content['image_size'] == network_shapes.IMAGE_SIZE
  measured = content['networks']
  fields = ('architecture', 'encoder', 'width')
  named = [{k: row[k] for k in fields if k in row} for row in measured]
  assert named == network_costs.rows()
  # The cheapest to trace; the others come from the same script.
  (small,) = (r for r in measured if r.get('encoder') == 'efficientnet_lite0'
              and r['architecture'] == 'pspnet')  # fmt: skip
  again = network_costs.costs(
    network_shapes.model_config('pspnet', 'efficientnet_lite0')
  )
  assert small == {**named[measured.index(small)], **again}
  assert network_costs.table(measured) in _PAGE.read_text()
