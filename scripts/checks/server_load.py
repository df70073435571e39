"""Puts load on `python -m skinseg_jax.serve` and checks that it stands.

python scripts/checks/server_load.py --output FILE [--workdir DIR]
  [--images DIR] [--quick]

The script starts the server as a process and sends it pictures: one after
another, 50 at once, from clients that go away, and for minutes while it watches
the memory. It sends files that are no pictures, too large or cut. Every
request must get its answer, every mask must be that of its own picture, and the
server must stay healthy, connect to no other host, print nothing and end
without an error. A second server runs under strace, where that is installed.

Measures requests per second and times at 1, 8 and 32 clients. The clients share
the processors with the server unless taskset separates them. FILE gets all
numbers as JSON. The exit code is 1 if a check failed. --quick sends a twentieth
of the requests. Needs Linux.
"""

import argparse
import base64
import concurrent.futures
import dataclasses
import io
import json
import os
import pathlib
import platform
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import server_process
from PIL import Image

from skinseg_jax.data.sources import synthetic
from skinseg_jax.runtime import errors, paths

_SIZE = (450, 600)  # Height and width of the generated pictures.
_PICTURES = 8
# More than the server takes on.
_AT_ONCE = 50
_CLIENTS = (1, 8, 32)
# How much memory may grow under load, in MiB, and how much a refused picture
# may take: it must not be decoded. A batch that comes and goes takes about 80.
_MOST_GROWTH, _MOST_REFUSED = 64, 64
# Share of the pixels of a mask that may differ between two batch sizes.
_ROUNDING = 0.001


@dataclasses.dataclass
class Amounts:
  """How much is sent; times in seconds."""

  sequential: int = 1000
  memory_seconds: float = 120
  settled_seconds: float = 30
  measured_seconds: float = 20

  def divided(self, by: int) -> 'Amounts':
    """All of it, divided by a number."""
    return Amounts(
      self.sequential // by, *(v / by for v in dataclasses.astuple(self)[1:])
    )


class Report:
  """Numbers and failed checks."""

  def __init__(self):
    self.values: dict = {}
    self.failed: list[str] = []

  def check(self, good: bool, about: str) -> None:
    """Notes a check that failed."""
    if not good:
      self.failed.append(about)
      print(f'FAILED: {about}', flush=True)

  def add(self, name: str, values: dict) -> None:
    """Keeps and prints the numbers of a part."""
    self.values[name] = values
    print(f'{name}: {json.dumps(values)}', flush=True)


def pictures(folder: pathlib.Path | None) -> list[bytes]:
  """The files of a folder, or generated lesions as JPEG.

  Raises:
    InputError: If the folder has no files.
  """
  if folder is not None:
    files = [path for path in sorted(folder.glob('*')) if path.is_file()]
    if not files:
      raise errors.InputError(f'--images {folder} is no folder with files')
    return [path.read_bytes() for path in files[:_PICTURES]]
  source = synthetic.SyntheticSource(num_images=_PICTURES, size=_SIZE, seed=0)
  found = []
  for index in range(_PICTURES):
    file = io.BytesIO()
    Image.fromarray(source[index]['image']).save(file, 'JPEG', quality=90)
    found.append(file.getvalue())
  return found


def slope(times: list[float], values: list[float]) -> float:
  """Least squares slope of values over times."""
  return float(np.polyfit(times, values, 1)[0]) if len(times) > 1 else 0.0


def times_of(seconds: list[float]) -> dict[str, float]:
  """Median and 95th percentile, in milliseconds."""
  median, high = np.percentile(seconds, [50, 95]) if seconds else (0, 0)
  return {
    'median_ms': round(float(median) * 1000, 1),
    'p95_ms': round(float(high) * 1000, 1),
  }


def _mask(answer: bytes) -> np.ndarray:
  png = base64.b64decode(json.loads(answer)['mask'])
  return np.asarray(Image.open(io.BytesIO(png))) == 255


class Load:
  """All parts, against one server."""

  def __init__(
    self,
    server: server_process.Server,
    files: list[bytes],
    amounts: Amounts,
    report: Report,
  ):
    self._server, self._amounts, self._report = server, amounts, report
    self._files = files
    self._forms = [server_process.form(data) for data in files]
    self._expected: list[bytes] = []

  def run(self) -> None:
    """Runs the parts in order and checks the health after each."""
    parts: tuple[Callable[[], dict], ...] = (
      self.sequential,
      self.parallel,
      self.disconnecting,
      self.refused,
      self.memory,
      self.throughput,
    )
    for part in parts:
      self._report.add(part.__name__, part())
      self._healthy(part.__name__)

  def sequential(self) -> dict:
    """One client; the same picture must get the same bytes."""
    self._expected = [self._predicted(body) for body in self._forms]
    seconds, lost, different = [], 0, 0
    with self._server.client() as client:
      for number in range(self._amounts.sequential):
        which = number % len(self._forms)
        began = time.perf_counter()
        got = client.post(self._forms[which])
        seconds.append(time.perf_counter() - began)
        lost += got.status != 200
        different += got.status == 200 and got.body != self._expected[which]
    self._check(lost == 0, f'{lost} sequential requests without status 200')
    self._check(different == 0, f'{different} answers changed')
    return {
      'requests': len(seconds),
      'not_200': lost,
      'changed': different,
      **times_of(seconds),
    }

  def parallel(self) -> dict:
    """More clients than the server takes on; some must be told to wait."""
    gate = threading.Barrier(_AT_ONCE)

    def ask(number: int) -> server_process.Got:
      with self._server.client() as client:
        client.connect()
        gate.wait(60)
        return client.post(self._forms[number % len(self._forms)])

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
      got = list(pool.map(ask, range(_AT_ONCE)))
    answered = [(i, g) for i, g in enumerate(got) if g.status == 200]
    told = [g for g in got if g.status in (429, 503) and g.retry_after > 0]
    lost = _AT_ONCE - len(answered) - len(told)
    self._check(lost == 0, f'{lost} of {_AT_ONCE} parallel requests lost')
    self._check(bool(answered), 'no parallel request was predicted')
    wrong = sum(not self._own(i, g.body) for i, g in answered)
    self._check(wrong == 0, f'{wrong} masks are not those of their pictures')
    return {
      'requests': _AT_ONCE,
      'answered': len(answered),
      'told_to_retry': len(told),
      'lost': lost,
      'wrong_masks': wrong,
    }

  def disconnecting(self) -> dict:
    """Clients that go away after a part of the request, or with all of it."""
    body = self._forms[0]
    head = self._server.head(body)
    ends = {
      'in the head': head[:40],
      'before the body': head,
      'in the body': head + body[: len(body) // 2],
      'before the answer': head + body,
    }
    rounds = max(1, self._amounts.sequential // 100)
    for _ in range(rounds):
      for sent in ends.values():
        for reset in (False, True):
          self._server.leave(sent, reset=reset)
    return {'clients': 2 * rounds * len(ends)}

  def refused(self) -> dict:
    """What is no picture, too large or cut gets one clear message."""
    cut = self._files[0][: len(self._files[0]) // 2]
    cases = {
      'a text file named .jpg': (415, b'no picture, but text\n' * 99),
      'a PNG of 200 megapixels': (413, server_process.huge_png()),
      'a file of 60 MB': (413, b'\xff\xd8\xff' + bytes(60_000_000)),
      'a cut picture': (422, cut),
      'a cut form': (400, cut),
    }
    found = {}
    for name, (status, data) in cases.items():
      body = server_process.form(data, whole=name != 'a cut form')
      self._server.forget_peak()
      before = self._server.memory()
      with self._server.client() as client:
        got = client.post(body)
      grown = self._server.peak() - before
      detail = got.detail()
      good = got.status == status and detail and '\n' not in detail
      self._check(bool(good), f'{name}: {got.status} {detail!r}')
      # The upload itself is held for a moment.
      most = _MOST_REFUSED + 2 * len(body) / 2**20
      self._check(grown < most, f'{name} took {grown:.0f} MiB')
      found[name] = {
        'status': got.status, 'detail': detail, 'peak_mib': round(grown, 1)
      }  # fmt: skip
    return found

  def memory(self) -> dict:
    """Samples the memory each second while eight clients ask."""
    began = time.monotonic()
    times, values = [], []
    with self._server.asking(8, self._forms) as seen:
      while (now := time.monotonic() - began) < self._amounts.memory_seconds:
        times.append(now)
        values.append(self._server.memory())
        time.sleep(min(1.0, self._amounts.memory_seconds / 30))
    late = [
      i for i, t in enumerate(times) if t >= self._amounts.settled_seconds
    ]
    rest = [values[i] for i in late]
    # Means, because single samples depend on the batch in progress.
    part = max(1, len(rest) // 6)
    first, last = float(np.mean(rest[:part])), float(np.mean(rest[-part:]))
    trend = slope([times[i] for i in late], rest)
    fitted = trend * (times[-1] - times[late[0]])
    for about, grown in (('ends', last - first), ('tends', fitted)):
      self._check(
        grown < _MOST_GROWTH, f'memory {about} {grown:.0f} MiB higher'
      )
    self._check(seen.failed == 0, f'{seen.failed} requests failed under load')
    settled = f'{self._amounts.settled_seconds:g}_s'
    return {
      'seconds': round(times[-1], 1),
      'requests': len(seen.seconds),
      'told_to_retry': seen.told,
      'failed': seen.failed,
      'mib_at_start': round(values[0], 1),
      f'mib_at_{settled}': round(rest[0], 1),
      'mib_at_end': round(rest[-1], 1),
      f'mean_mib_from_{settled}': round(first, 1),
      'mean_mib_at_end': round(last, 1),
      'mib_lowest': round(min(rest), 1),
      'mib_highest': round(max(rest), 1),
      'mib_per_minute': round(60 * trend, 2),
    }

  def throughput(self) -> dict:
    """Requests per second and their times, at several numbers of clients."""
    found = {}
    for clients in _CLIENTS:
      began = time.monotonic()
      with self._server.asking(clients, self._forms) as seen:
        time.sleep(self._amounts.measured_seconds)
      # Until the last answer.
      lasted = time.monotonic() - began
      self._check(
        seen.failed == 0, f'{seen.failed} failed at {clients} clients'
      )
      found[f'{clients} clients'] = {
        'requests': len(seen.seconds),
        'told_to_retry': seen.told,
        'failed': seen.failed,
        'per_second': round(len(seen.seconds) / lasted, 2),
        **times_of(seen.seconds),
      }
    return found

  def _check(self, good: bool, about: str) -> None:
    self._report.check(good, about)

  def _predicted(self, body: bytes) -> bytes:
    with self._server.client() as client:
      got = client.post(body)
    if got.status != 200:
      raise errors.InputError(
        f'a picture got {got.status} {got.detail()}; --images must hold'
        ' pictures that the server accepts'
      )
    return got.body

  def _own(self, number: int, answer: bytes) -> bool:
    expected = _mask(self._expected[number % len(self._expected)])
    found = _mask(answer)
    same = found.shape == expected.shape
    return same and float((found != expected).mean()) <= _ROUNDING

  def _healthy(self, after: str) -> None:
    """All places are free again, and a picture gets its mask."""
    end = time.monotonic() + 60
    while self._server.metric('skinseg_pending') and time.monotonic() < end:
      time.sleep(0.1)
    self._check(
      self._server.metric('skinseg_pending') == 0,
      f'pictures are still in progress a minute after {after}',
    )
    with self._server.client() as client:
      self._check(client.get('/healthz').status == 200, f'ill after {after}')
    self._check(
      self._own(0, self._predicted(self._forms[0])), f'wrong after {after}'
    )


def traced(flags: list[str], files: list[bytes], report: Report) -> None:
  """Runs a server under strace and lists the addresses it connects to."""
  with server_process.Traced(flags) as server:
    for data in (*files[:3], b'no picture'):
      with server.client() as client:
        client.post(server_process.form(data))
  others = server.other_hosts()
  report.check(not others, f'under strace, connections to {others}')
  report.add('traced', {'calls': server.calls, 'other_hosts': others})


def main(argv: list[str]) -> None:
  """Runs all parts and writes the report."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', required=True, type=paths.user_path)
  parser.add_argument('--workdir', type=paths.user_path)
  parser.add_argument('--images', type=paths.user_path)
  parser.add_argument('--quick', action='store_true')
  args = parser.parse_args(argv[1:])
  flags = [f'--workdir={args.workdir}'] if args.workdir else []
  files = pictures(args.images)
  amounts = Amounts().divided(20) if args.quick else Amounts()
  report = Report()
  report.add(
    'machine',
    {
      'processors': len(os.sched_getaffinity(0)),
      'system': platform.platform(),
      'python': platform.python_version(),
      'load_before': os.getloadavg()[0],
    },
  )
  with server_process.Server(flags) as server:
    report.add('start', {'seconds': round(server.started_after, 1)})
    Load(server, files, amounts, report).run()
  report.check(server.code == 0, f'the server ended with {server.code}')
  report.check(not server.problems, f'it printed {server.problems[:500]!r}')
  others = server.other_hosts()
  report.check(not others, f'sockets to {others}')
  report.add('sockets', {'looks': server.looks, 'other_hosts': others})
  if server_process.can_trace():
    traced(flags, files, report)
  else:
    report.add('traced', {'left out': 'strace cannot be used here'})
  text = json.dumps({**report.values, 'failed': report.failed}, indent=2)
  args.output.write_text(text + '\n', encoding='utf-8')
  sys.exit(bool(report.failed))


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
