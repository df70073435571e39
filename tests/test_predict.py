"""Predicted masks: size, orientation, alignment; and errors for bad input."""

import io
import pathlib

import cv2
import fake_model
import numpy as np
import pytest
from PIL import ExifTags, Image

from skinseg_jax import config as config_lib
from skinseg_jax import predict
from skinseg_jax.inference import forward_pass, predictions, trained_model
from skinseg_jax.runtime import errors

# EXIF orientation, and how viewers turn the stored picture, in numpy.
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
  """A model for which dark is lesion; the command line loads it as well."""
  made = fake_model.make(monkeypatch, tmp_path / 'data', image_size=(64, 96))
  monkeypatch.setattr(trained_model, 'load', lambda *args: made)
  monkeypatch.setattr(config_lib, 'load', lambda path: made.config)
  return made


def _run(*flags):
  """Runs the program; returns its exit code."""
  argv = ['predict', '--workdir', 'run', *map(str, flags)]
  try:
    errors.exit_with_message(predict.main, argv)
  except SystemExit as end:
    return end.code
  return 0


def _end(capsys, *flags):
  assert _run(*flags) == 2
  message = capsys.readouterr().err
  assert message.count('error: ') == 1
  return message


def _picture(height, width):
  """A white picture with a dark rectangle off the centre, and its mask."""
  mask = np.zeros((height, width), np.uint8)
  mask[height // 5 : height // 2, width // 2 : width * 9 // 10] = 255
  image = np.where(mask[..., None] > 0, 20, 236)
  return np.repeat(image, 3, axis=2).astype(np.uint8), mask


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


def _read(path):
  with Image.open(path) as image:
    assert image.format == 'PNG'
    assert image.mode == 'L'
    mask = np.asarray(image)
  assert set(np.unique(mask)) <= {0, 255}
  return mask


@pytest.mark.parametrize(
  ('height', 'width'), [(450, 600), (17, 31), (31, 17), (3000, 4000)]
)
def test_size_and_alignment(model, tmp_path, height, width):
  Image.fromarray(_smooth(height, width)).save(
    tmp_path / 'x.png', compress_level=1
  )
  assert _run('--input', tmp_path / 'x.png', '--output', tmp_path / 'out') == 0
  mask = _read(tmp_path / 'out/x.png')
  assert mask.shape == (height, width)
  # The disc has its position in the picture, to half a pixel.
  off = _centre(mask) - [0.4 * height, 0.6 * width]
  assert np.abs(off).max() < 0.5, off
  area = np.pi * (0.25 * min(height, width)) ** 2
  assert np.count_nonzero(mask) == pytest.approx(area, rel=0.1)


def test_mask_equals_opencv_enlarging_the_probabilities(model, tmp_path):
  image = _smooth(450, 600)
  Image.fromarray(image).save(tmp_path / 'x.png')
  _run('--input', tmp_path / 'x.png', '--output', tmp_path / 'out')
  small = cv2.resize(image, (96, 64), interpolation=cv2.INTER_LINEAR)
  probability = fake_model.probabilities(small).astype(np.float32)
  expected = cv2.resize(probability, (600, 450), interpolation=cv2.INTER_LINEAR)
  mask = _read(tmp_path / 'out/x.png')
  # Only pixels at the threshold may differ: OpenCV's resizing of bytes
  # may be off by one grey level.
  unsure = np.abs(expected - 0.5) < 0.03
  assert np.array_equal((expected > 0.5)[~unsure], (mask > 0)[~unsure])
  assert unsure.mean() < 0.02


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'LA', '1', 'I;16'])
def test_kinds_of_files(model, tmp_path, mode):
  image, expected = _picture(64, 96)
  if mode == 'I;16':
    picture = Image.fromarray(image[..., 0].astype(np.uint16) * 257)
  elif mode == '1':  # Converting would scatter dots.
    picture = Image.fromarray(image[..., 0] > 128)
  else:
    picture = Image.fromarray(image).convert(mode)
  picture.save(tmp_path / 'x.png')
  assert _run('--input', tmp_path / 'x.png', '--output', tmp_path / 'out') == 0
  assert np.array_equal(_read(tmp_path / 'out/x.png'), expected)


@pytest.mark.parametrize('orientation', _EXIF)
def test_turned_pictures_are_predicted_upright(model, tmp_path, orientation):
  image, _ = _picture(120, 160)
  upright = _EXIF[orientation](image)
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  exif[ExifTags.Base.Make] = 'a camera'
  gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
  gps[ExifTags.GPS.GPSLatitude] = (1.0, 2.0, 3.0)
  Image.fromarray(image).save(tmp_path / 'x.jpg', quality=95, exif=exif)
  flags = ('--overlay', '--probability')
  out = tmp_path / 'out'
  assert _run('--input', tmp_path / 'x.jpg', '--output', out, *flags) == 0
  mask = _read(out / 'x.png')
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
  image, expected = _picture(64, 96)
  Image.fromarray(image).save(tmp_path / 'x.png')
  out = tmp_path / 'out'
  _run(
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
  monkeypatch.setattr(predictions, '_BATCH_SIZE', 4)
  shapes = []
  forward = forward_pass.forward

  def watch(graphdef, state, images, **views):
    shapes.append(images.shape)
    return forward(graphdef, state, images, **views)

  monkeypatch.setattr(forward_pass, 'forward', watch)
  (tmp_path / 'in').mkdir()
  for i in range(10):
    image = np.full((20 + i, 30, 3), 236, np.uint8)
    image[: 2 * i] = 20
    Image.fromarray(image).save(tmp_path / f'in/p{i}.png')
  assert _run('--input', tmp_path / 'in', '--output', tmp_path / 'out') == 0
  # The last batch is padded: one shape needs only one compilation.
  assert shapes == [(4, 64, 96, 3)] * 3
  for i in range(10):
    mask = _read(tmp_path / f'out/p{i}.png')
    assert mask.shape == (20 + i, 30)
    assert (mask[:, 0] > 0).sum() == pytest.approx(2 * i, abs=0.6)


def test_a_single_image_is_a_batch_of_one(model, tmp_path, monkeypatch):
  shapes = []
  forward = forward_pass.forward
  monkeypatch.setattr(
    forward_pass,
    'forward',
    lambda g, s, images, **views: (
      shapes.append(images.shape) or forward(g, s, images, **views)
    ),
  )
  Image.fromarray(_picture(20, 30)[0]).save(tmp_path / 'x.png')
  _run('--input', tmp_path / 'x.png', '--output', tmp_path / 'out')
  assert shapes == [(1, 64, 96, 3)]


def test_bad_files_are_named_and_skipped(model, tmp_path, capsys):
  (tmp_path / 'in').mkdir()
  good = io.BytesIO()
  Image.fromarray(_picture(30, 40)[0]).save(good, 'PNG')
  for name in ('a', 'd'):
    (tmp_path / f'in/{name}.png').write_bytes(good.getvalue())
  (tmp_path / 'in/b.jpg').write_bytes(b'\xff\xd8\xff no picture')
  (tmp_path / 'in/c.png').write_bytes(good.getvalue()[:60])
  (tmp_path / 'in/notes.txt').write_text('no image')
  (tmp_path / 'in/.hidden.png').write_bytes(b'')
  assert _run('--input', tmp_path / 'in', '--output', tmp_path / 'out') == 1
  written = capsys.readouterr()
  assert 'skipped 2 of 4 files' in written.err
  assert 'b.jpg' in written.err
  assert 'c.png' in written.err
  assert '2 masks' in written.out
  names = sorted(path.name for path in (tmp_path / 'out').iterdir())
  assert names == ['a.png', 'd.png']


def test_nothing_but_bad_files(model, tmp_path):
  (tmp_path / 'x.png').write_bytes(b'')
  assert _run('--input', tmp_path / 'x.png', '--output', tmp_path / 'out') == 1
  assert not list((tmp_path / 'out').iterdir())


def test_one_stem_twice_is_refused(model, tmp_path, capsys):
  image = Image.fromarray(_picture(30, 40)[0])
  image.save(tmp_path / 'x.png')
  image.save(tmp_path / 'x.jpg')
  message = _end(capsys, '--input', tmp_path, '--output', tmp_path / 'out')
  assert 'x.png: ' in message
  assert 'x.jpg' in message
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  'names',
  [
    ['p0/photo.jpg', 'p1/photo.jpg'],
    ['a.png', 'p0/b.jpg', 'p0/day1/c.tif'],
    ['site1/x.gif', 'site2/x.bmp', 'site2/y.webp'],
  ],
)
def test_the_tree_of_the_input_is_kept(model, tmp_path, names):
  for index, name in enumerate(names):
    path = tmp_path / 'in' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_picture(30 + index, 40)[0]).save(path)
  out = tmp_path / 'in' / 'masks'
  flags = ['--input', tmp_path / 'in', '--output', out, '--overlay']
  for _ in range(2):  # What the first run wrote is no input of the second.
    assert _run(*flags, '--overwrite') == 0
    for index, name in enumerate(names):
      path = pathlib.PurePath(name).with_suffix('.png')
      assert _read(out / path).shape == (30 + index, 40)
      assert (out / 'overlay' / path).exists()
    assert len(list(out.rglob('*.png'))) == 2 * len(names)


def test_files_given_alone_go_to_their_stem(model, tmp_path):
  (tmp_path / 'p0').mkdir()
  Image.fromarray(_picture(30, 40)[0]).save(tmp_path / 'p0/x.jpg')
  out = tmp_path / 'out'
  assert _run('--input', tmp_path / 'p0/x.jpg', '--output', out) == 0
  assert [path.name for path in out.iterdir()] == ['x.png']


@pytest.mark.parametrize('folders', [False, True])
def test_two_inputs_of_one_output_are_refused(model, tmp_path, capsys, folders):
  inputs = []
  for name in ('p0', 'p1'):
    (tmp_path / name).mkdir()
    path = tmp_path / name / 'photo.jpg'
    Image.fromarray(_picture(30, 40)[0]).save(path)
    inputs.append(path.parent if folders else path)
  out = tmp_path / 'out'
  message = _end(capsys, '--input', *inputs, '--output', out)
  assert f'{tmp_path}/p0/photo.jpg and {tmp_path}/p1/photo.jpg' in message
  assert f'{out}/photo.png' in message
  # The remedy: separate runs.
  for i, path in enumerate(inputs):
    assert _run('--input', path, '--output', f'{out}{i}') == 0
    assert _read(tmp_path / f'out{i}/photo.png').shape == (30, 40)


def test_a_folder_called_overlay(model, tmp_path, capsys):
  for name in ('x.jpg', 'overlay/x.jpg'):
    (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_picture(30, 40)[0]).save(tmp_path / 'in' / name)
  flags = ('--input', tmp_path / 'in', '--output', tmp_path / 'out')
  message = _end(capsys, *flags, '--overlay')
  assert 'overlay/x.png' in message
  assert _run(*flags) == 0


def test_what_is_left_out_or_first_is_said_once(model, tmp_path, capsys):
  (tmp_path / 'in').mkdir()
  pages = [Image.fromarray(_picture(30, 40)[0])] * 2
  pages[1] = Image.fromarray(255 - np.asarray(pages[0]))
  for name in ('multi.tif', 'anim.webp', 'anim2.gif'):
    pages[0].save(
      tmp_path / 'in' / name, save_all=True, append_images=pages[1:]
    )
  pages[0].save(tmp_path / 'in/multi_superpixels.png')
  flags = ('--input', tmp_path / 'in', '--output', tmp_path / 'out')
  assert _run(*flags) == 0
  out = capsys.readouterr().out
  assert '3 files hold several pictures; the first is used' in out
  assert out.count('1 *_superpixels files') == 1
  assert (_read(tmp_path / 'out/multi.png') > 0).sum() < 30 * 40 / 2


def _rotated(image, path, orientation=6):
  """A HEIC file as phones write it: stored on its side, with a rotation."""
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  heif = pytest.importorskip('pillow_heif').from_pillow(
    Image.fromarray(np.ascontiguousarray(np.rot90(image, 1)))
  )
  heif.save(path, quality=95, exif=exif.tobytes())


def _dicom(image, path):
  pydicom = pytest.importorskip('pydicom')
  meta = pydicom.dataset.FileMetaDataset()
  # VL Photographic Image Storage.
  meta.MediaStorageSOPClassUID = '1.2.840.10008.5.1.4.1.1.77.1.4'
  meta.MediaStorageSOPInstanceUID = '1.2.3'
  meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  file = pydicom.Dataset()
  file.file_meta = meta
  file.SOPClassUID = meta.MediaStorageSOPClassUID
  file.SOPInstanceUID = '1.2.3'
  file.Rows, file.Columns, file.SamplesPerPixel = image.shape
  file.PhotometricInterpretation, file.PlanarConfiguration = 'RGB', 0
  file.BitsAllocated = file.BitsStored = 8
  file.HighBit, file.PixelRepresentation = 7, 0
  file.PixelData = image.tobytes()
  file.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(
  ('name', 'save'), [('x.dcm', _dicom), ('x.heic', _rotated)]
)
def test_pictures_of_clinics_and_phones(model, tmp_path, name, save):
  image, _ = _picture(120, 160)
  save(image, tmp_path / name)
  out = tmp_path / 'out'
  assert _run('--input', tmp_path / name, '--output', out) == 0
  mask = _read(out / 'x.png')
  assert mask.shape == (120, 160)
  wrong = (mask > 0) != (image[..., 0] < 128)
  assert wrong.mean() < 0.02


def test_a_file_named_twice_is_one_input(model, tmp_path):
  Image.fromarray(_picture(30, 40)[0]).save(tmp_path / 'x.png')
  again = tmp_path / '.' / 'x.png'
  out = tmp_path / 'out'
  assert _run('--input', tmp_path / 'x.png', again, '--output', out) == 0


def test_inputs_are_never_written_over(model, tmp_path, capsys):
  image = Image.fromarray(_picture(30, 40)[0])
  (tmp_path / 'in').mkdir()
  image.save(tmp_path / 'in/x.png')
  before = (tmp_path / 'in/x.png').read_bytes()
  link = tmp_path / 'link'
  link.symlink_to(tmp_path / 'in')
  for output in (tmp_path / 'in', link):
    message = _end(
      capsys, '--input', tmp_path / 'in', '--output', output, '--overwrite'
    )
    assert 'over input images' in message
  assert (tmp_path / 'in/x.png').read_bytes() == before


def test_other_files_are_written_over_only_when_told(model, tmp_path, capsys):
  Image.fromarray(_picture(30, 40)[0]).save(tmp_path / 'x.jpg')
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out/x.png').write_bytes(b'a true mask')
  flags = ('--input', tmp_path / 'x.jpg', '--output', tmp_path / 'out')
  assert '--overwrite' in _end(capsys, *flags)
  assert (tmp_path / 'out/x.png').read_bytes() == b'a true mask'
  assert _run(*flags, '--overwrite') == 0
  assert _read(tmp_path / 'out/x.png').shape == (30, 40)


def test_missing_and_empty_inputs(model, tmp_path, capsys):
  (tmp_path / 'empty').mkdir()
  message = _end(
    capsys, '--input', tmp_path / 'empty', tmp_path / 'nowhere.png',
    '--output', tmp_path / 'out',
  )  # fmt: skip
  assert 'empty holds no image' in message
  assert 'nowhere.png does not exist' in message


def test_output_that_cannot_be_a_folder(model, tmp_path, capsys):
  Image.fromarray(_picture(30, 40)[0]).save(tmp_path / 'x.png')
  (tmp_path / 'file').write_text('')
  message = _end(
    capsys, '--input', tmp_path / 'x.png', '--output', tmp_path / 'file'
  )
  assert 'cannot write to' in message


def test_trained_run(tiny_run, tmp_path):
  # Nothing is faked here: size and weights come from the checkpoint.
  Image.fromarray(_picture(45, 60)[0]).save(tmp_path / 'x.png')
  predict.main(
    ['predict', '--workdir', str(tiny_run[0]), '--checkpoint', 'best',
     '--input', str(tmp_path / 'x.png'), '--output', str(tmp_path / 'out')]
  )  # fmt: skip
  assert _read(tmp_path / 'out/x.png').shape == (45, 60)


@pytest.mark.ham10000
def test_twenty_real_images(ham10000_dir, model, tmp_path):
  import zipfile

  (tmp_path / 'in').mkdir()
  with zipfile.ZipFile(ham10000_dir / 'HAM10000_images_part_1.zip') as file:
    names = [n for n in file.namelist() if n.endswith('.jpg')][:20]
    for name in names:
      target = tmp_path / 'in' / name.rpartition('/')[2]
      target.write_bytes(file.read(name))
  assert _run('--input', tmp_path / 'in', '--output', tmp_path / 'out') == 0
  for path in (tmp_path / 'in').iterdir():
    mask = _read(tmp_path / f'out/{path.stem}.png')
    assert mask.shape == (450, 600)
    grey = cv2.imread(str(path)).mean(axis=2)
    # Dark is lesion. Away from the threshold's grey value, mask and image agree
    # only if the mask is not turned.
    blurred = cv2.blur(grey, (15, 15))
    sure = np.abs(blurred - fake_model.MIDDLE) > 25
    if sure.any():
      agree = ((blurred < fake_model.MIDDLE) == (mask > 0))[sure].mean()
      assert agree > 0.98, path.name
