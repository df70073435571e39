"""Files that predict reads, refuses and writes."""

import errno
import os
import pathlib

import fake_model
import numpy as np
import predict_cases as cases
import pytest
from PIL import ExifTags, Image

from skinseg_jax.runtime import errors


@pytest.fixture
def model(monkeypatch, tmp_path):
  return cases.make_model(monkeypatch, tmp_path)


def test_one_stem_twice_is_refused(model, tmp_path, capsys):
  image = Image.fromarray(cases.picture(30, 40)[0])
  image.save(tmp_path / 'x.png')
  image.save(tmp_path / 'x.jpg')
  message = cases.end(capsys, '--input', tmp_path, '--output', tmp_path / 'out')
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
    Image.fromarray(cases.picture(30 + index, 40)[0]).save(path)
  out = tmp_path / 'in' / 'masks'
  flags = ['--input', tmp_path / 'in', '--output', out, '--overlay']
  for _ in range(2):  # What the first run wrote is no input of the second.
    assert cases.run(*flags, '--overwrite') == 0
    for index, name in enumerate(names):
      path = pathlib.PurePath(name).with_suffix('.png')
      assert cases.read(out / path).shape == (30 + index, 40)
      assert (out / 'overlay' / path).exists()
    assert len(list(out.rglob('*.png'))) == 2 * len(names)


def test_files_given_alone_go_to_their_stem(model, tmp_path):
  (tmp_path / 'p0').mkdir()
  Image.fromarray(cases.picture(30, 40)[0]).save(tmp_path / 'p0/x.jpg')
  out = tmp_path / 'out'
  assert cases.run('--input', tmp_path / 'p0/x.jpg', '--output', out) == 0
  assert [path.name for path in out.glob('*.png')] == ['x.png']


@pytest.mark.parametrize('folders', [False, True])
def test_two_inputs_of_one_output_are_refused(model, tmp_path, capsys, folders):
  inputs = []
  for name in ('p0', 'p1'):
    (tmp_path / name).mkdir()
    path = tmp_path / name / 'photo.jpg'
    Image.fromarray(cases.picture(30, 40)[0]).save(path)
    inputs.append(path.parent if folders else path)
  out = tmp_path / 'out'
  message = cases.end(capsys, '--input', *inputs, '--output', out)
  assert f'{tmp_path}/p0/photo.jpg and {tmp_path}/p1/photo.jpg' in message
  assert f'{out}/photo.png' in message
  # The remedy: separate runs.
  for i, path in enumerate(inputs):
    assert cases.run('--input', path, '--output', f'{out}{i}') == 0
    assert cases.read(tmp_path / f'out{i}/photo.png').shape == (30, 40)


@pytest.mark.parametrize('below', ['', 'new/masks'])
def test_nothing_is_written_into_a_shared_model(model, tmp_path, capsys, below):
  folders = [
    fake_model.shared_folder(tmp_path / name) for name in ('one', 'two')
  ]
  Image.fromarray(cases.picture(30, 40)[0]).save(tmp_path / 'x.jpg')
  flags = ('--input', tmp_path / 'x.jpg', '--workdir', *folders, '--output')
  message = cases.end(capsys, *flags, folders[1] / below)
  assert f'--output {folders[1] / below} is in the folder' in message
  for folder in folders:
    assert len(list(folder.rglob('*'))) == 2
  # The remedy: a folder outside of it, even one beside it of a similar name.
  assert cases.run(*flags, tmp_path / 'two_masks') == 0
  assert cases.read(tmp_path / 'two_masks/x.png').shape == (30, 40)


def test_a_folder_called_overlay(model, tmp_path, capsys):
  for name in ('x.jpg', 'overlay/x.jpg'):
    (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(cases.picture(30, 40)[0]).save(tmp_path / 'in' / name)
  flags = ('--input', tmp_path / 'in', '--output', tmp_path / 'out')
  message = cases.end(capsys, *flags, '--overlay')
  assert 'overlay/x.png' in message
  assert cases.run(*flags) == 0


def test_what_is_left_out_or_first_is_said_once(model, tmp_path, capsys):
  (tmp_path / 'in').mkdir()
  pages = [Image.fromarray(cases.picture(30, 40)[0])] * 2
  pages[1] = Image.fromarray(255 - np.asarray(pages[0]))
  for name in ('multi.tif', 'anim.webp', 'anim2.gif'):
    pages[0].save(
      tmp_path / 'in' / name, save_all=True, append_images=pages[1:]
    )
  pages[0].save(tmp_path / 'in/multi_superpixels.png')
  flags = ('--input', tmp_path / 'in', '--output', tmp_path / 'out')
  assert cases.run(*flags) == 0
  out = capsys.readouterr().out
  assert '3 files hold several pictures; the first is used' in out
  assert out.count('1 *_superpixels files') == 1
  assert (cases.read(tmp_path / 'out/multi.png') > 0).sum() < 30 * 40 / 2


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
  image, _ = cases.picture(120, 160)
  save(image, tmp_path / name)
  out = tmp_path / 'out'
  assert cases.run('--input', tmp_path / name, '--output', out) == 0
  mask = cases.read(out / 'x.png')
  assert mask.shape == (120, 160)
  wrong = (mask > 0) != (image[..., 0] < 128)
  assert wrong.mean() < 0.02


def test_a_file_named_twice_is_one_input(model, tmp_path):
  Image.fromarray(cases.picture(30, 40)[0]).save(tmp_path / 'x.png')
  again = tmp_path / '.' / 'x.png'
  out = tmp_path / 'out'
  assert cases.run('--input', tmp_path / 'x.png', again, '--output', out) == 0


def test_a_link_with_its_own_name_is_predicted_too(model, tmp_path):
  for name in ('p0', 'p1'):
    (tmp_path / 'in' / name).mkdir(parents=True)
  first, link = tmp_path / 'in/p0/x.png', tmp_path / 'in/p1/x.png'
  Image.fromarray(cases.picture(30, 40)[0]).save(first)
  link.symlink_to(first)
  out = tmp_path / 'out'
  # The folder twice, in two spellings: each picture is predicted once.
  flags = ('--input', tmp_path / 'in', tmp_path / 'in/p0/../', '--output', out)
  assert cases.run(*flags) == 0
  names = sorted(str(path.relative_to(out)) for path in out.rglob('*.png'))
  assert names == ['p0/x.png', 'p1/x.png']
  np.testing.assert_array_equal(
    cases.read(out / 'p0/x.png'), cases.read(out / 'p1/x.png')
  )


def test_inputs_are_never_written_over(model, tmp_path, capsys):
  image = Image.fromarray(cases.picture(30, 40)[0])
  (tmp_path / 'in').mkdir()
  image.save(tmp_path / 'in/x.png')
  before = (tmp_path / 'in/x.png').read_bytes()
  link = tmp_path / 'link'
  link.symlink_to(tmp_path / 'in')
  for output in (tmp_path / 'in', link):
    message = cases.end(
      capsys, '--input', tmp_path / 'in', '--output', output, '--overwrite'
    )
    assert 'over input images' in message
  assert (tmp_path / 'in/x.png').read_bytes() == before


def test_other_files_are_written_over_only_when_told(model, tmp_path, capsys):
  Image.fromarray(cases.picture(30, 40)[0]).save(tmp_path / 'x.jpg')
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out/x.png').write_bytes(b'a true mask')
  flags = ('--input', tmp_path / 'x.jpg', '--output', tmp_path / 'out')
  assert '--overwrite' in cases.end(capsys, *flags)
  assert (tmp_path / 'out/x.png').read_bytes() == b'a true mask'
  assert cases.run(*flags, '--overwrite') == 0
  assert cases.read(tmp_path / 'out/x.png').shape == (30, 40)


def test_missing_and_empty_inputs(model, tmp_path, capsys):
  (tmp_path / 'empty').mkdir()
  message = cases.end(
    capsys, '--input', tmp_path / 'empty', tmp_path / 'nowhere.png',
    '--output', tmp_path / 'out',
  )  # fmt: skip
  assert 'empty holds no image' in message
  assert 'nowhere.png does not exist' in message


def test_output_that_cannot_be_a_folder(model, tmp_path, capsys):
  Image.fromarray(cases.picture(30, 40)[0]).save(tmp_path / 'x.png')
  (tmp_path / 'file').write_text('')
  message = cases.end(
    capsys, '--input', tmp_path / 'x.png', '--output', tmp_path / 'file'
  )
  assert 'cannot write to' in message


def test_a_folder_that_cannot_be_read_is_not_called_the_output(
  model, tmp_path, capsys, monkeypatch
):
  source = tmp_path / 'in'
  source.mkdir()
  Image.fromarray(cases.picture(30, 40)[0]).save(source / 'x.png')
  scandir, calls = os.scandir, []

  def vanish(path):
    if pathlib.Path(path) == source:
      calls.append(path)
      if len(calls) > 2:  # The first walk asks twice.
        raise FileNotFoundError(errno.ENOENT, 'No such file', str(source))
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', vanish)
  message = cases.end(capsys, '--input', source, '--output', tmp_path / 'out')
  assert f'cannot read {source}: No such file' in message
  assert 'cannot write' not in message


@pytest.mark.parametrize(
  ('name', 'reads'),
  [
    (None, False),
    ('out', False),
    ('out/a/x.png.tmp', False),
    ('.', False),  # mkdir names the folder above that it could not make.
    ('in/x.png', True),
    ('output', True),
  ],
)
def test_an_error_of_the_system_names_what_failed(tmp_path, name, reads):
  file = None if name is None else str(tmp_path / name)
  error = PermissionError(errno.EACCES, 'Permission denied', file)
  found = str(errors.of_files(error, tmp_path / 'out', 'give another.'))
  start = f'read {file}' if reads else f'write to {tmp_path / "out"}'
  assert found.startswith(f'cannot {start}: Permission denied; ')
  assert found.endswith('give another.') != reads
