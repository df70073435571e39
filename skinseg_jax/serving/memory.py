"""Keeps the memory of a server that runs for long from growing."""

import ctypes

# Options of glibc's malloc.h.
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
# Two parts for all threads, where glibc gives each thread a part of its own, up
# to eight for each core. What a thread frees stays in its part.
_ARENAS = 2
# What is larger goes back to the system when it is freed, as pictures do. glibc
# starts with less, but raises it whenever something larger is freed.
_LARGE = 2**18  # Bytes.


def limit_kept() -> None:
  """Limits how much freed memory the process keeps.

  Call it before there are threads. Does nothing where the C library has no
  `mallopt`.
  """
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:
    mallopt(_ARENA_MAX, _ARENAS)
    mallopt(_MMAP_THRESHOLD, _LARGE)
