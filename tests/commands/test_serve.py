"""The command as a process: address, signals and what it prints."""

import importlib.util
import io
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from fake_images import random_image
from PIL import Image

from skinseg_jax import serve
from skinseg_jax.runtime import errors

needs_packages = pytest.mark.skipif(
  importlib.util.find_spec('fastapi') is None
  or importlib.util.find_spec('uvicorn') is None,
  reason="the extra 'serve' is not installed",
)


def _start(workdir, *flags):
  return subprocess.Popen(
    [sys.executable, '-m', 'skinseg_jax.serve', '--workdir', workdir, *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _form(data, name):
  head = f'Content-Disposition: form-data; name="file"; filename="{name}"'
  body = b'--b\r\n' + head.encode() + b'\r\n\r\n' + data + b'\r\n--b--\r\n'
  return body, {'Content-Type': 'multipart/form-data; boundary=b'}


@needs_packages
def test_serves_until_a_signal_and_finishes_what_has_begun(tiny_run):
  file = io.BytesIO()
  Image.fromarray(random_image(50, 60)).save(file, 'PNG')
  body, headers = _form(file.getvalue(), 'secret_name.png')
  with _start(tiny_run[0], '--port', '0') as server:
    try:
      line = ''
      while 'serving at' not in line:
        line = server.stdout.readline()
        assert line, server.stderr.read()
      url = re.search(r'http://127\.0\.0\.1:\d+', line)[0]
      request = urllib.request.Request(f'{url}/predict', body, headers)
      got = urllib.request.urlopen(request, timeout=60)
      assert got.status == 200
      # What is no form or no HTTP leaves nothing in the log.
      with pytest.raises(urllib.error.HTTPError, match='400'):
        urllib.request.urlopen(
          urllib.request.Request(f'{url}/predict', b'--secret', headers)
        )
      host, port = url.removeprefix('http://').split(':')
      with socket.create_connection((host, int(port)), timeout=60) as odd:
        odd.sendall(b'secret\r\n\r\n')
        assert odd.recv(100).startswith(b'HTTP/1.1 400')
      # A request whose body comes after the signal is answered as well.
      with socket.create_connection((host, int(port)), timeout=60) as late:
        lines = [f'{name}: {value}' for name, value in headers.items()]
        head = '\r\n'.join(
          ['POST /predict HTTP/1.1', 'Host: x', *lines,
           f'Content-Length: {len(body)}', '', '']
        )  # fmt: skip
        late.sendall(head.encode() + body[:100])
        answer = urllib.request.urlopen(f'{url}/healthz', timeout=60)
        assert answer.status == 200  # The first bytes arrived before it.
        server.send_signal(signal.SIGTERM)
        threading.Event().wait(0.5)
        late.sendall(body[100:])
        assert late.recv(100).startswith(b'HTTP/1.1 200')
        while late.recv(1 << 20):
          pass
      out, problems = server.communicate(timeout=60)
    finally:
      server.kill()
  assert server.returncode == 0
  assert out.endswith('stopped\n')
  assert 'secret_name' not in out + problems
  assert not problems


@needs_packages
def test_a_taken_port_is_named(tiny_run):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    with pytest.raises(errors.InputError, match=f'port {port}: .* --port'):
      serve.main(['serve', f'--workdir={tiny_run[0]}', f'--port={port}'])


@needs_packages
@pytest.mark.parametrize('host', ['a..b', ''])
def test_a_host_that_is_no_name_is_quoted(host):
  from skinseg_jax.serving import server

  with pytest.raises(errors.InputError, match=f"--host '{host}', .* give"):
    server.bound(host, 0)


@needs_packages
def test_the_address_for_all_machines_can_be_opened(capsys):
  from skinseg_jax.serving import server

  with server.bound('0.0.0.0', 0) as listener:
    port = listener.getsockname()[1]
    serve._greet(server.url(listener), '0.0.0.0', 'token')
  out = capsys.readouterr().out
  assert f'serving at http://127.0.0.1:{port} ' in out
  assert "from other machines: this machine's name or address" in out


def test_missing_packages_are_named(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.InputError, match=r'skinseg_jax\[serve\]'):
    serve.main(['serve', '--workdir', 'nowhere'])


@pytest.mark.parametrize(
  ('flags', 'about'),
  [
    (['--port', '70000'], '70000 is not a port number'),
    (['--token', ''], 'without spaces'),
    (['--token', 'a b'], 'without spaces'),
  ],
)
def test_wrong_flags_are_explained(capsys, flags, about):
  with pytest.raises(SystemExit) as end:
    serve.main(['serve', *flags])
  assert end.value.code == 2
  assert about in capsys.readouterr().err
