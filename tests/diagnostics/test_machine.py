import os

import fake_ham10000
import jax
import pytest

from skinseg_jax import doctor
from skinseg_jax.data.sources import ham10000
from skinseg_jax.diagnostics import machine
from skinseg_jax.runtime import devices, errors


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(machine, '_SECONDS', 0.01)


@pytest.fixture
def without_gpu(monkeypatch, tmp_path):
  """No nvidia-smi on the path, and no /dev/nvidia0."""
  monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
  (tmp_path / 'bin').mkdir()
  monkeypatch.setattr(devices, '_DEV', tmp_path)


@pytest.fixture
def raw_dir(tmp_path):
  return fake_ham10000.write_zips(
    tmp_path / 'raw', fake_ham10000.make_images(4)
  )


@pytest.fixture
def data_dir(tmp_path, raw_dir):
  directory = tmp_path / 'prepared'
  ham10000.Ham10000Source.prepare(directory, raw_dir, 0)
  return directory


def _bad(data_dir, raw_dir):
  return [
    (what, remedy)
    for level, what, remedy in machine.examine(data_dir, raw_dir)
    if level == 'BAD'
  ]


def test_all_is_well(data_dir, raw_dir, without_gpu):
  found = list(machine.examine(data_dir, raw_dir))
  assert not [finding for finding in found if finding.level == 'BAD']
  text = '\n'.join(finding.what for finding in found)
  assert f'jax {jax.__version__}' in text
  assert f'JAX runs on 1 x {jax.devices()[0].device_kind}' in text
  assert f'4 images with masks and metadata in {raw_dir}' in text
  assert f'HAM10000 in {data_dir}: 4 images, complete' in text


def test_what_was_named_and_is_missing(tmp_path, capsys, without_gpu):
  (tmp_path / 'empty').mkdir()
  with pytest.raises(SystemExit) as end:
    doctor.main(
      ['doctor', '--data_dir', str(tmp_path / 'no'),
       '--raw_dir', str(tmp_path / 'empty')]
    )  # fmt: skip
  assert end.value.code == 1
  out = capsys.readouterr().out
  assert out.count('BAD') == 2
  assert 'lacks' in out
  assert f'prepare_ham10000.py --data_dir {tmp_path / "no"}' in out
  assert not (tmp_path / 'no').exists()  # Nothing was downloaded or created.


def test_damage_is_found(data_dir, raw_dir, without_gpu):
  record = next(data_dir.rglob('*.array_record*'))
  record.write_bytes(record.read_bytes()[:-100])
  zips = sorted(raw_dir.glob('*.zip'))
  zips[0].write_bytes(b'no zip')
  (raw, _), (prepared, remedy) = _bad(data_dir, raw_dir)
  assert f'{zips[0].name}: not a whole zip' in raw
  assert 'is damaged' in prepared
  assert 'prepare_ham10000.py' in remedy


def test_gpu_that_jax_does_not_see(monkeypatch, tmp_path, without_gpu):
  smi = tmp_path / 'bin' / 'nvidia-smi'
  smi.write_text('#!/bin/sh\necho 570.1, NVIDIA H200, 143771 MiB\n')
  smi.chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path / "bin"}{os.pathsep}/bin')
  found = list(machine.examine(None, None))
  text = '\n'.join(finding.what for finding in found)
  assert 'NVIDIA driver: 570.1, NVIDIA H200, 143771 MiB' in text
  (bad,) = [finding for finding in found if finding.level == 'BAD']
  assert 'JAX does not see it' in bad.what
  assert 'skinseg_jax[cuda]' in bad.remedy


def test_device_that_is_not_there_is_refused(without_gpu):
  for kind in ('gpu', 'tpu'):
    with pytest.raises(errors.InputError, match=f"'{kind}'.*runs on 'cpu'"):
      devices.use(kind)


def test_unused_gpu_is_said_once_and_not_where_the_cpu_was_asked_for(
  tmp_path, capsys, without_gpu
):
  devices.use('auto')
  assert not capsys.readouterr().err
  (tmp_path / 'nvidia0').touch()  # The fixture uses tmp_path as /dev.
  devices.use('auto')
  assert capsys.readouterr().err.count('skinseg_jax[cuda]') == 1
  devices.use('cpu')
  assert not capsys.readouterr().err
