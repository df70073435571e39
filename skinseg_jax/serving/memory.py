"""Keeps the memory of a server that runs for long from growing."""

import ctypes

# M_ARENA_MAX of glibc's malloc.h.
_ARENA_MAX = -8
_ARENAS = 2


def share_arenas() -> None:
  """Makes all threads share two parts of the memory.

  glibc gives each thread a part of its own, up to eight for each core, and what
  a thread frees stays in its part. Call it before there are threads. Does
  nothing where the C library is another one.
  """
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:
    mallopt(_ARENA_MAX, _ARENAS)
