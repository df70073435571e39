"""Layers of the package: which folder (room) may import from which others."""

import ast
import functools
import pathlib

import skinseg_jax

_ROOT = pathlib.Path(skinseg_jax.__file__).parent

# A room may import from rooms on lower floors and from itself.
_FLOORS = {
  'runtime': 0,
  'viewer': 0,
  'classical': 1,
  'measures': 1,
  'metrics': 1,
  'models': 1,
  'data': 2,
  'quality': 2,
  'weights': 2,
  'run': 3,
  'diagnostics': 3,
  'inference': 4,
  'evaluation': 5,
  'explanation': 5,
  'exporting': 5,
  'following': 5,
  'serving': 5,
  'folds': 6,
  'reporting': 6,
  'training': 6,
}
# The schema belongs to no room: every room may import it.
_SCHEMA = ('config', 'config_rules')
_COMMANDS = (
  'calibrate_review',
  'compare',
  'cross_validate',
  'doctor',
  'evaluate',
  'explain',
  'export',
  'follow',
  'main',
  'predict',
  'serve',
  'torch_weights',
)
# Commands that use the command line of another command.
_SHARED_COMMANDS = {'cross_validate': 'main', 'torch_weights': 'main'}


@functools.cache
def _modules() -> dict[str, ast.Module]:
  return {
    '.'.join(path.relative_to(_ROOT).with_suffix('').parts): ast.parse(
      path.read_text()
    )
    for path in sorted(_ROOT.rglob('*.py'))
    if path.stem != '__init__'
  }


def _imports(name: str) -> set[str]:
  """Our modules that a module imports, at the top or inside functions."""
  found = set()
  for node in ast.walk(_modules()[name]):
    if isinstance(node, ast.ImportFrom) and node.module:
      package, _, prefix = node.module.partition('.')
      if package == 'skinseg_jax':
        for alias in node.names:
          found.add('.'.join(filter(None, [prefix, alias.name])))
    elif isinstance(node, ast.Import):
      found |= {
        alias.name.partition('.')[2]
        for alias in node.names
        if alias.name.startswith('skinseg_jax.')
      }
  return found


def _room(name: str) -> str:
  return name.partition('.')[0]


def _may_import(name: str, other: str) -> bool:
  ours, theirs = _room(name), _room(other)
  if theirs in _COMMANDS:
    return _SHARED_COMMANDS.get(name) == theirs
  if ours in _COMMANDS or ours == '__main__':
    return True
  if theirs in _SCHEMA:
    return True
  if ours in _SCHEMA:
    return theirs == 'runtime'
  return ours == theirs or _FLOORS[theirs] < _FLOORS[ours]


def test_the_root_holds_commands_the_schema_and_rooms():
  files = {path.name for path in _ROOT.glob('*.py')}
  names = (*_COMMANDS, *_SCHEMA, '__init__', '__main__')
  assert files == {f'{name}.py' for name in names}
  folders = {path.parent.name for path in _ROOT.glob('*/__init__.py')}
  assert folders == set(_FLOORS)


def test_imports_name_modules():
  known = set(_modules())
  unknown = [
    f'{name} imports {other}'
    for name in _modules()
    for other in _imports(name)
    if other not in known
  ]
  assert not unknown


def test_nobody_imports_upwards():
  upwards = [
    f'{name} imports {other}'
    for name in _modules()
    for other in _imports(name)
    if not _may_import(name, other)
  ]
  assert not upwards


def test_no_module_imports_itself_through_others():
  done, open_, cycles = set(), [], []

  def visit(name):
    if name in open_:
      cycles.append(' -> '.join([*open_[open_.index(name) :], name]))
    elif name not in done:
      open_.append(name)
      for other in sorted(_imports(name)):
        visit(other)
      done.add(open_.pop())

  for name in _modules():
    visit(name)
  assert not cycles


def test_no_folder_holds_too_many_modules():
  repository = pathlib.Path(__file__).parents[1]
  trees = (_ROOT, repository / 'scripts', repository / 'tests')
  for folder in {path.parent for tree in trees for path in tree.rglob('*.py')}:
    modules = {p.stem for p in folder.glob('*.py')} - {'__init__', '__main__'}
    if folder == _ROOT:
      modules -= set(_COMMANDS)  # Python's -m fixes where they stand.
    assert len(modules) <= 12, folder


def test_modules_and_functions_are_short():
  for name, tree in _modules().items():
    assert max((n.end_lineno or 0) for n in tree.body) <= 400, name
    for node in ast.walk(tree):
      if isinstance(node, ast.FunctionDef):
        assert node.end_lineno - node.lineno < 60, f'{name}.{node.name}'


def _imports_outside(module: str, tree: ast.AST) -> bool:
  return any(
    (
      isinstance(node, ast.Import)
      and any(a.name.split('.')[0] == module for a in node.names)
    )
    or (
      isinstance(node, ast.ImportFrom)
      and node.module
      and node.module.split('.')[0] == module
    )
    for node in ast.walk(tree)
  )


def test_torch_is_imported_only_when_a_file_of_its_is_read():
  at_import = [
    name
    for name, tree in _modules().items()
    for node in tree.body
    if isinstance(node, ast.Import | ast.ImportFrom)
    and _imports_outside('torch', ast.Module([node], []))
  ]
  assert not at_import


def test_who_may_import_what():
  allowed = {
    'jax': lambda name: (
      not name.startswith('data.') or name == 'data.input_pipeline'
    ),
    'orbax': lambda name: name == 'run.checkpointing',
    'tensorflow': lambda name: name.startswith('exporting.'),
    # Of the extra 'classical'.
    'cv2': lambda name: (
      name.startswith('classical.') or name == 'following.registration'
    ),
    'skimage': lambda name: name.startswith('classical.'),
    # Of the extra 'serve'.
    **dict.fromkeys(
      ('anyio', 'fastapi', 'pydantic', 'starlette', 'uvicorn'),
      lambda name: name.startswith('serving.'),
    ),
    # Only to read .pt files.
    'torch': lambda name: name == 'weights.tensor_files',
  }
  wrong = [
    f'{name} imports {module}'
    for name, tree in _modules().items()
    for module, may in allowed.items()
    if _imports_outside(module, tree) and not may(name)
  ]
  assert not wrong
