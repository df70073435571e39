"""Stops a program cleanly on SIGTERM or SIGINT; a second one kills it."""

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
  """Context manager that catches both signals in the main thread.

  In a run of several processes it catches nothing itself: JAX receives SIGTERM
  and makes all processes stop at the same step.

  Attributes:
    requested: Name of the signal that arrived, '' before one arrives.
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
    """Delays `StoppedError` to the end of the block, so that work can be saved.

    Outside such a block a signal raises a `StoppedError` at once.

    Raises:
      StoppedError: At the end, if a signal arrived and was not handled.
    """
    self._deferred = True
    try:
      yield
    finally:
      self._deferred = False
    self.check()

  def check(self) -> None:
    """Raises an error if a signal has arrived.

    Raises:
      StoppedError: If one has.
    """
    if self.requested:
      raise errors.StoppedError(
        f'stopped by {self.requested}; run the same command again to resume.'
      )

  def reached(self, step: int) -> bool:
    """Returns whether to stop after `step` updates, same in every process."""
    if jax.process_count() > 1 and not self.requested:
      agreed = multihost_utils.reached_preemption_sync_point(step)
      self.requested = 'SIGTERM' if agreed else ''
    return bool(self.requested)

  def heeded(self, items: Iterable[Any]) -> Iterator[Any]:
    """Yields the items; raises `StoppedError` once a signal has arrived."""
    for item in items:
      self.check()
      yield item

  def _handle(self, signum: int, frame) -> None:
    del frame
    self.requested = signal.Signals(signum).name
    if not self._deferred:
      self.check()

  def _watch(self) -> None:
    """Reacts at once to signals, even while the main thread waits."""
    came = 0
    while byte := os.read(self._pipe[0], 1):
      if byte[0] in _SIGNALS:
        came += 1
        if came == 2:
          os._exit(128 + byte[0])  # A shell's exit code for this signal.
        name = signal.Signals(byte[0]).name
        print(
          f'\n{name}: stopping after this step; send it again to stop at once.',
          file=sys.stderr,
          flush=True,
        )
