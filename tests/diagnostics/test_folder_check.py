import pathlib
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from skinseg_jax import doctor
from skinseg_jax.runtime import errors


def _write(directory, count, invert):
  """Light pictures with a dark square off the centre, and masks of it."""
  for name in ('images', 'masks'):
    (directory / name).mkdir(parents=True)
  for number in range(count):
    mask = np.zeros((48, 64), np.uint8)
    mask[10 + number : 30 + number, 20:44] = 255
    image = np.where(mask[..., None], (90, 60, 50), (220, 180, 160))
    Image.fromarray(image.astype(np.uint8)).save(
      directory / 'images' / f'x{number}.png'
    )
    Image.fromarray(255 - mask if invert else mask).save(
      directory / 'masks' / f'x{number}.png'
    )
  return [
    '--images', str(directory / 'images'), '--masks', str(directory / 'masks')
  ]  # fmt: skip


def test_good_folder(tmp_path, capsys):
  sheet = tmp_path / 'sheet.png'
  argv = _write(tmp_path / 'set', 9, invert=False)
  doctor.main(['doctor', *argv, '--output', str(sheet)])
  out = capsys.readouterr().out
  assert 'nothing looks wrong' in out
  assert str(sheet) in out
  # Nine tiles in rows of six, each with a line of text below.
  with Image.open(sheet) as picture:
    assert picture.size == (6 * 224, 2 * 240)


def test_sheet_shows_where_the_mask_is(tmp_path):
  sheet = tmp_path / 'sheet.png'
  argv = _write(tmp_path / 'set', 1, invert=False)
  doctor.main(['doctor', *argv, '--output', str(sheet)])
  with Image.open(sheet) as file:
    picture = np.asarray(file)[:224]
  white = np.argwhere((picture == 255).all(axis=2))
  # Rows 10 to 29 of 48 and columns 20 to 43 of 64, at 224 px.
  np.testing.assert_allclose(
    [white.min(axis=0), white.max(axis=0)],
    [[10 / 48 * 224, 20 / 64 * 224], [30 / 48 * 224, 44 / 64 * 224]],
    atol=4,
  )


def test_inverted_folder_ends_with_a_warning(tmp_path, capsys):
  argv = _write(tmp_path / 'set', 9, invert=True)
  with pytest.raises(SystemExit) as end:
    doctor.main(['doctor', *argv, '--output', str(tmp_path / 'sheet.png')])
  assert end.value.code == 1
  out = capsys.readouterr().out
  assert 'WARNING: these masks look inverted: in 9 of 9 images' in out
  assert '--mask_invert' in out


def test_proposed_flag_works(tmp_path, capsys):
  argv = _write(tmp_path / 'set', 9, invert=True)
  output = ['--output', str(tmp_path / 'sheet.png')]
  doctor.main(['doctor', *argv, *output, '--mask_invert'])
  assert 'nothing looks wrong' in capsys.readouterr().out


def _contents(directory):
  return {
    path: path.read_bytes() for path in directory.rglob('*') if path.is_file()
  }


def _follow(error, argv):
  """Runs the command again with the flags that the message proposes."""
  flags = shlex.split(re.search(r'--output [^;]+(?=\.$)', str(error))[0])
  doctor.main(['doctor', *argv, *flags])
  return pathlib.Path(flags[1])


@pytest.mark.parametrize(
  'name', ['images/x0.png', 'masks/x0.png', 'images/a.png', 'link/b/c.png']
)
def test_sheet_is_not_written_among_the_inputs(tmp_path, name):
  argv = _write(tmp_path / 'set', 3, invert=False)
  (tmp_path / 'set' / 'masks' / 'b').mkdir()
  (tmp_path / 'set' / 'link').symlink_to(tmp_path / 'set' / 'masks')
  before = _contents(tmp_path)
  output = ['--output', str(tmp_path / 'set' / name)]
  with pytest.raises(errors.InputError, match='--output') as caught:
    doctor.main(['doctor', *argv, *output])
  assert _contents(tmp_path) == before
  sheet = _follow(caught.value, argv)
  assert _contents(tmp_path) == before | {sheet: sheet.read_bytes()}


def test_default_sheet_is_not_written_among_the_inputs(tmp_path, monkeypatch):
  _write(tmp_path / 'my set', 3, invert=False)
  monkeypatch.chdir(tmp_path / 'my set' / 'images')
  argv = ['--images', '.', '--masks', '../masks']
  before = _contents(tmp_path)
  for _ in range(2):
    with pytest.raises(errors.InputError, match='--output') as caught:
      doctor.main(['doctor', *argv])
    assert _contents(tmp_path / 'my set' / 'images').keys() < before.keys()
    _follow(caught.value, argv)


def test_sheet_is_not_written_over_the_target_of_an_input(tmp_path):
  argv = _write(tmp_path / 'set', 3, invert=False)
  target = tmp_path / 'elsewhere' / 'mask_check.png'
  target.parent.mkdir()
  (tmp_path / 'set' / 'images' / 'x0.png').rename(target)
  (tmp_path / 'set' / 'images' / 'x0.png').symlink_to(target)
  before = target.read_bytes()
  with pytest.raises(errors.InputError, match='--output') as caught:
    doctor.main(['doctor', *argv, '--output', str(target)])
  _follow(caught.value, argv)
  assert target.read_bytes() == before


def test_only_sheets_are_written_over(tmp_path, monkeypatch):
  argv = _write(tmp_path / 'set', 3, invert=False)
  monkeypatch.chdir(tmp_path)
  photo = tmp_path / 'photo.png'
  photo.write_bytes(b'of other data')
  with pytest.raises(errors.InputError, match='already there') as caught:
    doctor.main(['doctor', *argv, '--output', 'photo.png'])
  assert photo.read_bytes() == b'of other data'
  _follow(caught.value, argv)
  # Sheets of this version, and by their name those of the one before.
  (tmp_path / 'mask_check.png').write_bytes(b'old')
  for output in ('own.png', 'own.png', 'mask_check.png'):
    doctor.main(['doctor', *argv, '--output', output])
    with Image.open(output) as picture:
      assert picture.size == (3 * 224, 240)
  assert not list(tmp_path.rglob('*.tmp'))


def test_sheet_that_cannot_be_written(tmp_path):
  argv = _write(tmp_path / 'set', 3, invert=False)
  for output in (tmp_path, tmp_path / 'nowhere' / 'sheet.png'):
    with pytest.raises(errors.InputError, match='choose another --output'):
      doctor.main(['doctor', *argv, '--output', str(output)])
  assert not list(tmp_path.parent.glob('*.tmp'))


@pytest.mark.parametrize('flag', ['--data_dir', '--raw_dir'])
def test_flags_of_the_other_check_are_refused(tmp_path, flag):
  argv = _write(tmp_path / 'set', 1, invert=False)
  with pytest.raises(errors.InputError, match=f'{flag} is for the check of'):
    doctor.main(['doctor', *argv, flag, str(tmp_path)])
