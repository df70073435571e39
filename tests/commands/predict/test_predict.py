"""Predicted masks: right size, right way up, aligned."""

import io

import cv2
import fake_model
import numpy as np
import predict_cases as cases
import pytest
from PIL import ExifTags, Image

from skinseg_jax import predict
from skinseg_jax.inference import forward_pass, predictor

_EXIF = {
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.transpose(1, 0, 2),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
  8: lambda x: np.rot90(x),
}


@pytest.fixture
def model(monkeypatch, tmp_path):
  return cases.make_model(monkeypatch, tmp_path)


def _smooth(height, width):
  """A dark disc with a wide soft border; grey 128 lies on a known circle."""
  y, x = np.mgrid[:height, :width] + 0.5
  # Off the centre, so that flips and rotations change the result.
  cy, cx, radius = 0.4 * height, 0.6 * width, 0.25 * min(height, width)
  distance = np.hypot(y - cy, x - cx)
  slope = 60 / radius
  grey = 128 + slope * (distance - radius)
  return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _centre(mask):
  return np.array([axis.mean() for axis in np.nonzero(mask)]) + 0.5


@pytest.mark.parametrize(
  ('height', 'width'), [(450, 600), (17, 31), (31, 17), (3000, 4000)]
)
def test_size_and_alignment(model, tmp_path, height, width):
  Image.fromarray(_smooth(height, width)).save(
    tmp_path / 'x.png', compress_level=1
  )
  assert (
    cases.run('--input', tmp_path / 'x.png', '--output', tmp_path / 'out') == 0
  )
  mask = cases.read(tmp_path / 'out/x.png')
  assert mask.shape == (height, width)
  # The disc has its position in the picture, to half a pixel.
  off = _centre(mask) - [0.4 * height, 0.6 * width]
  assert np.abs(off).max() < 0.5, off
  area = np.pi * (0.25 * min(height, width)) ** 2
  assert np.count_nonzero(mask) == pytest.approx(area, rel=0.1)


def test_mask_equals_opencv_enlarging_the_probabilities(model, tmp_path):
  image = _smooth(450, 600)
  Image.fromarray(image).save(tmp_path / 'x.png')
  cases.run('--input', tmp_path / 'x.png', '--output', tmp_path / 'out')
  small = cv2.resize(image, (96, 64), interpolation=cv2.INTER_LINEAR)
  probability = fake_model.probabilities(small).astype(np.float32)
  expected = cv2.resize(probability, (600, 450), interpolation=cv2.INTER_LINEAR)
  mask = cases.read(tmp_path / 'out/x.png')
  # Only pixels at the threshold may differ: OpenCV's resizing of bytes
  # may be off by one grey level.
  unsure = np.abs(expected - 0.5) < 0.03
  assert np.array_equal((expected > 0.5)[~unsure], (mask > 0)[~unsure])
  assert unsure.mean() < 0.02


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'LA', '1', 'I;16'])
def test_kinds_of_files(model, tmp_path, mode):
  image, expected = cases.picture(64, 96)
  if mode == 'I;16':
    picture = Image.fromarray(image[..., 0].astype(np.uint16) * 257)
  elif mode == '1':  # Converting would scatter dots.
    picture = Image.fromarray(image[..., 0] > 128)
  else:
    picture = Image.fromarray(image).convert(mode)
  picture.save(tmp_path / 'x.png')
  assert (
    cases.run('--input', tmp_path / 'x.png', '--output', tmp_path / 'out') == 0
  )
  assert np.array_equal(cases.read(tmp_path / 'out/x.png'), expected)


@pytest.mark.parametrize('orientation', _EXIF)
def test_turned_pictures_are_predicted_upright(model, tmp_path, orientation):
  image, _ = cases.picture(120, 160)
  upright = _EXIF[orientation](image)
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  exif[ExifTags.Base.Make] = 'a camera'
  gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
  gps[ExifTags.GPS.GPSLatitude] = (1.0, 2.0, 3.0)
  Image.fromarray(image).save(tmp_path / 'x.jpg', quality=95, exif=exif)
  flags = ('--overlay', '--probability')
  out = tmp_path / 'out'
  assert cases.run('--input', tmp_path / 'x.jpg', '--output', out, *flags) == 0
  mask = cases.read(out / 'x.png')
  assert mask.shape == upright.shape[:2]
  # The mask is right except where resizing blurs the border.
  wrong = (mask > 0) != (upright[..., 0] < 128)
  assert wrong.mean() < 0.02
  for path in (out / 'x.png', out / 'overlay/x.png', out / 'probability/x.png'):
    with Image.open(path) as written:
      assert not written.getexif()
      assert not written.info
      assert written.size == mask.shape[::-1]


def test_overlay_and_probability(model, tmp_path):
  image, expected = cases.picture(64, 96)
  Image.fromarray(image).save(tmp_path / 'x.png')
  out = tmp_path / 'out'
  cases.run(
    '--input', tmp_path / 'x.png', '--output', out,
    '--overlay', '--probability',
  )  # fmt: skip
  probability = np.asarray(Image.open(out / 'probability/x.png'))
  # Grey 20 has logit 108 / 16 = 6.75, so p = .99883, stored as round(254.7).
  # Grey 236 has the opposite logit, so 255 - 254.7.
  assert set(np.unique(probability[expected > 0])) == {255}
  assert set(np.unique(probability[expected == 0])) == {0}
  overlay = np.asarray(Image.open(out / 'overlay/x.png'))
  assert overlay.shape == image.shape
  # Away from the border: unchanged outside, a quarter sky blue inside.
  assert overlay[0, 0].tolist() == [236, 236, 236]
  assert overlay[20, 60].tolist() == [
    int(15 + 0.25 * c) for c in (86, 180, 233)
  ]


def test_batches_of_one_size_and_every_image_under_its_stem(
  model, tmp_path, monkeypatch
):
  monkeypatch.setattr(predictor, 'BATCH_SIZE', 4)
  shapes = []
  forward = forward_pass.each_view

  def watch(graphdef, state, images, **views):
    shapes.append(images.shape)
    return forward(graphdef, state, images, **views)

  monkeypatch.setattr(forward_pass, 'each_view', watch)
  (tmp_path / 'in').mkdir()
  for i in range(10):
    image = np.full((20 + i, 30, 3), 236, np.uint8)
    image[: 2 * i] = 20
    Image.fromarray(image).save(tmp_path / f'in/p{i}.png')
  assert (
    cases.run('--input', tmp_path / 'in', '--output', tmp_path / 'out') == 0
  )
  # The last batch is padded: one shape needs only one compilation.
  assert shapes == [(4, 64, 96, 3)] * 3
  for i in range(10):
    mask = cases.read(tmp_path / f'out/p{i}.png')
    assert mask.shape == (20 + i, 30)
    assert (mask[:, 0] > 0).sum() == pytest.approx(2 * i, abs=0.6)


def test_a_single_image_is_a_batch_of_one(model, tmp_path, monkeypatch):
  shapes = []
  forward = forward_pass.each_view
  monkeypatch.setattr(
    forward_pass,
    'each_view',
    lambda g, s, images, **views: (
      shapes.append(images.shape) or forward(g, s, images, **views)
    ),
  )
  Image.fromarray(cases.picture(20, 30)[0]).save(tmp_path / 'x.png')
  cases.run('--input', tmp_path / 'x.png', '--output', tmp_path / 'out')
  assert shapes == [(1, 64, 96, 3)]


def test_bad_files_are_named_and_skipped(model, tmp_path, capsys):
  (tmp_path / 'in').mkdir()
  good = io.BytesIO()
  Image.fromarray(cases.picture(30, 40)[0]).save(good, 'PNG')
  for name in ('a', 'd'):
    (tmp_path / f'in/{name}.png').write_bytes(good.getvalue())
  (tmp_path / 'in/b.jpg').write_bytes(b'\xff\xd8\xff no picture')
  (tmp_path / 'in/c.png').write_bytes(good.getvalue()[:60])
  (tmp_path / 'in/notes.txt').write_text('no image')
  (tmp_path / 'in/.hidden.png').write_bytes(b'')
  assert (
    cases.run('--input', tmp_path / 'in', '--output', tmp_path / 'out') == 3
  )
  written = capsys.readouterr()
  assert 'skipped 2 of 4 files' in written.err
  assert 'b.jpg' in written.err
  assert 'c.png' in written.err
  assert '2 masks' in written.out
  names = {path.name for path in (tmp_path / 'out').rglob('*.*')}
  names.discard('predictions.parquet')  # Where pyarrow is installed.
  assert names == {'a.png', 'd.png', 'predictions.csv', 'predictions.json'}


def test_nothing_but_bad_files(model, tmp_path):
  (tmp_path / 'x.png').write_bytes(b'')
  assert (
    cases.run('--input', tmp_path / 'x.png', '--output', tmp_path / 'out') == 3
  )
  assert not list((tmp_path / 'out').glob('*.png'))


def test_trained_run(tiny_run, tmp_path):
  # Nothing is faked here: size and weights come from the checkpoint.
  Image.fromarray(cases.picture(45, 60)[0]).save(tmp_path / 'x.png')
  predict.main(
    ['predict', '--workdir', str(tiny_run[0]), '--checkpoint', 'best',
     '--input', str(tmp_path / 'x.png'), '--output', str(tmp_path / 'out')]
  )  # fmt: skip
  assert cases.read(tmp_path / 'out/x.png').shape == (45, 60)


@pytest.mark.ham10000
def test_twenty_real_images(ham10000_dir, model, tmp_path):
  import zipfile

  (tmp_path / 'in').mkdir()
  with zipfile.ZipFile(ham10000_dir / 'HAM10000_images_part_1.zip') as file:
    names = [n for n in file.namelist() if n.endswith('.jpg')][:20]
    for name in names:
      target = tmp_path / 'in' / name.rpartition('/')[2]
      target.write_bytes(file.read(name))
  assert (
    cases.run('--input', tmp_path / 'in', '--output', tmp_path / 'out') == 0
  )
  for path in (tmp_path / 'in').iterdir():
    mask = cases.read(tmp_path / f'out/{path.stem}.png')
    assert mask.shape == (450, 600)
    grey = cv2.imread(str(path)).mean(axis=2)
    # Dark is lesion. Away from the threshold's grey value, mask and image agree
    # only if the mask is not turned.
    blurred = cv2.blur(grey, (15, 15))
    sure = np.abs(blurred - fake_model.MIDDLE) > 25
    if sure.any():
      agree = ((blurred < fake_model.MIDDLE) == (mask > 0))[sure].mean()
      assert agree > 0.98, path.name
