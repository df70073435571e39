"""Damages files at random; reading one must give a result or one message.

python scripts/checks/fuzz.py [--count 1000] [--seed 0] [--kinds image,zip,...]

For every kind of file, the script writes good files and damages one of them:
it flips bits, cuts, splices or enlarges numbers. The program then reads the
damaged file like any file from a user. A case is a fault if it

- ends in anything but a result or an `InputError`,
- takes more than 30 s of processor time or five minutes by the clock, or
- takes more than 2 GB of memory in addition to the memory at the start.

Each fault is printed with the number that reproduces it. The exit code is 1 if
there are any faults.
"""

import argparse
import collections
import pathlib
import resource
import signal
import sys
import tempfile
import time
import traceback

import fuzz_cases
import numpy as np

from skinseg_jax.runtime import errors

_MOST_SECONDS, _MOST_BYTES = 30, 2 * 2**30
# In seconds by the clock: on a busy machine, work can take much longer.
_MOST_WAITING = 300


class _TooSlowError(BaseException):
  """Not an `Exception`, so that no code treats it as a damaged file."""


def fuzz(
  kind: str, count: int, seed: int
) -> tuple[collections.Counter, list[str]]:
  """Reads `count` damaged files of a kind.

  Returns:
    The number of cases that ended in a 'result' and in a 'message', and a text
    for each fault.
  """
  signal.signal(signal.SIGALRM, _stop)
  signal.signal(signal.SIGPROF, _stop)
  ends, faults = collections.Counter(), []
  with tempfile.TemporaryDirectory() as home:
    read = fuzz_cases.KINDS[kind][0](pathlib.Path(home))
    memory = _peak_memory()
    for number in range(count):
      began = time.process_time()
      signal.alarm(_MOST_WAITING)
      signal.setitimer(signal.ITIMER_PROF, _MOST_SECONDS)
      try:
        read(np.random.default_rng([seed, number]))
        ends['result'] += 1
      except errors.InputError:
        ends['message'] += 1
      except BaseException:
        faults.append(f'{kind} {number}:\n{traceback.format_exc()}')
      finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
      seconds = time.process_time() - began
      if seconds > _MOST_SECONDS:
        faults.append(f'{kind} {number}: took {seconds:.0f} s')
      if _peak_memory() - memory > _MOST_BYTES:
        memory = _peak_memory()
        faults.append(f'{kind} {number}: took more than {_MOST_BYTES} bytes')
  return ends, faults


def _stop(signum, frame):
  raise _TooSlowError


def _peak_memory() -> int:
  """Largest resident set of this process so far, in bytes (on Linux)."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(argv: list[str]) -> None:
  """Parses the command line and prints a line for each kind."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--count', type=int, default=1000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--kinds', default=','.join(fuzz_cases.KINDS))
  args = parser.parse_args(argv[1:])
  kinds = args.kinds.split(',')
  whole = sum(fuzz_cases.KINDS[kind][1] for kind in kinds)
  failed = 0
  for kind in kinds:
    start = _peak_memory()
    began = time.perf_counter()
    ends, faults = fuzz(
      kind, args.count * fuzz_cases.KINDS[kind][1] // whole, args.seed
    )
    print('\n'.join(faults), end='\n' if faults else '')
    print(
      f'{kind}: {ends["result"]} results, {ends["message"]} messages,'
      f' {len(faults)} faults; {time.perf_counter() - began:.0f} s, memory'
      f' {start / 1e9:.2f} to {_peak_memory() / 1e9:.2f} GB',
      flush=True,
    )
    failed += len(faults)
  sys.exit(failed > 0)


if __name__ == '__main__':
  main(sys.argv)
