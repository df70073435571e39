"""How much the server takes on at once."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterator

from skinseg_jax.serving import refusals

# Seconds after which a client that was turned away may try again.
_RETRY_SECONDS = 2


@dataclasses.dataclass(frozen=True)
class Limits:
  """Bounds of the server.

  Attributes:
    upload_bytes: Largest picture file.
    pixels: Most pixels of a picture.
    pixels_at_once: Most pixels of all pictures that are decoded or predicted
      at a time; at least `pixels`. Other requests wait with their files.
    requests: Most pictures that are uploaded, wait or are predicted.
    upload_seconds: Time in which a file must arrive.
    wait_seconds: Time after which a picture that does not fit is turned away.
  """

  upload_bytes: int = 32 * 1024 * 1024
  pixels: int = 25_000_000
  pixels_at_once: int = 50_000_000
  requests: int = 32
  upload_seconds: float = 60.0
  wait_seconds: float = 60.0


class Admission:
  """Counts requests and turns away those above the limit.

  Everything is called from the thread of the event loop.

  Attributes:
    pending: Requests that are inside.
  """

  def __init__(self, limits: Limits):
    self._limits = limits
    self.pending = 0
    self._pixels = 0
    self._freed = asyncio.Condition()
    # Held by the picture that is next; asyncio.Lock is fair.
    self._next = asyncio.Lock()

  @contextlib.contextmanager
  def request(self) -> Iterator[None]:
    """Holds a place for a request.

    Raises:
      RefusedError: If there is none.
    """
    if self.pending >= self._limits.requests:
      raise self._busy()
    self.pending += 1
    try:
      yield
    finally:
      self.pending -= 1

  @contextlib.asynccontextmanager
  async def pixels(self, count: int) -> AsyncIterator[None]:
    """Waits until a picture of that many pixels fits into memory.

    Pictures go in order of arrival: small ones do not overtake a large one.

    Raises:
      RefusedError: If it does not fit in time.
    """
    fits = lambda: self._pixels + count <= self._limits.pixels_at_once
    try:
      async with (
        asyncio.timeout(self._limits.wait_seconds),
        self._next,
        self._freed,
      ):
        await self._freed.wait_for(fits)
        self._pixels += count
    except TimeoutError as error:
      raise self._busy() from error
    try:
      yield
    finally:
      async with self._freed:
        self._pixels -= count
        self._freed.notify_all()

  def _busy(self) -> refusals.RefusedError:
    return refusals.RefusedError(
      503,
      f'the server is busy with {self.pending} pictures; try again in'
      f' {_RETRY_SECONDS} seconds',
      {'Retry-After': str(_RETRY_SECONDS)},
    )
