"""The evaluation command on a trained run, and its errors for bad input."""

import errno
import json
import os
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from skinseg_jax import evaluate, predict
from skinseg_jax.evaluation import result_files
from skinseg_jax.inference import forward_pass
from skinseg_jax.run import checkpointing
from skinseg_jax.runtime import errors


@pytest.fixture
def workdir(tiny_run, tmp_path):
  """A copy of the run, which tests may damage."""
  path = tmp_path / 'run'
  shutil.copytree(tiny_run[0], path)
  return path


@pytest.fixture
def folder(tmp_path):
  """Images and masks of 40 x 30, with metadata."""
  for name in ('images', 'masks'):
    (tmp_path / name).mkdir()
  rng = np.random.default_rng(0)
  for i in range(3):
    mask = np.zeros((30, 40), np.uint8)
    mask[5 : 15 + i, 10:30] = 255
    image = np.where(mask[..., None], 60, 200) + rng.integers(0, 9, (30, 40, 3))
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / f'images/p{i}.png')
    Image.fromarray(mask).save(tmp_path / f'masks/p{i}.png')
  (tmp_path / 'rows.csv').write_text('image_id,dx,age\np0,mel,50\np1,nv,\n')
  return tmp_path


def _external(workdir, folder, **changes):
  paths = {
    'images': folder / 'images',
    'masks': folder / 'masks',
    'metadata': folder / 'rows.csv',
    **changes,
  }
  return [
    '--skip_report',
    '--workdir',
    workdir,
    *(x for k, v in paths.items() for x in (f'--{k}', v)),
  ]


def _run(main, *flags):
  errors.exit_with_message(main, ['program', *map(str, flags)])


def _end(capsys, main, *flags):
  """Text on stderr of a program that ends with exit code 2."""
  with pytest.raises(SystemExit) as caught:
    _run(main, *flags)
  assert caught.value.code == 2
  message = capsys.readouterr().err
  assert message.count('error: ') == 1
  assert 'Traceback' not in message
  return message[message.index('error: ') :]


def test_scores_again_what_training_scored(tiny_run, workdir, capsys):
  _, summary = tiny_run
  (workdir / 'evaluation/validation/summary.json').unlink()
  _run(evaluate.main, '--workdir', workdir, '--skip_report')
  path = workdir / 'evaluation/validation/summary.json'
  assert json.loads(path.read_text()) == summary
  out = capsys.readouterr().out
  assert f'{summary["pooled"]["dice"]:.4f}' in out
  assert '7 images' in out


def test_training_left_threshold_and_profile(workdir):
  points = json.loads((workdir / 'operating_point.json').read_text())
  assert points['10']['train_images'] == 21
  profile = json.loads((workdir / 'training_profile.json').read_text())
  assert profile['images'] == 21
  assert profile['image_sizes'] == {'32 x 32': 21}


def test_training_side(workdir):
  _run(evaluate.main, '--workdir', workdir, '--split', 'train', '--skip_report')
  read = result_files.read(workdir, 'train')
  assert read.summary['num_images'] == 21
  assert sum(read.summary['counts'].values()) == 21 * 32 * 32


def test_other_folder(workdir, folder, capsys):
  _run(evaluate.main, *_external(workdir, folder))
  read = result_files.read(workdir, 'images')
  assert read.image_ids == ['p0', 'p1', 'p2']
  assert [row['dx'] for row in read.rows] == ['mel', 'nv', 'unknown']
  assert [row['age'] for row in read.rows] == ['45-59', 'unknown', 'unknown']
  # Lesions of 10, 11 and 12 rows of 20 pixels, at the images' original size.
  native = read.summary['native_size']['pooled']
  assert 0 <= native['dice'] <= 1
  assert read.summary['shift']['here']['image_sizes'] == {'40 x 30': 3}
  assert read.summary['operating_point']['chosen_on'] == 'train'
  assert 'shift: ' in capsys.readouterr().out


def test_report_beside_the_scores_of_other_data(workdir, folder):
  own = (workdir / 'report.html').read_bytes()
  flags = _external(workdir, folder)
  flags.remove('--skip_report')
  _run(evaluate.main, *flags)
  text = (workdir / 'evaluation/images/report.html').read_text()
  assert 'p0' in text
  # The report of the run still shows its validation images.
  assert (workdir / 'report.html').read_bytes() == own


def test_other_folder_needs_no_training_images(workdir, folder):
  (workdir / 'split.csv').unlink()
  _run(evaluate.main, *_external(workdir, folder))
  summary = result_files.read(workdir, 'images').summary
  assert summary['operating_point'] is not None
  assert summary['shift']['training'] is not None


def test_folder_called_as_a_side_does_not_write_over_it(workdir, folder):
  before = (workdir / 'evaluation/validation/summary.json').read_bytes()
  (folder / 'images').rename(folder / 'validation')
  _run(evaluate.main, *_external(workdir, folder, images=folder / 'validation'))
  assert result_files.read(workdir, 'external_validation').rows
  after = (workdir / 'evaluation/validation/summary.json').read_bytes()
  assert after == before


def test_grey_masks_need_a_threshold(workdir, folder, capsys):
  mask = np.asarray(Image.open(folder / 'masks/p0.png')) // 255 * 200
  mask[0, 0] = 30
  Image.fromarray(mask).save(folder / 'masks/p0.png')
  flags = _external(workdir, folder)
  assert 'p0.png: not binary' in _end(capsys, evaluate.main, *flags)
  _run(evaluate.main, *flags, '--mask_threshold', 100)
  row = result_files.read(workdir, 'images').rows[0]
  # 10 rows of 20 pixels of 30 x 40, resized by nearest to 32 x 32.
  assert int(row['tp']) + int(row['fn']) == pytest.approx(
    200 * 1024 / 1200, rel=0.15
  )


def _no_checkpoints(workdir):
  shutil.rmtree(workdir / 'checkpoints')


def _empty_checkpoints(workdir):
  _no_checkpoints(workdir)
  (workdir / 'checkpoints').mkdir()


def _other_width(workdir):
  path = workdir / 'config.json'
  values = json.loads(path.read_text())
  values['model']['width'] = 4
  path.write_text(json.dumps(values))


def _cut(workdir, pattern):
  files = [
    path
    for path in (workdir / 'checkpoints/10/model').rglob(pattern)
    if path.is_file()
  ]
  largest = max(files, key=lambda path: path.stat().st_size)
  largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def _cut_arrays(workdir):
  _cut(workdir, 'd/*')


def _cut_list_of_arrays(workdir):
  _cut(workdir, '_METADATA')


@pytest.mark.parametrize('program', [evaluate, predict])
@pytest.mark.parametrize(
  ('damage', 'expected'),
  [
    (_no_checkpoints, 'no checkpoint in'),
    (_empty_checkpoints, 'no checkpoint in'),
    (_other_width, 'model.width to the values it was trained with'),
    (_cut_arrays, 'is damaged'),
    (_cut_list_of_arrays, 'is damaged'),
    (lambda workdir: shutil.rmtree(workdir), 'config.json does not exist'),
  ],
)
def test_bad_runs(workdir, folder, capsys, program, damage, expected):
  damage(workdir)
  flags = ['--workdir', workdir]
  if program is predict:
    flags += ['--input', folder / 'images', '--output', folder / 'out']
  message = _end(capsys, program.main, *flags)
  assert expected in message
  assert str(workdir) in message
  # Reading a run folder creates nothing.
  if damage is _no_checkpoints:
    assert not (workdir / 'checkpoints').exists()
  assert not (folder / 'out').exists()


def test_scores_that_cannot_be_written(workdir, capsys, monkeypatch):
  def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(result_files, 'write', full)
  message = _end(capsys, evaluate.main, '--workdir', workdir)
  assert 'No space left' in message
  assert str(workdir) in message
  assert 'run the same command again' in message
  monkeypatch.undo()
  _run(evaluate.main, '--workdir', workdir, '--skip_report')


def test_remedy_of_too_little_memory(workdir, capsys, monkeypatch):
  forward = forward_pass.each_view

  def exhausted(graphdef, state, images, **options):
    if len(images) > 2:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
    return forward(graphdef, state, images, **options)

  monkeypatch.setattr(forward_pass, 'each_view', exhausted)
  flags = ['--workdir', workdir, '--skip_report', '--skip_native_size']
  message = _end(capsys, evaluate.main, *flags)
  assert '--config' not in message  # No flag of evaluate.
  section, path = re.search(
    r'batch_size to a smaller number under (\w+) in (\S+),', message
  ).groups()
  path = pathlib.Path(path)
  values = json.loads(path.read_text())
  values[section]['batch_size'] = 2
  path.write_text(json.dumps(values))
  _run(evaluate.main, *flags)
  assert 'pooled dice' in capsys.readouterr().out


@pytest.mark.parametrize(
  'name', ['operating_point.json', 'training_profile.json']
)
def test_remedy_of_damaged_results_of_training_images(
  workdir, folder, capsys, name
):
  path = workdir / name
  path.write_text('{')
  flags = _external(workdir, folder)
  message = _end(capsys, evaluate.main, *flags)
  assert f'{path} is not what a run writes' in message
  assert 'remove it to compute it again' in message
  path.unlink()
  _run(evaluate.main, *flags)
  assert path.exists()


def test_masks_that_pair_with_nothing(workdir, folder, capsys):
  for path in (folder / 'masks').iterdir():
    path.rename(path.with_name(f'q{path.name}'))
  message = _end(capsys, evaluate.main, *_external(workdir, folder))
  for i in range(3):
    assert f'p{i}.png: no mask' in message
    assert f'qp{i}.png: no image' in message


def test_rows_of_other_images_are_ignored_and_counted(workdir, folder, capsys):
  with (folder / 'rows.csv').open('a') as file:
    file.write('p7,mel,3\np8,mel,3\n')
  _run(evaluate.main, *_external(workdir, folder))
  out = capsys.readouterr().out
  assert '2 rows are of other images and ignored; 1 of 3 images have' in out


def test_missing_metadata_names_the_flag(workdir, folder, capsys):
  flags = _external(workdir, folder, metadata=folder / 'nowhere.csv')
  assert '(--metadata): unreadable' in _end(capsys, evaluate.main, *flags)


def test_missing_folder(workdir, folder, capsys):
  flags = _external(workdir, folder, images=folder / 'nowhere')
  assert 'nowhere (--images) is no' in _end(capsys, evaluate.main, *flags)


@pytest.mark.parametrize(
  ('flags', 'expected'),
  [
    (['--images', 'x'], '--images and --masks must be given together'),
    (['--metadata', 'x'], '--metadata requires --images'),
    (['--name', 'x'], '--name requires --images'),
    (['--mask_invert'], '--mask_invert requires --images'),
    (['--mask_suffixes', '_a'], '--mask_suffixes requires --images'),
    (['--exclude_rejected'], '--exclude_rejected requires --review'),
    (['--review', 'nowhere.csv'], 'nowhere.csv cannot be read'),
    (['--checkpoint', '7'], 'allowed are best, last'),
  ],
)
def test_flags(tiny_run, capsys, flags, expected):
  assert expected in _end(
    capsys, evaluate.main, '--workdir', tiny_run[0], *flags
  )


def test_reading_leaves_what_another_process_is_saving(workdir):
  saving = workdir / 'checkpoints/11.orbax-checkpoint-tmp'
  saving.mkdir()
  checkpoints = checkpointing.Checkpoints(
    workdir / 'checkpoints', read_only=True
  )
  assert checkpoints.resolve('last') == 10
  checkpoints.close()
  assert saving.exists()


def test_help_names_every_flag(capsys):
  with pytest.raises(SystemExit) as caught:
    evaluate.main(['program', '--help'])
  assert caught.value.code == 0
  out = capsys.readouterr().out
  for flag in ('--review', '--images', '--skip_native_size'):
    assert flag in out


@pytest.mark.parametrize(
  'name', ['../../../evil', 'a/b', 'a\\b', '.', '..', '']
)
def test_names_that_lead_out_of_the_run_are_refused(
  workdir, folder, capsys, name
):
  message = _end(capsys, evaluate.main, *_external(workdir, folder, name=name))
  assert f'--name {name!r} must be the name of a new folder' in message


def test_split_is_refused_with_images(workdir, folder, capsys):
  message = _end(
    capsys, evaluate.main, *_external(workdir, folder, split='train')
  )
  assert '--split is for the images of the run' in message
