"""Predictions from Python equal those of the command."""

import csv
import io
import pathlib
import re

import fake_model
import numpy as np
import pytest
from fake_images import random_image
from PIL import Image

import skinseg_jax
from skinseg_jax import predict
from skinseg_jax.inference import forward_pass, predictor
from skinseg_jax.measures import lesion
from skinseg_jax.runtime import errors

_PAGE = pathlib.Path(__file__).parents[2] / 'docs/how-to/use-in-python.md'


@pytest.fixture(scope='module')
def model(tiny_run):
  return skinseg_jax.load(tiny_run[0])


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  folder = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  for i, size in enumerate([(40, 50), (31, 17), (90, 60)]):
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f'{i}.png')
  return sorted(folder.iterdir())


def test_files_arrays_and_images_give_what_the_command_writes(
  model, tiny_run, photos, tmp_path
):
  predict.main(
    ['predict', f'--workdir={tiny_run[0]}', f'--input={photos[0].parent}',
     f'--output={tmp_path}'],
  )  # fmt: skip
  images = [Image.open(path) for path in photos]
  arrays = [np.asarray(image) for image in images]
  files = model.predict(photos)
  for same in (model.predict(images), model.predict(iter(arrays))):
    for a, b in zip(files, same, strict=True):
      np.testing.assert_array_equal(a.probability, b.probability)
  for path, found in zip(photos, files, strict=True):
    written = np.asarray(Image.open(tmp_path / path.name))
    np.testing.assert_array_equal(found.mask, written == 255)
    assert found.probability.dtype == np.float32
    np.testing.assert_array_equal(found.mask, found.probability > 0.5)
  with (tmp_path / 'predictions.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  for row, found in zip(rows, files, strict=True):
    assert (row['expected_dice'], found.expected_dice) == ('', None)
    assert row['needs_review'] == str(int(found.needs_review))
    assert row['reasons'] == '; '.join(found.reasons)


def test_one_picture_gives_one_prediction(model, photos):
  one, (first, *_) = model.predict(str(photos[0])), model.predict(photos)
  np.testing.assert_allclose(one.probability, first.probability, atol=1e-5)
  assert model.predict([]) == []


@pytest.mark.parametrize(
  ('count', 'sizes'),
  [(1, [1]), (2, [2]), (3, [4]), (33, [32, 1]), (37, [32, 8])],
)
def test_a_list_is_filled_up_to_a_power_of_two(
  monkeypatch, tmp_path, count, sizes
):
  made = fake_model.make(monkeypatch, tmp_path)
  seen = []
  forward = forward_pass.each_view

  def watch(graphdef, state, images, **views):
    seen.append(len(images))
    return forward(graphdef, state, images, **views)

  monkeypatch.setattr(forward_pass, 'each_view', watch)
  grey = np.full((8, 8), 20, np.uint8)
  found = predictor.Predictor(made).predict([grey] * count)
  assert seen == sizes
  assert all(one.mask.all() for one in found)
  assert len(found) == count


def test_grey_is_three_equal_channels(model):
  grey = random_image(40, 30)[..., 0]
  expected = model.predict(np.repeat(grey[..., None], 3, axis=2))
  found = model.predict(grey)
  np.testing.assert_array_equal(found.probability, expected.probability)


def test_orientation_is_applied(model, photos):
  image = Image.open(photos[2])
  assert model.predict(image).mask.shape == (90, 60)
  image.getexif()[0x0112] = 6  # A quarter turn.
  assert model.predict(image).mask.shape == (60, 90)


@pytest.mark.parametrize(
  'picture',
  [
    np.zeros((4, 4, 3)),
    np.zeros((4, 4, 4), np.uint8),
    np.zeros((1, 4, 4, 3), np.uint8),
    np.zeros((0, 5, 3), np.uint8),
    np.zeros((5, 0), np.uint8),
    Image.new('RGB', (5, 0)),
  ],
)
def test_other_arrays_are_refused(model, picture):
  with pytest.raises(errors.InputError, match='picture 0 is an array'):
    model.predict(picture)


@pytest.mark.parametrize('mode', ['I;16', 'I;16B'])
def test_16_bit_images_are_divided_by_257(model, mode):
  grey = random_image(40, 30)[..., 0]
  deep = Image.fromarray(grey.astype(np.uint16) * 257)
  assert deep.mode == 'I;16'
  if mode == 'I;16B':
    data = np.asarray(deep).astype('>u2').tobytes()
    deep = Image.frombytes(mode, deep.size, data)
  found, expected = model.predict(deep), model.predict(grey)
  np.testing.assert_array_equal(found.image, expected.image)


@pytest.mark.parametrize('mode', ['I', 'F'])
def test_32_bit_images_are_refused(model, mode):
  with pytest.raises(errors.InputError, match='picture 0: 32 bits a pixel'):
    model.predict(Image.new(mode, (5, 5)))


@pytest.mark.parametrize(
  'picture', [None, b'\xff\xd8\xff', 3, [[1, 2], [3, 4]]]
)
def test_what_is_no_picture_is_refused(model, picture):
  kind = 'list' if isinstance(picture, list) else type(picture).__name__
  with pytest.raises(errors.InputError, match=f'picture 0 is of type {kind}'):
    model.predict(picture)


def test_a_truncated_image_is_refused(model, photos):
  data = photos[0].read_bytes()
  image = Image.open(io.BytesIO(data[: len(data) // 2]))
  with pytest.raises(errors.InputError, match='picture 1: cannot be decoded'):
    model.predict([photos[0], image])


def test_measures_are_of_the_mask_at_the_picture_s_size(model, photos):
  picture = np.asarray(Image.open(photos[1]))
  found = model.predict(photos[1])
  np.testing.assert_array_equal(found.image, picture)
  expected = lesion.measure(picture, found.mask, (0.1, 0.2))
  assert found.measures((0.1, 0.2)) == expected
  assert expected.area_px == found.mask.sum()


def test_a_missing_file_is_named(model, tmp_path):
  with pytest.raises(errors.InputError, match=r'nothing\.jpg cannot be read'):
    model.predict(tmp_path / 'nothing.jpg')


def test_the_page_runs(tiny_run, photos, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'quickstart').symlink_to(tiny_run[0])
  Image.open(photos[0]).save('photo.jpg')
  names: dict = {}
  for block in re.findall(r'```python\n(.*?)```', _PAGE.read_text(), re.S):
    exec(block, names)
  lines = capsys.readouterr().out.splitlines()
  share, measures, expected_dice = [
    line for line in lines if not line.startswith('look at the mask: ')
  ]
  assert 0 <= float(share) <= 1
  assert len(measures.split()) == 2
  assert expected_dice == 'None'
  assert np.asarray(Image.open('mask.png')).shape == (300, 400)
