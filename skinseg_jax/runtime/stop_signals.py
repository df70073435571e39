"""SIGTERM and SIGINT end a program in order; a second one ends it at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from skinseg_jax.runtime import errors

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
  """Catches both signals from `with` to its end, in the main thread.

  Of several processes none catches them itself: JAX hears SIGTERM, and has all
  of them stop at one step.

  Attributes:
    requested: Name of the signal that came, '' before one does.
  """

  def __init__(self):
    self.requested = ''
    self._deferred = False

  def __enter__(self) -> 'StopSignals':
    self._caught = (
      threading.current_thread() is threading.main_thread()
      and jax.process_count() == 1
    )
    if self._caught:
      self._before = {s: signal.signal(s, self._handle) for s in _SIGNALS}
      self._pipe = os.pipe()
      os.set_blocking(self._pipe[1], False)
      self._fd_before = signal.set_wakeup_fd(
        self._pipe[1], warn_on_full_buffer=False
      )
      self._watcher = threading.Thread(target=self._watch, daemon=True)
      self._watcher.start()
    return self

  def __exit__(self, *_) -> None:
    if self._caught:
      signal.set_wakeup_fd(self._fd_before)
      for signum, handler in self._before.items():
        signal.signal(signum, handler)
      os.close(self._pipe[1])  # The watcher reads the end of the pipe.
      self._watcher.join()
      os.close(self._pipe[0])

  @contextlib.contextmanager
  def deferred(self) -> Iterator[None]:
    """In here a signal is only noted: what is under way must be saved first.

    Elsewhere it raises a `StoppedError`.

    Raises:
      StoppedError: At the end, if a signal came and nobody heeded it.
    """
    self._deferred = True
    try:
      yield
    finally:
      self._deferred = False
    self.check()

  def check(self) -> None:
    """Does nothing, unless a signal came.

    Raises:
      StoppedError: If one did.
    """
    if self.requested:
      raise errors.StoppedError(
        f'stopped by {self.requested}; the same command goes on from the last'
        ' checkpoint.'
      )

  def reached(self, step: int) -> bool:
    """Whether to stop after `step` updates, the same in every process."""
    if jax.process_count() > 1 and not self.requested:
      agreed = multihost_utils.reached_preemption_sync_point(step)
      self.requested = 'SIGTERM' if agreed else ''
    return bool(self.requested)

  def heeded(self, items: Iterable[Any]) -> Iterator[Any]:
    """The same items, but a `StoppedError` before the next if a signal came."""
    for item in items:
      self.check()
      yield item

  def _handle(self, signum: int, frame) -> None:
    del frame
    self.requested = signal.Signals(signum).name
    if not self._deferred:
      self.check()

  def _watch(self) -> None:
    """Heeds signals at once, also while the main thread waits for a step."""
    came = 0
    while byte := os.read(self._pipe[0], 1):
      if byte[0] in _SIGNALS:
        came += 1
        if came == 2:
          os._exit(128 + byte[0])  # What a shell says of one so killed.
        name = signal.Signals(byte[0]).name
        print(
          f'\n{name}: ending after this step; a second one ends at once.',
          file=sys.stderr,
          flush=True,
        )
