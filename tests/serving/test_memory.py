"""Threads of a server share their memory."""

import ctypes
import subprocess
import sys

import pytest

# Threads that take memory at the same time, and what malloc says of its parts.
_THREADS = """
import ctypes, sys, threading
from skinseg_jax.serving import memory
if sys.argv[1] == 'shared':
  memory.limit_kept()
libc = ctypes.CDLL(None)
gate = threading.Barrier(8)
def take():
  gate.wait()
  libc.malloc(1000)
  gate.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
  thread.start()
for thread in threads:
  thread.join()
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b'w')))
libc.fflush(None)
"""


@pytest.mark.parametrize('kind', ['shared', 'own'])
def test_threads_share_two_parts(kind):
  if not hasattr(ctypes.CDLL(None), 'malloc_info'):
    pytest.skip('the C library is not glibc')
  done = subprocess.run(
    [sys.executable, '-c', _THREADS, kind],
    capture_output=True,
    text=True,
    check=True,
  )
  parts = done.stdout.count('<heap nr=')
  assert parts == 2 if kind == 'shared' else parts > 2
