"""README and docs agree with the code, and their links work."""

import ast
import importlib.util
import pathlib
import re

import pytest

from skinseg_jax import __main__ as commands
from skinseg_jax import config as config_lib

_ROOT = pathlib.Path(__file__).parents[1]
_PACKAGE = _ROOT / 'skinseg_jax'
_PAGES = sorted(
  [
    *_ROOT.glob('*.md'),
    *(p for p in _ROOT.glob('docs/**/*.md') if '_build' not in p.parts),
  ]
)


def _named(path):
  return str(path.relative_to(_ROOT))


@pytest.fixture(scope='module')
def config_fields():
  path = _ROOT / 'docs' / 'config_fields.py'
  spec = importlib.util.spec_from_file_location('config_fields', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_the_reference_has_every_config_field(config_fields):
  found = config_fields.fields()
  assert sorted(f.name for f in found) == sorted(config_lib.field_names())
  assert not [f.name for f in found if not f.meaning]
  lines = config_fields.markdown().splitlines()
  for field in found:
    term = f'`{field.name}` (default `{field.default}`)'
    (place,) = [i for i, line in enumerate(lines) if term in line]
    assert lines[place + 1] == f': {field.meaning}'
  page = (_ROOT / 'docs/reference/config.md').read_text()
  assert page.count(config_fields.MARKER) == 1


def test_defaults_in_the_reference_are_those_of_the_schema(config_fields):
  # The defaults in the docs, read as Python, must equal those of the code.
  flat = config_lib.flat(config_lib.Config())
  for field in config_fields.fields():
    assert ast.literal_eval(field.default) == flat[field.name]


def _sections():
  text = (_ROOT / 'docs/reference/commands.md').read_text()
  parts = re.split(r'^## (.+)$', text, flags=re.MULTILINE)
  return dict(zip(parts[1::2], parts[2::2], strict=True))


def _flags(path):
  """Names of flags that a command defines, with argparse or absl."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if not isinstance(node, ast.Call) or not node.args:
      continue
    name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
    if name in ('add_workdir', 'add_checkpoint'):  # Of runtime/flags.py.
      found.add('--' + name.removeprefix('add_'))
    first = node.args[0]
    if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
      continue
    if name in ('add', 'add_argument') and first.value.startswith('--'):
      found.add(first.value)
    elif name.startswith('DEFINE_'):
      found.add('--' + first.value)
  return found


def test_the_reference_has_every_command():
  listed = [name for name in _sections() if name in commands._COMMANDS]
  assert listed == list(commands._COMMANDS)


@pytest.mark.parametrize('name', commands._COMMANDS)
def test_the_reference_has_every_flag(name):
  flags = _flags(_PACKAGE / f'{name}.py')
  section = _sections()[name]
  missing = [flag for flag in sorted(flags) if f'`{flag}`' not in section]
  assert not missing


@pytest.mark.parametrize('page', _PAGES, ids=_named)
def test_relative_links_lead_to_files(page):
  text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
  broken = []
  for target in re.findall(r'\]\(([^)\s]+)\)', text):
    if re.match(r'[a-z]+:', target):
      continue
    path, _, anchor = target.partition('#')
    file = page.parent / path if path else page
    if not file.exists() or (anchor and anchor not in _anchors(file)):
      broken.append(target)
  assert not broken


def _anchors(page):
  """Anchors that GitHub and MyST make from headings."""
  headings = re.findall(r'^#+ (.+)$', page.read_text(), flags=re.MULTILINE)
  return {
    re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
    for heading in headings
  }


def test_contributing_names_files_that_exist():
  text = (_ROOT / 'CONTRIBUTING.md').read_text()
  names = re.findall(r'`([\w./]+/[\w.]*|[\w]+\.py)`', text)
  assert len(names) > 40
  missing = [
    name
    for name in names
    if not (_ROOT / name).exists() and not (_PACKAGE / name).exists()
  ]
  # Optional data of the tests and the built docs are not in the repository.
  assert set(missing) <= {'../shared/data/ham10000', 'docs/_build'}


def test_contributing_names_what_its_files_define():
  rows = re.findall(
    r'^\| [^|]+ \| ([^|]+) \| ([^|]+) \|$',
    (_ROOT / 'CONTRIBUTING.md').read_text(),
    flags=re.MULTILINE,
  )
  code = '\n'.join(p.read_text() for p in sorted(_PACKAGE.rglob('*.py')))
  names = {
    name
    for row in rows
    for name in re.findall(r'`(\w+)`', ' '.join(row))
    if name != 'doctor'
  }
  assert len(names) > 30
  defined = r'^(?:  )?(?:def|class) {0}\b|^{0}\b.* = '
  unknown = [
    name
    for name in sorted(names)
    if not re.search(defined.format(re.escape(name)), code, re.MULTILINE)
  ]
  assert not unknown


def test_ci_runs_the_commands_of_the_readme():
  readme = (_ROOT / 'README.md').read_text()
  (install,) = re.findall(r'^pip install .*', readme, re.MULTILINE)
  commands = re.findall(r'^python (-m skinseg_jax.*)', readme, re.MULTILINE)
  ci = (_ROOT / '.ci/run').read_text()
  assert len(commands) == 2
  assert [command for command in commands if command not in ci] == []
  # CI also installs the packages that build the docs.
  assert install == "pip install -e '.[dev]'"
  assert "pip install -q -e '.[dev,docs]'" in ci


def test_tables_of_pages_have_six_columns_at_most():
  wide = [
    f'{_named(page)}: {line}'
    for page in _PAGES
    if 'benchmarks' not in page.parts
    for line in page.read_text().splitlines()
    if re.fullmatch(r'\|(-+\|)+', line) and line.count('|') > 7
  ]
  assert not wide
