"""What the server has done, in the text format of Prometheus.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/. Counts
responses, pictures and times; nothing about the content of a picture.
"""

import bisect
import collections
import itertools
import threading

MEDIA_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

# Upper ends of the histogram of times, in seconds.
_ENDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Counters:
  """Counts from any thread."""

  def __init__(self):
    self._lock = threading.Lock()
    self._requests: collections.Counter[tuple[str, int]] = collections.Counter()
    self._times = [0] * (len(_ENDS) + 1)
    self._seconds = 0.0
    self._batches = 0
    self._pictures = 0

  def request(self, path: str, status: int) -> None:
    """Counts a response."""
    with self._lock:
      self._requests[path, status] += 1

  def answered(self, seconds: float) -> None:
    """Counts a picture that was answered, and how long that took."""
    with self._lock:
      self._times[bisect.bisect_left(_ENDS, seconds)] += 1
      self._seconds += seconds

  def batch(self, pictures: int) -> None:
    """Counts a forward pass."""
    with self._lock:
      self._batches += 1
      self._pictures += pictures

  def text(self, pending: int, most: int) -> str:
    """All counts.

    Args:
      pending: Pictures that are inside now.
      most: Most that may be.
    """
    with self._lock:
      lines = _family('skinseg_requests_total', 'counter', 'Responses.')
      lines += [
        f'skinseg_requests_total{{path="{path}",code="{code}"}} {count}'
        for (path, code), count in sorted(self._requests.items())
      ]
      lines += _family(
        'skinseg_predict_seconds', 'histogram', 'Time from request to mask.'
      )
      below = list(itertools.accumulate(self._times))
      lines += [
        f'skinseg_predict_seconds_bucket{{le="{end}"}} {count}'
        for end, count in zip((*_ENDS, '+Inf'), below, strict=True)
      ]
      lines += [
        f'skinseg_predict_seconds_sum {self._seconds:.6f}',
        f'skinseg_predict_seconds_count {below[-1]}',
      ]
      for name, kind, about, value in (
        ('batches_total', 'counter', 'Forward passes.', self._batches),
        ('pictures_total', 'counter', 'Pictures in them.', self._pictures),
        ('pending', 'gauge', 'Pictures that are inside now.', pending),
        ('pending_limit', 'gauge', 'Most that may be.', most),
      ):
        lines += _family(f'skinseg_{name}', kind, about)
        lines.append(f'skinseg_{name} {value}')
    return '\n'.join(lines) + '\n'


def _family(name: str, kind: str, about: str) -> list[str]:
  return [f'# HELP {name} {about}', f'# TYPE {name} {kind}']
