"""The command explain: sheets, page, and what it refuses."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from skinseg_jax import config as config_lib
from skinseg_jax import explain
from skinseg_jax.data.sources import synthetic
from skinseg_jax.models import build
from skinseg_jax.runtime import errors
from skinseg_jax.weights import model_folder


def _run(*flags):
  try:
    errors.exit_with_message(explain.main, ['explain', *map(str, flags)])
  except SystemExit as end:
    return end.code
  return 0


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A network with gates and random weights."""
  config = config_lib.Config()
  config.data.image_size = (32, 48)
  config.model.architecture, config.model.width = 'attention_unet', 2
  folder = tmp_path_factory.mktemp('model')
  model = build.create(config.model, seed=5)
  model_folder.write(folder, config, model, {'step': 7, 'environment': {}})
  return folder


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  folder = tmp_path_factory.mktemp('pictures')
  source = synthetic.SyntheticSource(num_images=2, size=(40, 60), seed=1)
  (folder / 'p0').mkdir()
  Image.fromarray(source[0]['image']).save(folder / 'p0' / 'x.png')
  Image.fromarray(source[1]['image']).save(folder / 'a&b.png')
  return folder


@pytest.fixture(scope='module')
def output(workdir, pictures, tmp_path_factory):
  (pictures / 'broken.png').write_bytes(b'no picture')
  folder = tmp_path_factory.mktemp('out')
  flags = ('--workdir', workdir, '--input', pictures, '--output', folder)
  assert _run(*flags, '--patch', 16) == errors.SKIPPED_FILES
  (pictures / 'broken.png').unlink()
  return folder


def test_a_name_that_is_not_utf_8(workdir, pictures, tmp_path):
  name = os.fsdecode(b'\xff.png')
  (tmp_path / 'in').mkdir()
  try:
    shutil.copy(pictures / 'a&b.png', tmp_path / 'in' / name)
  except OSError:
    pytest.skip('this file system takes UTF-8 only')
  flags = ('--workdir', workdir, '--input', tmp_path / 'in')
  assert _run(*flags, '--output', tmp_path / 'out', '--patch', 16) == 0
  assert (tmp_path / 'out' / name).is_file()
  assert 'href="%FF.png"' in (tmp_path / 'out/explain.html').read_text()


def test_a_sheet_for_each_picture(output):
  sheets = sorted(path.relative_to(output) for path in output.rglob('*.png'))
  assert [str(sheet) for sheet in sheets] == ['a&b.png', 'p0/x.png']
  for sheet in sheets:
    with Image.open(output / sheet) as picture:
      # Five levels, occlusion and four gates: two times two rows of five maps.
      assert picture.size[0] == pytest.approx(5 * 2.3 * 160, abs=1)
      assert picture.size[1] > 1200
      assert np.asarray(picture.convert('RGB')).std() > 10


def test_the_page_stands_alone_and_holds_the_check(output):
  page = (output / 'explain.html').read_text('utf-8')
  assert len(re.findall(r'<img src="data:image/jpeg;base64,', page)) == 2
  assert page.count('<img ') == 2
  assert not re.findall(r'(?:src|@import|url\()[="\']*https?:', page)
  assert 'a&amp;b' in page
  assert '2 pictures; 1 file could not be read' in page
  rows = re.findall(r'<tr><td>(.+?)</td>.*?<td>(.+?)</td>', page)
  assert [kind for kind, _ in rows] == [
    *['Grad-CAM'] * 5, 'occlusion', *['attention'] * 4,
  ]  # fmt: skip
  for _, mean in rows:
    assert mean == '–' or -1 <= float(mean) <= 1
  assert 'patch of 16 x 16 pixels' in page
  assert 'no attention gates' not in page


def _end(capsys, *flags):
  assert _run(*flags) == 2
  message = capsys.readouterr().err
  assert message.count('error: ') == 1
  return message


def test_an_unknown_level_lists_all(workdir, pictures, tmp_path, capsys):
  one = pictures / 'p0' / 'x.png'
  flags = ('--workdir', workdir, '--input', one, '--output', tmp_path)
  message = _end(capsys, *flags, '--levels', 'bottleneck', 'level.merge')
  assert '--levels bottleneck: ' in message
  names = re.findall(r'^  (\S+)  \(\d+ x \d+\)$', message, re.MULTILINE)
  assert len(names) == 17
  assert names[-1] == 'level.merge'
  # The remedy works.
  assert _run(*flags, '--pixels', 'all', '--levels', names[3]) == 0
  page = (tmp_path / 'explain.html').read_text('utf-8')
  assert page.count('<td>Grad-CAM</td>') == 1
  assert names[3] in page


def test_nothing_is_written_into_a_shared_model(
  workdir, pictures, tmp_path, capsys
):
  before = sorted(workdir.rglob('*'))
  flags = ('--workdir', workdir, '--input', pictures / 'p0', '--output')
  for output in (workdir, workdir / 'sheets'):
    message = _end(capsys, *flags, output)
    assert f'--output {output} is in the folder of the model' in message
  assert sorted(workdir.rglob('*')) == before
  assert _run(*flags, tmp_path / 'out') == 0
  assert {path.name for path in (tmp_path / 'out').iterdir()} == {
    'explain.html',
    'x.png',
  }


def test_what_is_refused(workdir, pictures, output, tmp_path, capsys):
  flags = ('--input', pictures, '--output')
  given = ('--workdir', workdir, *flags)
  assert '4 to 16' in _end(capsys, *given, tmp_path / 'a', '--patch', 17)
  assert '--overwrite' in _end(capsys, *given, output)
  (output / 'explain.html').rename(tmp_path / 'explain.html')
  assert str(output / 'a&b.png') in _end(capsys, *given, output)
  (tmp_path / 'explain.html').rename(output / 'explain.html')
  masks = tmp_path / 'masks'
  masks.mkdir()
  (masks / 'predictions.json').write_text('{}')
  message = _end(capsys, *given, masks, '--overwrite')
  assert f'{masks} holds masks of predict' in message
  both = tmp_path / 'folds'
  both.mkdir()
  (both / 'ensemble.json').write_text(json.dumps({'members': ['a', 'b']}))
  message = _end(capsys, '--workdir', both, *flags, tmp_path / 'b')
  assert str(both / 'a') in message
  message = _end(capsys, '--workdir', tmp_path, *flags, tmp_path / 'b')
  assert 'config.json' in message
