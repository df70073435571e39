"""Data flows one way: no module imports one that comes after it."""

import ast
import pathlib

import skinseg_jax

_ROOT = pathlib.Path(skinseg_jax.__file__).parent

# From the bottom up; a module may import those of lower ranks.
_RANKS = {
  'errors': 0,
  'config': 1,
  'compilation': 1,
  'devices': 1,
  'digests': 1,
  'spreadsheets': 1,
  'distributed': 1,
  'config_rules': 2,
  'data.preprocessing': 2,
  'data.raw_files': 3,
  'data.verification': 4,
  'data.sources': 5,  # Opens the sources, inside a function.
  'data.ham10000': 6,
  'data.folder': 6,
  'data.synthetic': 6,
  'data.splits': 6,
  'data.cache': 6,
  'data.input_pipeline': 7,
  'colour': 8,
  'averaging': 8,
  'augmentation': 9,
  'models.winograd': 7,
  'models.blocks': 8,
  'models.unet': 9,
  'losses': 8,
  'metrics': 8,
  'shift': 8,
  'overlays': 8,
  'torch_files': 8,
  'paper': 9,
  'progress': 9,
  'faults': 1,
  'stop_signals': 1,
  'bootstrap': 9,
  'calibration': 9,
  'surface': 9,
  'subgroups': 10,
  'scoring': 10,
  'train_state': 10,
  'checkpointing': 11,
  'run_folder': 11,
  'figures': 12,
  'metric_writer': 12,
  'evaluation_files': 12,
  'trained_model': 12,
  'pages': 13,
  'assessment': 13,
  'predict': 13,
  'provenance': 14,
  'review': 14,
  'results': 14,
  'report': 15,
  'training_side': 15,
  'compare': 15,
  'evaluation': 16,
  'evaluate': 17,
  'train_step': 11,
  'trainer': 17,
  'train': 18,
  'main': 19,
  'doctor': 18,
  'torch_weights': 20,
}


def _modules():
  for path in sorted(_ROOT.rglob('*.py')):
    name = '.'.join(path.relative_to(_ROOT).with_suffix('').parts)
    if not name.endswith('__init__'):
      yield name, ast.parse(path.read_text())


def _imports(tree):
  """Names of our modules imported when the module is."""
  for node in tree.body:
    if isinstance(node, ast.ImportFrom) and node.module:
      prefix = node.module.removeprefix('skinseg_jax').lstrip('.')
      if node.module.startswith('skinseg_jax'):
        for alias in node.names:
          yield '.'.join(filter(None, [prefix, alias.name]))


def test_every_module_has_a_rank():
  assert {name for name, _ in _modules()} == set(_RANKS)


def test_nobody_imports_upwards():
  upwards = [
    f'{name} imports {other}'
    for name, tree in _modules()
    for other in _imports(tree)
    if _RANKS[other] >= _RANKS[name]
  ]
  assert not upwards


def _outside(module, tree):
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
    for name, tree in _modules()
    for node in tree.body
    if _outside('torch', ast.Module([node], []))
    and isinstance(node, ast.Import | ast.ImportFrom)
  ]
  assert not at_import


def test_who_may_import_what():
  allowed = {
    'jax': lambda name: (
      not name.startswith('data.') or name == 'data.input_pipeline'
    ),
    'orbax': lambda name: name == 'checkpointing',
    'tensorflow': lambda name: False,
    # To read a .pt, when one is given.
    'torch': lambda name: name == 'torch_files',
  }
  wrong = [
    f'{name} imports {module}'
    for name, tree in _modules()
    for module, may in allowed.items()
    if _outside(module, tree) and not may(name)
  ]
  assert not wrong
