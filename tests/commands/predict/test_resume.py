"""An interrupted prediction goes on where it stopped; nothing is done twice."""

import csv
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import predict_cases as cases
import pytest
from PIL import Image

from skinseg_jax.inference import predictor, table

_ROOT = pathlib.Path(__file__).parents[3]
_SLOWLY = _ROOT / 'tests/helpers/predict_slowly.py'


@pytest.fixture
def model(monkeypatch, tmp_path):
  return cases.make_model(monkeypatch, tmp_path)


@pytest.fixture
def folder(tmp_path):
  return write_images(tmp_path / 'in', 10)


def write_images(folder, number):
  """Pictures of different sizes in two folders, each with its own mask."""
  for i in range(number):
    path = folder / f'p{i % 2}' / f'{i:03}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(cases.picture(40 + i, 60)[0]).save(path)
  return folder


def rows(out):
  with (out / 'predictions.csv').open(newline='') as file:
    return list(csv.DictReader(file))


def contents(out):
  """Bytes of every file but the tables; rows in the order of their names."""
  files = {
    str(path.relative_to(out)): path.read_bytes()
    for path in out.rglob('*.*')
    if path.name not in ('predictions.csv', 'predictions.parquet')
  }
  return files, sorted(rows(out), key=lambda row: row['image_id'])


def command(tmp_path, seconds, *flags):
  paths = [_ROOT, _ROOT / 'tests/helpers']
  return subprocess.Popen(
    [sys.executable, _SLOWLY, tmp_path, str(seconds), *map(str, flags)],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, paths))},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def wait_for_rows(out, number, process):
  """Waits until the table has more than so many rows."""
  path = out / 'predictions.csv'
  while not path.exists() or path.read_bytes().count(b'\n') <= number + 1:
    assert process.poll() is None, process.communicate()
    time.sleep(0.01)


def test_killed_twice(tmp_path, model, monkeypatch):
  monkeypatch.setattr(predictor, 'BATCH_SIZE', 4)
  folder = write_images(tmp_path / 'in', 60)
  out, whole = tmp_path / 'out', tmp_path / 'whole'
  flags = ('--input', folder, '--output', out, '--probability')
  for number in (0, 12):
    process = command(tmp_path, 0.2, *flags)
    wait_for_rows(out, number, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
  before = len(rows(out))
  assert 12 <= before < 60
  assert cases.run(*flags) == 0
  assert cases.run('--input', folder, '--output', whole, '--probability') == 0
  assert contents(out) == contents(whole)
  assert len({row['image_id'] for row in rows(out)}) == len(rows(out)) == 60
  assert not list(out.rglob('*.tmp'))


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal(tmp_path, model, signum):
  folder, out = write_images(tmp_path / 'in', 24), tmp_path / 'out'
  flags = ('--input', folder, '--output', out)
  process = command(tmp_path, 0.2, *flags)
  wait_for_rows(out, 0, process)
  process.send_signal(signum)
  _, err = process.communicate()
  assert process.returncode == 75
  assert 'run the same command again to resume' in err
  assert 0 < len(rows(out)) < 24
  assert cases.run(*flags) == 0
  assert len({row['image_id'] for row in rows(out)}) == len(rows(out)) == 24


def test_only_what_is_missing_is_predicted(model, folder, tmp_path, capsys):
  out = tmp_path / 'out'
  flags = ('--input', folder, '--output', out, '--overlay')
  assert cases.run(*flags) == 0
  whole = contents(out)
  kept = (out / 'p0/002.png').stat().st_mtime_ns
  (out / 'p0/000.png').unlink()
  data = (out / 'p1/001.png').read_bytes()
  (out / 'p1/001.png').write_bytes(data[:-3])  # As a full disk leaves it.
  (out / 'overlay/p1/003.png').write_bytes(b'')
  text = (out / 'predictions.csv').read_text()
  (out / 'predictions.csv').write_text(text[:-5])  # The last row is cut short.
  capsys.readouterr()
  assert cases.run(*flags) == 0
  printed = capsys.readouterr().out
  assert 'wrote 4 masks' in printed
  assert '6 were there already' in printed
  assert contents(out) == whole
  assert (out / 'p0/002.png').stat().st_mtime_ns == kept


def test_new_images_are_added(model, tmp_path):
  folder, out = write_images(tmp_path / 'in', 4), tmp_path / 'out'
  flags = ('--input', folder, '--output', out)
  cases.run(*flags)
  write_images(folder, 6)
  assert cases.run(*flags) == 0
  assert len(rows(out)) == 6


def test_a_bad_file_has_a_row_and_is_tried_again(model, folder, tmp_path):
  out = tmp_path / 'out'
  (folder / 'bad.jpg').write_bytes(b'\xff\xd8\xff no picture')
  flags = ('--input', folder, '--output', out)
  for _ in range(2):
    assert cases.run(*flags) == 3
    (bad,) = [row for row in rows(out) if row['status'] == 'skipped']
    assert bad['image_id'] == 'bad'
    assert bad['file'] == str(folder / 'bad.jpg')
    assert 'bad.jpg: cannot be decoded' in bad['problem']
    assert bad['lesion_share'] == ''
    assert len(rows(out)) == 11
  Image.fromarray(cases.picture(30, 40)[0]).save(folder / 'bad.jpg')
  assert cases.run(*flags) == 0
  assert [row['status'] for row in rows(out)] == ['predicted'] * 11


def test_a_row_describes_its_mask(model, folder, tmp_path):
  cases.run('--input', folder, '--output', tmp_path / 'out')
  for row in rows(tmp_path / 'out'):
    mask = cases.read(tmp_path / f'out/{row["image_id"]}.png')
    assert mask.shape == (int(row['height']), int(row['width']))
    assert int(row['lesion_pixels']) == np.count_nonzero(mask)
    share = np.count_nonzero(mask) / mask.size
    assert float(row['lesion_share']) == pytest.approx(share, abs=1e-6)
    assert 0.5 < float(row['mean_probability']) <= 1


def follow(message, output, flags):
  """Both remedies of the message, as it says them."""
  assert 'choose another --output' in message
  (flag,) = re.findall('give (--[a-z]+)', message)
  assert cases.run(*flags, '--output', output.parent / 'another') == 0
  assert cases.run(*flags, '--output', output, *shlex.split(flag)) == 0


@pytest.mark.parametrize(
  'flags',
  [['--overlay'], ['--fill_holes'], ['--min_area', 0.01], ['--tiles', 64]],
)
def test_other_flags_are_refused(model, folder, tmp_path, capsys, flags):
  out = tmp_path / 'out'
  assert cases.run('--input', folder, '--output', out) == 0
  before = contents(out)
  flags = ['--input', folder, *flags]
  message = cases.end(capsys, *flags, '--output', out)
  assert f'{out} holds predictions that were made differently' in message
  assert contents(out) == before
  follow(message, out, flags)


def test_another_threshold_and_another_model_are_refused(
  model, folder, tmp_path, capsys, monkeypatch
):
  out = tmp_path / 'out'
  flags = ['--input', folder]
  assert cases.run(*flags, '--output', out) == 0
  model.config.evaluation.threshold = 0.4
  message = cases.end(capsys, *flags, '--output', out)
  assert 'threshold: 0.5 there, 0.4 now' in message
  follow(message, out, flags)
  object.__setattr__(model, 'state', {'kernel': np.ones(3)})
  assert '  model: ' in cases.end(capsys, *flags, '--output', out)


def test_masks_of_other_files_are_refused(model, tmp_path, capsys):
  for name in ('a', 'b'):
    write_images(tmp_path / name, 2)
  out = tmp_path / 'out'
  assert cases.run('--input', tmp_path / 'a', '--output', out) == 0
  before = contents(out)
  flags = ['--input', tmp_path / 'b']
  message = cases.end(capsys, *flags, '--output', out)
  assert 'masks of other files' in message
  assert f'p0/000: {tmp_path}/b/p0/000.png' in message
  assert contents(out) == before
  follow(message, out, flags)


def test_padding_does_not_change_predictions(tiny_run, tmp_path):
  import skinseg_jax

  images = [cases.picture(40 + i, 50)[0] for i in range(5)]
  loaded = skinseg_jax.load(tiny_run[0])._model
  small = [[np.resize(image, (32, 32, 3))] for image in images]
  together = predictor.answers(loaded, small, 5)
  padded = predictor.answers(loaded, small[:3], 5)
  for a, b in zip(together, padded, strict=False):
    np.testing.assert_array_equal(a.probability, b.probability)
    np.testing.assert_array_equal(a.features, b.features)


@pytest.mark.slow
def test_two_processes_predict_each_image_once(tiny_run, tmp_path):
  folder = write_images(tmp_path / 'in', 12)
  (folder / 'bad.png').write_bytes(b'')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  flags = ['--workdir', tiny_run[0], '--input', folder]
  start = lambda *more: subprocess.Popen(
    [sys.executable, '-m', 'skinseg_jax.predict', *map(str, [*flags, *more])],
    cwd=_ROOT,
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': '2'},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  out = tmp_path / 'out'
  several = [
    start(
      '--output', out, f'--coordinator=127.0.0.1:{port}',
      '--num_processes=2', f'--process_id={i}',
    )
    for i in range(2)
  ]  # fmt: skip
  printed = [process.communicate() for process in several]
  assert [process.returncode for process in several] == [3, 3], printed
  assert 'wrote 12 masks' in printed[0][0]
  assert 'skipped 1 of 13 files' in printed[0][1]
  assert 'skipped' not in printed[1][1]
  one = start('--output', tmp_path / 'one')
  one.communicate()
  assert one.returncode == 3
  assert contents(out) == contents(tmp_path / 'one')
  assert not list(out.glob('predictions.part*'))


def test_parts_of_a_killed_run_are_joined(model, folder, tmp_path):
  # What two processes leave if they are killed, the second while its rows were
  # being joined: it has a row that is in the table already.
  out = tmp_path / 'out'
  flags = ('--input', folder, '--output', out)
  cases.run(*flags)
  whole = contents(out)
  lines = (out / 'predictions.csv').read_text().splitlines(keepends=True)
  (out / 'predictions.csv').write_text(''.join(lines[:6]))
  (out / 'predictions.part1.csv').write_text(''.join([lines[0], *lines[5:9]]))
  assert cases.run(*flags) == 0
  assert contents(out) == whole
  assert not list(out.glob('predictions.part*'))


def test_names_that_a_spreadsheet_would_run(model, tmp_path):
  (tmp_path / 'in').mkdir()
  names = [
    "=1+1,'x",
    '"quoted"\nline',
    'Größe',
    b'\xff latin'.decode(errors='surrogateescape'),
  ]
  for name in names:
    Image.fromarray(cases.picture(30, 40)[0]).save(tmp_path / f'in/{name}.png')
  flags = ('--input', tmp_path / 'in', '--output', tmp_path / 'out')
  assert cases.run(*flags) == 0
  first = (tmp_path / 'out/predictions.csv').read_bytes()
  assert b"'=1+1" in first
  assert cases.run(*flags) == 0
  assert (tmp_path / 'out/predictions.csv').read_bytes() == first
  found = [
    row['image_id'] for row in table._rows(tmp_path / 'out/predictions.csv')
  ]
  assert sorted(found) == sorted(names)
