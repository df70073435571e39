"""A server gives memory back, and its threads share it."""

import ctypes
import re
import subprocess
import sys

import pytest

from skinseg_jax import serve
from skinseg_jax.runtime import errors

_BEGIN = """
import ctypes, sys, threading
from skinseg_jax.serving import memory
if sys.argv[1] == 'limited':
  memory.limit_kept()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
"""
# Threads that take memory at the same time.
_THREADS = """
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
"""
# A picture is freed; then the next one needs memory.
_PICTURES = """
libc.free(libc.malloc(2**23))
libc.malloc(2**20)
"""
# What malloc says of its parts.
_END = """
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b'w')))
libc.fflush(None)
"""


def _malloc_info(script, kind):
  if not hasattr(ctypes.CDLL(None), 'malloc_info'):
    pytest.skip('the C library is not glibc')
  done = subprocess.run(
    [sys.executable, '-c', _BEGIN + script + _END, kind],
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout


@pytest.mark.parametrize('kind', ['limited', 'as it is'])
def test_threads_share_two_parts(kind):
  parts = _malloc_info(_THREADS, kind).count('<heap nr=')
  assert parts == 2 if kind == 'limited' else parts > 2


@pytest.mark.parametrize('kind', ['limited', 'as it is'])
def test_each_picture_has_memory_that_goes_back_to_the_system(kind):
  # By default, glibc takes the second picture from a part that it keeps.
  size = lambda script: int(
    re.findall(r'type="mmap" count="\d+" size="(\d+)"', script)[-1]
  )
  more = size(_malloc_info(_PICTURES, kind)) - size(_malloc_info('', kind))
  assert more >= 2**20 if kind == 'limited' else more < 2**20


def test_serve_limits_memory_before_it_reads_the_model(monkeypatch, tmp_path):
  called = []
  monkeypatch.setattr(serve, 'check_packages', lambda: None)
  monkeypatch.setattr(serve.memory, 'limit_kept', lambda: called.append(True))
  with pytest.raises(errors.InputError):
    serve.main(['serve', f'--workdir={tmp_path}'])
  assert called == [True]
