"""A short version of scripts/checks/server_load.py, and its parts."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest
import server_load
import server_process

_ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.slow
def test_a_server_stands_the_load(tiny_run, tmp_path):
  pytest.importorskip('fastapi')
  pytest.importorskip('uvicorn')
  if sys.platform != 'linux':
    pytest.skip('needs /proc')
  output = tmp_path / 'load.json'
  done = subprocess.run(
    [
      sys.executable,
      _ROOT / 'scripts/checks/server_load.py',
      f'--workdir={tiny_run[0]}',
      f'--output={output}',
      '--quick',
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  found = json.loads(output.read_text())
  assert found['failed'] == []
  assert found['sequential']['requests'] == 50
  assert found['parallel']['answered'] > 0
  statuses = [case['status'] for case in found['refused'].values()]
  assert statuses == [415, 413, 413, 422, 400]
  assert found['throughput']['8 clients']['requests'] > 0


def test_a_failed_check_is_kept(capsys):
  report = server_load.Report()
  report.check(True, 'good')
  report.check(False, 'bad')
  assert report.failed == ['bad']
  assert capsys.readouterr().out == 'FAILED: bad\n'


def test_numbers():
  # Grows by 3 per second, from 10.
  assert server_load.slope([0, 1, 2], [10, 13, 16]) == pytest.approx(3)
  assert server_load.times_of([0.1, 0.2, 0.3]) == {
    'median_ms': 200.0, 'p95_ms': 290.0
  }  # fmt: skip


@pytest.mark.parametrize(
  ('address', 'local'),
  [
    ('127.0.0.1', True),
    ('0.0.0.0', True),
    ('::1', True),
    ('::ffff:127.0.0.1', True),
    ('192.0.2.7', False),
    ('::ffff:192.0.2.7', False),
    ('2001:db8::1', False),
  ],
)
def test_which_addresses_are_local(address, local):
  assert server_process.is_local(address) is local


@pytest.mark.skipif(sys.byteorder != 'little', reason='worked out for x86')
def test_addresses_of_the_kernel():
  # Bytes of each word are reversed: 7f 00 00 01 and 2001:0db8:...:0001.
  assert server_process.unpacked('0100007F') == '127.0.0.1'
  text = 'B80D0120' + '0' * 16 + '01000000'
  assert server_process.unpacked(text) == '2001:db8::1'


@pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc')
def test_a_socket_to_another_host_is_seen():
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
    try:
      # Of documentation (RFC 5737); nothing is sent.
      other.connect(('192.0.2.7', 9))
    except OSError:
      pytest.skip('this machine has no route to other hosts')
    assert '192.0.2.7' in server_process.other_hosts(os.getpid())
