import platform
import subprocess
import sys

import pytest

# Touches 256 MB twice, and prints how many pages that took the second time.
_PROGRAM = """
import resource
import numpy as np
from skinseg_jax.runtime import host_memory
assert host_memory.keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**25)
before = faults()
np.ones(2**25)
print(faults() - before)
"""


@pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='a setting of glibc'
)
def test_freed_memory_is_used_again_without_new_pages():
  # In a process of its own: the setting stays.
  done = subprocess.run(
    [sys.executable, '-c', _PROGRAM], capture_output=True, text=True, check=True
  )
  # 256 MB have 65,536 pages.
  assert int(done.stdout) < 1000
