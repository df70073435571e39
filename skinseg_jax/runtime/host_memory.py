"""Memory of the process, where programs run on the CPU."""

import ctypes
import platform

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
  """Has the C library keep memory that was freed, for the next allocation.

  On a CPU, XLA allocates hundreds of megabytes for each step and frees them
  after it. By default glibc gives such blocks back to the system at once. The
  system then has to clear every page again at its first use, which takes longer
  than many of the operations that use it.

  The process holds its peak of memory until it ends. Must come before other
  threads allocate memory. Does nothing where the C library is not glibc.

  Returns:
    Whether the C library took all settings.
  """
  if platform.libc_ver()[0] != 'glibc':
    return False
  set_option = ctypes.CDLL(None).mallopt
  return all(
    [
      # Blocks come from one heap, whatever their size and thread; the heap
      # never shrinks, and grows by 64 MiB at least.
      set_option(_MMAP_MAX, 0),
      set_option(_ARENA_MAX, 1),
      set_option(_TRIM_THRESHOLD, 2**31 - 1),
      set_option(_TOP_PAD, 2**26),
    ]
  )
