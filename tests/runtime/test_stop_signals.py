"""Signals end a program cleanly, or immediately."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from skinseg_jax.runtime import errors, stop_signals

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _stop_in_order(signum):
  with stop_signals.StopSignals() as stop, stop.deferred():
    assert not stop.reached(1)
    os.kill(os.getpid(), signum)
    assert stop.reached(1)
    assert stop.requested == signal.Signals(signum).name
    yield 'what is under way goes on'


@pytest.mark.parametrize('signum', _SIGNALS)
def test_deferred_signal_is_only_noted(signum):
  stopping = _stop_in_order(signum)
  assert next(stopping) == 'what is under way goes on'
  with pytest.raises(errors.StoppedError, match=signal.Signals(signum).name):
    next(stopping)


def test_interrupt_of_a_command_that_cannot_resume(capsys):
  def interrupted(argv):
    del argv
    raise KeyboardInterrupt

  with pytest.raises(SystemExit) as end:
    errors.exit_with_message(interrupted, [])
  assert end.value.code == 128 + signal.SIGINT
  (line,) = capsys.readouterr().err.strip().splitlines()
  assert line.startswith('stopped by SIGINT')


def _stop_outside():
  with stop_signals.StopSignals():
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError('not reached')


def test_signal_outside_ends_at_once():
  before = [signal.getsignal(signum) for signum in _SIGNALS]
  with pytest.raises(errors.StoppedError, match='SIGTERM'):
    _stop_outside()
  assert [signal.getsignal(signum) for signum in _SIGNALS] == before


def test_other_threads_may_train_too():
  def enter():
    with stop_signals.StopSignals() as stop:
      seen.append(stop.requested)

  seen = []
  thread = threading.Thread(target=enter)
  thread.start()
  thread.join()
  assert seen == ['']


def _run(code: str) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(code)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_second_signal_ends_at_once_even_in_a_long_step():
  # The lock is never released, so no Python code runs in the main thread.
  process = _run("""
    import threading
    from skinseg_jax.runtime import stop_signals
    lock = threading.Lock()
    lock.acquire()
    with stop_signals.StopSignals() as stop, stop.deferred():
      print('ready', flush=True)
      while True:
        lock.acquire()
  """)
  assert process.stdout.readline() == 'ready\n'
  process.send_signal(signal.SIGTERM)
  while 'SIGTERM: stopping after this step' not in process.stderr.readline():
    assert process.poll() is None
  process.send_signal(signal.SIGTERM)
  assert process.wait(60) == 128 + signal.SIGTERM
  process.stdout.close()
  process.stderr.close()


def test_exit_code_for_the_scheduler():
  process = _run("""
    from skinseg_jax.runtime import errors
    def stopped(argv):
      print('saved')
      raise errors.StoppedError('stopped by SIGTERM')
    errors.exit_with_message(stopped, [])
  """)
  assert process.communicate() == ('saved\n', 'stopped by SIGTERM\n')
  assert process.returncode == os.EX_TEMPFAIL == 75
