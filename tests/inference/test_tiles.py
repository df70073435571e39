"""Tiles cover a picture, add up to the whole, and keep its place."""

import fake_model
import jax
import numpy as np
import predict_cases as cases
import pytest
from PIL import Image

from skinseg_jax.data import preprocessing
from skinseg_jax.inference import predictions, predictor, tiles


@pytest.mark.parametrize(
  ('length', 'side'),
  [(1, 1), (31, 17), (64, 64), (100, 64), (4000, 224), (4001, 223), (5, 2)],
)
def test_tiles_cover_an_axis(length, side):
  starts = tiles.starts(length, side)
  assert starts[0] == 0
  assert starts[-1] == length - side
  steps = np.diff(starts)
  assert (steps > 0).all()
  # They overlap by a quarter, as far as whole pixels allow.
  assert (steps <= max(1, side * 3 // 4)).all()
  weights = tiles.weights(length, side)
  total = np.zeros(length)
  for start, weight in zip(starts, weights, strict=True):
    assert (weight > 0).all()
    total[start : start + side] += weight
  np.testing.assert_allclose(total, 1, atol=1e-6)


def test_starts_by_hand():
  # A step of 48 is rounded off to 32, at which a network of five halvings
  # begins; the last tile ends with the picture.
  assert tiles.starts(150, 64) == [0, 32, 64, 86]
  assert tiles.starts(20, 8) == [0, 6, 12]
  assert tiles.starts(64, 64) == [0]


def test_weights_by_hand():
  # Tiles of 4 pixels at 0 and 2: ramps .5 1.5 1.5 .5 overlap in two pixels.
  first, second = tiles.weights(6, 4)[:2]
  assert tiles.starts(6, 4) == [0, 2]
  np.testing.assert_allclose(first, [1, 1, 0.75, 0.25])
  np.testing.assert_allclose(second, [0.25, 0.75, 1, 1])


def blended(predict, image, tile, size):
  blend = tiles.Blend(image.shape[:2], tile)
  for index, part in enumerate(list(blend.cut(image))):
    assert part.shape == (*np.minimum(tile, image.shape[:2]), 3)
    blend.add(index, predict(preprocessing.resize_image(part, size)))
  assert not blend.missing
  return blend.probability


def smooth_image(height, width):
  y, x = np.mgrid[:height, :width]
  grey = 128 + 100 * np.sin(y / 17 + 0.2) * np.cos(x / 23)
  return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def test_a_network_of_small_view_gives_the_whole_picture():
  # Two convolutions that see 3 pixels to each side, padded with zeros as ours.
  keys = jax.random.split(jax.random.key(0), 2)
  kernels = [
    jax.random.normal(key, shape) * 0.3
    for key, shape in zip(keys, [(5, 5, 3, 4), (3, 3, 4, 1)], strict=True)
  ]

  @jax.jit
  def predict(images):
    x = images.astype(np.float32)[None] / 255
    for kernel in kernels:
      x = jax.lax.conv_general_dilated(
        jax.nn.relu(x), kernel, (1, 1), 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )  # fmt: skip
    return jax.nn.sigmoid(x[0, ..., 0])

  image = smooth_image(160, 224)
  whole = np.asarray(predict(image))
  found = blended(lambda x: np.asarray(predict(x)), image, (64, 64), (64, 64))
  near = np.zeros(whole.shape, bool)
  for axis, length in enumerate(whole.shape):
    for start in tiles.starts(length, 64):
      for seam in {start, start + 64} - {0, length}:
        near |= abs(np.indices(whole.shape)[axis] - seam + 0.5) < 3
  assert near.mean() < 0.5
  assert abs(found - whole)[~near].max() < 1e-4
  assert abs(found - whole)[near].max() > 1e-4  # The seams are not exact.


def test_a_trained_network_that_sees_all_of_the_picture(tiny_run):
  # Where one tile is the whole picture, nothing changes.
  import skinseg_jax

  model = skinseg_jax.load(tiny_run[0])._model
  predict = lambda part: predictor.answers(model, [[part]], 1)[0].probability
  image = smooth_image(32, 32)
  found = blended(predict, image, (500, 500), (32, 32))
  np.testing.assert_array_equal(found, predict(image))


@pytest.mark.parametrize('tile', [(40, 60), (100, 150), (33, 21)])
def test_resized_tiles_keep_the_place(tile):
  image = smooth_image(200, 300)
  expected = fake_model.probabilities(image)
  found = blended(
    lambda part: fake_model.probabilities(part).astype(np.float32),
    image, tile, (64, 96),
  )  # fmt: skip
  # Half a pixel would shift the steepest grey by half of 100 / 17, which is a
  # fifth of a logit: .046 in probability.
  assert abs(found - expected).max() < 0.03
  assert abs(np.mean((found - expected)[:, 40:80])) < 1e-3


def disc(height, width):
  """A dark disc off the centre, whose border is soft over half its radius."""
  y, x = np.ogrid[:height, :width]
  cy, cx, radius = 0.4 * height, 0.6 * width, 0.25 * min(height, width)
  distance = np.hypot(y + 0.5 - cy, x + 0.5 - cx).astype(np.float32)
  grey = 128 + 240 / radius * (distance - radius)
  return np.rint(grey.clip(68, 188)).astype(np.uint8), (cy, cx, radius)


@pytest.mark.parametrize(
  ('size', 'tile'),
  [
    ((31, 17), None), ((31, 17), 16), ((17, 31), None), ((450, 600), 100),
    ((450, 600), None), ((6000, 4000), None), ((4000, 6000), 1500),
  ],
)  # fmt: skip
def test_alignment_to_half_a_pixel(monkeypatch, tmp_path, size, tile):
  # A circle between pixels of the network is off by the square of their
  # distance, over eight radii: it needs a network of the usual size.
  network = (448, 448) if max(size) > 1000 else (64, 96)
  cases.make_model(monkeypatch, tmp_path, network)
  grey, (cy, cx, radius) = disc(*size)
  Image.fromarray(grey).save(tmp_path / 'x.bmp')
  flags = ['--tiles', tile] if tile else []
  out = tmp_path / 'out'
  assert cases.run('--input', tmp_path / 'x.bmp', '--output', out, *flags) == 0
  mask = cases.read(out / 'x.png') > 0
  assert mask.shape == size
  area = np.count_nonzero(mask)
  rows, columns = mask.sum(axis=1), mask.sum(axis=0)
  centre = [(n @ (np.arange(len(n)) + 0.5)) / area for n in (rows, columns)]
  assert abs(np.array(centre) - (cy, cx)).max() < 0.5
  # The border lies within half a pixel, too, or within one of the network's.
  coarse = 1 if tile else max(s / n for s, n in zip(size, network, strict=True))
  assert abs(np.sqrt(area / np.pi) - radius) < 0.5 * max(1, coarse)


def test_pictures_of_many_sizes_share_batches(monkeypatch, tmp_path):
  cases.make_model(monkeypatch, tmp_path)
  expected = {}
  (tmp_path / 'in').mkdir()
  for i, size in enumerate([(40, 40), (500, 90), (64, 96), (300, 301)]):
    image, _ = cases.picture(*size)
    Image.fromarray(image).save(tmp_path / f'in/{i}.png')
    expected[str(i)] = image[..., 0] < 128
  flags = ('--input', tmp_path / 'in', '--output', tmp_path / 'out')
  assert cases.run(*flags, '--tiles', '64') == 0
  for name, mask in expected.items():
    found = cases.read(tmp_path / f'out/{name}.png') > 0
    assert (found != mask).mean() < 0.03


def test_few_large_pictures_wait_for_one_batch(monkeypatch, tmp_path):
  cases.make_model(monkeypatch, tmp_path)
  (tmp_path / 'in').mkdir()
  for i in range(7):
    image, _ = cases.picture(50, 60)
    Image.fromarray(image).save(tmp_path / f'in/{i}.png')
  # Beyond two pictures of 3000 pixels: three wait, then the batch is predicted.
  monkeypatch.setattr(predictions, '_WAITING_PIXELS', 6000)
  batches = []
  answers = predictor.answers

  def watch(model, parts, batch_size, *, views):
    batches.append(len(parts))
    return answers(model, parts, batch_size, views=views)

  monkeypatch.setattr(predictor, 'answers', watch)
  flags = ('--input', tmp_path / 'in', '--output', tmp_path / 'out')
  assert cases.run(*flags, '--tiles', '64') == 0
  assert batches == [3, 3, 1]
  assert len(list((tmp_path / 'out').glob('*.png'))) == 7


def test_a_tile_needs_a_size(monkeypatch, tmp_path, capsys):
  cases.make_model(monkeypatch, tmp_path)
  for pixels in ('0', '-5', 'large'):
    flags = ('--input', tmp_path, '--output', tmp_path / 'out')
    assert cases.run(*flags, f'--tiles={pixels}') == 2
    assert 'no height in pixels; give 16 or more' in capsys.readouterr().err
