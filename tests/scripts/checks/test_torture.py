"""A short version of scripts/checks/torture.py."""

import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.slow
def test_killed_and_stopped_runs_end_as_undisturbed(tmp_path):
  pytest.importorskip('tensorflow')
  done = subprocess.run(
    [
      sys.executable,
      _ROOT / 'scripts' / 'checks' / 'torture.py',
      f'--directory={tmp_path / "torture"}',
      '--kills=2',
      '--stops=1',
    ],
    env={
      **os.environ,
      'PYTHONPATH': str(_ROOT),
      'TF_CPP_MIN_LOG_LEVEL': '3',
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert '2 kills' in done.stdout
  assert '1 stops, as undisturbed' in done.stdout
