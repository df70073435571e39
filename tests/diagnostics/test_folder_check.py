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


@pytest.mark.parametrize('flag', ['--data_dir', '--raw_dir'])
def test_flags_of_the_other_check_are_refused(tmp_path, flag):
  argv = _write(tmp_path / 'set', 1, invert=False)
  with pytest.raises(errors.InputError, match=f'{flag} is for the check of'):
    doctor.main(['doctor', *argv, flag, str(tmp_path)])
