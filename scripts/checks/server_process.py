"""A server as a process, its clients, its memory and its sockets. Linux."""

import concurrent.futures
import contextlib
import http.client
import io
import ipaddress
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, Self

from PIL import Image

from skinseg_jax.runtime import errors

# Seconds until the server must have started, answered or ended.
_WAIT = 180
_FORM = {'Content-Type': 'multipart/form-data; boundary=b'}
# Seconds between two looks at the sockets.
_LOOK = 0.1
# What strace prints of a connection or a datagram with an address.
_ADDRESS = re.compile(
  r'(?:inet_addr\(|inet_pton\(AF_INET6, |sin6_addr=)"([^"]+)"'
)


class Got(NamedTuple):
  """An answer; status 0 if there was none."""

  status: int
  retry_after: int
  body: bytes

  def detail(self) -> str:
    """The message of a refusal; '' if it is not one."""
    try:
      found = json.loads(self.body)['detail']
    except (ValueError, KeyError, TypeError):
      return ''
    return found if isinstance(found, str) else ''


def form(data: bytes, *, whole: bool = True) -> bytes:
  """A form with a file; without its last boundary if it is not whole."""
  head = b'Content-Disposition: form-data; name="file"; filename="x.jpg"'
  body = b'--b\r\n' + head + b'\r\n\r\n' + data
  return body + b'\r\n--b--\r\n' if whole else body


def huge_png() -> bytes:
  """A valid file of 25 kB: 20000 x 10000 pixels, all black."""
  file = io.BytesIO()
  Image.new('1', (20_000, 10_000)).save(file, 'PNG')
  return file.getvalue()


class Seen:
  """What clients saw: seconds until answers, and how many other ends.

  Attributes:
    seconds: One for each answer.
    told: Requests that were told to come again.
    failed: All others.
  """

  def __init__(self):
    self.seconds: list[float] = []
    self.told = 0
    self.failed = 0


class Client:
  """A connection that is kept."""

  def __init__(self, port: int):
    self._connection = http.client.HTTPConnection(
      '127.0.0.1', port, timeout=_WAIT
    )

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *error) -> None:
    self._connection.close()

  def connect(self) -> None:
    """Connects before the first request."""
    self._connection.connect()

  def get(self, path: str) -> Got:
    """Asks for a path."""
    return self._request('GET', path, None, {})

  def post(self, body: bytes) -> Got:
    """Sends a form."""
    return self._request('POST', '/predict', body, _FORM)

  def _request(self, *request) -> Got:
    try:
      self._connection.request(*request)
      answer = self._connection.getresponse()
      retry = answer.getheader('Retry-After') or '0'
      return Got(answer.status, int(retry), answer.read())
    except (OSError, http.client.HTTPException) as error:
      self._connection.close()
      return Got(0, 0, repr(error).encode())


class Server:
  """`python -m skinseg_jax.serve`, until the end of the block.

  Attributes:
    started_after: Seconds until it listened.
    code: Exit code, after the block.
    problems: What it printed on stderr, after the block.
    looks: How often its sockets were looked at.
  """

  def __init__(self, flags: list[str], before: tuple[str, ...] = ()):
    """Starts nothing yet.

    Args:
      flags: Of the command, without the port.
      before: Words before the command.
    """
    serve = [sys.executable, '-m', 'skinseg_jax.serve', '--port=0']
    self._command = [*before, *serve, *flags]
    self._others: set[str] = set()
    self._ended = threading.Event()
    self.looks = 0

  def __enter__(self) -> Self:
    began = time.monotonic()
    # Files, because a full pipe would stop the server.
    self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    self._process = subprocess.Popen(
      self._command, stdout=self._out, stderr=self._err
    )
    self._watch = threading.Thread(target=self._look, daemon=True)
    self._watch.start()
    try:
      self.port = self._listening()
    except BaseException:
      self._process.kill()
      raise
    self.started_after = time.monotonic() - began
    return self

  def __exit__(self, *error) -> None:
    os.kill(self.pid, signal.SIGTERM)
    try:
      self.code = self._process.wait(_WAIT)
    finally:
      self._process.kill()
      self._ended.set()
      self._watch.join()
    self.problems = _content(self._err)

  @property
  def pid(self) -> int:
    """Of the server itself."""
    return self._process.pid

  def client(self) -> Client:
    """A new connection."""
    return Client(self.port)

  def metric(self, name: str) -> float:
    """A number of `/metrics`."""
    with self.client() as client:
      text = client.get('/metrics').body.decode()
    found = re.search(rf'^{name} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else float('nan')

  def head(self, body: bytes) -> bytes:
    """The head of a request with a form."""
    lines = [
      'POST /predict HTTP/1.1',
      'Host: 127.0.0.1',
      f'Content-Length: {len(body)}',
      *(f'{name}: {value}' for name, value in _FORM.items()),
    ]
    return '\r\n'.join([*lines, '', '']).encode()

  def leave(self, sent: bytes, *, reset: bool) -> None:
    """Sends bytes and goes away, politely or with a reset."""
    with socket.create_connection(('127.0.0.1', self.port), _WAIT) as client:
      client.sendall(sent)
      if reset:
        linger = struct.pack('ii', 1, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

  @contextlib.contextmanager
  def asking(self, clients: int, bodies: list[bytes]) -> Iterator[Seen]:
    """Clients that ask again as soon as they are answered."""
    stop, seen = threading.Event(), Seen()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
      asked = [
        pool.submit(self._ask_until, stop, seen, bodies[n % len(bodies)])
        for n in range(clients)
      ]
      try:
        yield seen
      finally:
        stop.set()
      for client in asked:
        client.result()

  def memory(self) -> float:
    """Resident memory, in MiB."""
    return self._status('VmRSS')

  def peak(self) -> float:
    """Highest resident memory since the start or `forget_peak`, in MiB."""
    return self._status('VmHWM')

  def forget_peak(self) -> None:
    """Sets the peak to what is resident now."""
    pathlib.Path(f'/proc/{self.pid}/clear_refs').write_text('5')

  def other_hosts(self) -> list[str]:
    """Addresses of other hosts that its sockets had."""
    return sorted(self._others)

  def _status(self, name: str) -> float:
    text = pathlib.Path(f'/proc/{self.pid}/status').read_text()
    return int(re.search(rf'{name}:\s+(\d+) kB', text)[1]) / 1024

  def _ask_until(self, stop: threading.Event, seen: Seen, body: bytes) -> None:
    with self.client() as client:
      while not stop.is_set():
        began = time.perf_counter()
        got = client.post(body)
        if got.status == 200:
          seen.seconds.append(time.perf_counter() - began)
        elif got.status == 503 and got.retry_after > 0:
          seen.told += 1
          stop.wait(got.retry_after)
        else:
          seen.failed += 1
          stop.wait(0.1)

  def _listening(self) -> int:
    end = time.monotonic() + _WAIT
    while time.monotonic() < end and self._process.poll() is None:
      found = re.search(r'serving at \S+:(\d+)', _content(self._out))
      if found:
        return int(found[1])
      time.sleep(0.05)
    raise errors.InputError(f'the server did not start: {_content(self._err)}')

  def _look(self) -> None:
    while not self._ended.wait(_LOOK) and self._process.poll() is None:
      # The process may end in between.
      with contextlib.suppress(OSError):
        self._others |= other_hosts(self._process.pid)
        self.looks += 1


class Traced(Server):
  """A server under strace.

  Attributes:
    calls: How many calls that connect or send were seen, after the block.
  """

  def __init__(self, flags: list[str]):
    self._folder = tempfile.TemporaryDirectory()
    self._log = pathlib.Path(self._folder.name) / 'calls'
    calls = 'trace=connect,sendto,sendmsg,sendmmsg'
    super().__init__(
      flags,
      ('strace', '-f', '-qq', '--seccomp-bpf', '-e', calls, '-o',
       str(self._log)),
    )  # fmt: skip

  def __exit__(self, *error) -> None:
    super().__exit__(*error)
    lines = self._log.read_text(errors='replace').splitlines()
    self.calls = len(lines)
    found = {a for line in lines for a in _ADDRESS.findall(line)}
    self._others |= {a for a in found if not is_local(a)}
    self._folder.cleanup()

  @property
  def pid(self) -> int:
    """Of the server: the only child of strace."""
    children = f'/proc/{self._process.pid}/task/{self._process.pid}/children'
    return int(pathlib.Path(children).read_text().split()[0])


def can_trace() -> bool:
  """Whether strace is there and may be used."""
  if not shutil.which('strace'):
    return False
  tried = subprocess.run(
    ['strace', '-f', '-qq', '--seccomp-bpf', '-o', os.devnull, 'true'],
    capture_output=True,
    check=False,
  )
  return tried.returncode == 0


def other_hosts(pid: int) -> set[str]:
  """Addresses of other hosts that open sockets of a process have."""
  found, inodes = set(), set()
  for name in os.listdir(f'/proc/{pid}/fd'):
    # It may have been closed in between.
    with contextlib.suppress(OSError):
      target = os.readlink(f'/proc/{pid}/fd/{name}')
      if target.startswith('socket:['):
        inodes.add(target[8:-1])
  for table in ('tcp', 'tcp6', 'udp', 'udp6'):
    path = pathlib.Path(f'/proc/{pid}/net/{table}')
    for line in path.read_text().splitlines()[1:] if path.exists() else ():
      fields = line.split()
      address = unpacked(fields[2].partition(':')[0])
      if fields[9] in inodes and not is_local(address):
        found.add(address)
  return found


def unpacked(text: str) -> str:
  """An address as /proc/net has it: words of 32 bits of this machine."""
  words = [text[i : i + 8] for i in range(0, len(text), 8)]
  packed = b''.join(struct.pack('=I', int(word, 16)) for word in words)
  return str(ipaddress.ip_address(packed))


def is_local(text: str) -> bool:
  """Whether an address is none, or of this machine."""
  address = ipaddress.ip_address(text)
  mapped = getattr(address, 'ipv4_mapped', None) or address
  return mapped.is_loopback or mapped.is_unspecified


def _content(file) -> str:
  """What another process wrote to a file."""
  size = os.fstat(file.fileno()).st_size
  return os.pread(file.fileno(), size, 0).decode(errors='replace')
