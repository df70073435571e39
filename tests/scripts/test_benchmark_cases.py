import importlib
import multiprocessing
import os
import time
import zipfile

import numpy as np
import pytest

pytestmark = pytest.mark.torch
pytest.importorskip('torch_models')
benchmark = pytest.importorskip('benchmark')
cases = pytest.importorskip('benchmarks.cases')
reference = pytest.importorskip('torch_reference')


class _Loader:
  """Batches that take `seconds` each, except those that are buffered."""

  def __init__(self, seconds, buffered):
    self.seconds, self.buffered, self.steps = seconds, buffered, 0

  def draw(self):
    if self.buffered:
      self.buffered -= 1
    else:
      time.sleep(self.seconds)

  def step(self, batch):
    self.steps += 1
    return batch

  def work(self):
    return cases.Work(self.draw, self.step, lambda _: None, '', lambda: 0)


def test_turn_ends_by_the_clock_and_leaves_out_what_was_read_ahead():
  # The estimated step time comes from a buffered batch, 500 times too low.
  loader = _Loader(seconds=0.005, buffered=40)
  began = time.perf_counter()
  (seconds,) = cases.measure(
    loader.work(), 0.2, step_seconds=1e-5, read_ahead=40, each=False
  )
  assert time.perf_counter() - began < 2
  assert seconds >= 0.005
  assert 1 <= loader.steps <= 40


def test_turn_of_slow_steps_makes_one_and_trains_on_nothing_read_ahead():
  loader = _Loader(seconds=0.05, buffered=16)
  times = cases.measure(
    loader.work(), 0.01, step_seconds=0.05, read_ahead=16, each=False
  )
  assert (len(times), loader.steps) == (1, 1)


def test_device_is_waited_for_within_a_turn():
  # Dispatching a step takes no time; only waiting shows how long it takes.
  waits = []
  work = cases.Work(
    lambda: None,
    lambda _: time.sleep(0.002),
    waits.append,
    '',
    lambda: 0,
  )
  cases.measure(work, 0.5, step_seconds=0.02, read_ahead=1, each=False)
  steps = 0.5 / 0.002
  assert steps / 20 < len(waits) <= steps / 5 + 2  # About every fifth.


def _serve(monkeypatch, case):
  """Serves until the framework is imported; returns answer and policy."""
  policies = []

  def import_module(name):
    policies.append(os.environ.get('OMP_WAIT_POLICY'))
    raise SystemExit(f'{name}: files that do not pair up')

  monkeypatch.setenv('OMP_WAIT_POLICY', '')  # Restored after the test.
  monkeypatch.delenv('OMP_WAIT_POLICY')
  monkeypatch.setattr(os, 'setsid', lambda: None)
  monkeypatch.setattr(cases.importlib, 'import_module', import_module)
  ours, theirs = multiprocessing.Pipe()
  cases.serve(case, None, theirs)
  return ours.recv(), policies


@pytest.mark.parametrize(
  ('mode', 'policy'),
  [('predict', None), ('compute', None), ('end_to_end', 'passive')],
)
def test_threads_wait_asleep_only_beside_the_workers_of_a_loader(
  monkeypatch, mode, policy
):
  case = cases.Case('torch', mode, 'float32', False, 1, 16, 1)
  answer, policies = _serve(monkeypatch, case)
  assert policies == [policy]
  # The reference's own SystemExit also reaches the reader.
  assert 'benchmarks.torch_side: files that do not pair up' in answer


def test_reference_imported_leaves_threads_as_they_are(monkeypatch):
  monkeypatch.setenv('OMP_WAIT_POLICY', '')
  monkeypatch.delenv('OMP_WAIT_POLICY')
  importlib.reload(reference)
  assert 'OMP_WAIT_POLICY' not in os.environ


def test_peak_memory_is_not_the_parents():
  held = np.ones(2**26)  # 512 MB, all of it in use.
  assert cases.resident_peak() > held.nbytes
  with multiprocessing.get_context('spawn').Pool(1) as pool:
    assert pool.apply(cases.resident_peak) < held.nbytes


def test_dead_process_ends_its_group_with_one_message(monkeypatch):
  process = cases.Process.__new__(cases.Process)
  process.case = cases.Case('torch', 'predict', 'float32', False, 1, 16, 1)
  process.seconds_per_step = []
  monkeypatch.setattr(process, '_signal', lambda number: None, raising=False)
  process._connection, theirs = multiprocessing.Pipe()
  theirs.close()
  with pytest.raises(RuntimeError, match='perhaps because memory ran out'):
    process.measure(1)


@pytest.mark.parametrize('layout', ['kaggle', 'zips'])
def test_reference_finds_what_our_side_finds(tmp_path, layout):
  raw_dir = tmp_path / 'a!b'
  benchmark.write_generated(raw_dir, 2)
  images = raw_dir / 'HAM10000_images_part_1'
  masks = raw_dir / 'HAM10000_segmentations_lesion_tschandl'
  for image in list(images.iterdir()):
    image.rename(image.with_suffix('.jpeg'))
  if layout == 'kaggle':
    masks.rename(raw_dir / 'masks')
  else:
    for folder in (images, masks):
      with zipfile.ZipFile(folder.with_suffix('.zip'), 'w') as archive:
        for file in folder.iterdir():
          archive.write(file, f'{folder.name}/{file.name}')
          archive.writestr(f'__MACOSX/{folder.name}/._{file.name}', b'')
          file.unlink()
      folder.rmdir()
  examples = reference.list_examples(raw_dir)
  assert [name for name, _, _ in examples] == cases.RawSource(
    raw_dir, 2
  ).image_ids
  dataset = reference.SkinLesionDataset(examples, (16, 16), augment=False)
  assert all(mask.any() for _, mask in (dataset[i] for i in range(2)))
