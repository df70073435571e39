"""Checks that pip finds a wheel of everything on each supported platform.

python scripts/checks/resolve_platforms.py [--extra train]

Nothing is installed and no wheel is kept: pip resolves for another system and
CPython, with wheels alone. Prints one line each; exit code 1 if one fails.
Windows is supported through WSL, which is Linux.
"""

import argparse
import itertools
import pathlib
import subprocess
import sys
import tempfile
import tomllib

from packaging import markers, requirements

_ROOT = pathlib.Path(__file__).parents[2]
# The tags pip accepts there, and what markers see there.
_PLATFORMS = {
  'Linux x86-64': (
    [f'manylinux_2_{minor}_x86_64' for minor in (28, 27, 24, 17)]
    + ['manylinux2014_x86_64'],
    {'sys_platform': 'linux', 'platform_machine': 'x86_64'},
  ),
  'Linux aarch64': (
    [f'manylinux_2_{minor}_aarch64' for minor in (28, 27, 24, 17)]
    + ['manylinux2014_aarch64'],
    {'sys_platform': 'linux', 'platform_machine': 'aarch64'},
  ),
  'macOS arm64': (
    [f'macosx_{major}_0_arm64' for major in (14, 13, 12, 11)],
    {'sys_platform': 'darwin', 'platform_machine': 'arm64'},
  ),
}
_PYTHONS = ('3.11', '3.12', '3.13')
# Pure Python that has no wheel on PyPI; pip builds one where it installs.
_SOURCES_ALONE = ('promise',)


def main() -> None:
  """Resolves every combination and prints the outcomes."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--extra', default='train', help='extra to resolve with')
  extra = parser.parse_args().extra
  failed = False
  with tempfile.TemporaryDirectory() as wheels:
    pip = (sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps')
    subprocess.run([*pip, '-w', wheels, *_SOURCES_ALONE], check=True)
    for name, python in itertools.product(_PLATFORMS, _PYTHONS):
      problem = _resolve(name, python, extra, wheels)
      failed |= bool(problem)
      print(f'{name:15} CPython {python}: {problem or "resolves"}', flush=True)
  sys.exit(failed)


def _resolve(name: str, python: str, extra: str, wheels: str) -> str:
  """'' if pip finds everything, else its last words."""
  tags, seen = _PLATFORMS[name]
  wanted = _requirements({**seen, 'python_version': python}, extra)
  with tempfile.TemporaryDirectory() as target:
    command = [
      *(sys.executable, '-m', 'pip', 'install', '--dry-run', '--quiet'),
      *('--only-binary=:all:', '--target', target),
      *('--find-links', wheels),
      *('--python-version', python, '--implementation', 'cp'),
      *(word for tag in tags for word in ('--platform', tag)),
      *wanted,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
  return done.stderr.strip()[-500:] if done.returncode else ''


def _requirements(seen: dict[str, str], extra: str) -> list[str]:
  """What pip would ask for there.

  pip reads markers with the system it runs on, so ours are read here; those of
  other packages are not.
  """
  project = tomllib.loads((_ROOT / 'pyproject.toml').read_text())['project']
  environment = {**markers.default_environment(), **seen, 'extra': ''}
  waiting, wanted = [*project['dependencies']], []
  waiting += project['optional-dependencies'][extra]
  while waiting:
    one = requirements.Requirement(waiting.pop())
    if one.name == project['name']:  # An extra that names other extras.
      for other in one.extras:
        waiting += project['optional-dependencies'][other]
    elif not one.marker or one.marker.evaluate(environment):
      wanted.append(f'{one.name}{one.specifier}')
  return wanted


if __name__ == '__main__':
  main()
