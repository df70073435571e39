"""Config fields with defaults and comments, read from skinseg_jax/config.py.

Sphinx puts the lists into reference/config.md; a test checks that no field is
missing. It reads the file as text, so it needs none of the package's imports.
"""

import ast
import itertools
import pathlib
from typing import NamedTuple

MARKER = '<!-- config fields -->'
_SCHEMA = pathlib.Path(__file__).parents[1] / 'skinseg_jax' / 'config.py'


class Field(NamedTuple):
  """One field of the schema.

  Attributes:
    name: Dotted name, such as 'train.batch_size'.
    default: The default as it is written.
    meaning: The comment above the field. Neighbours may share one.
  """

  name: str
  default: str
  meaning: str


def fields() -> list[Field]:
  """All fields in the order of the file; those of the top level come first."""
  text = _SCHEMA.read_text(encoding='utf-8')
  classes = {
    node.name: node
    for node in ast.parse(text).body
    if isinstance(node, ast.ClassDef)
  }
  found, nested = [], []
  for statement in _annotated(classes['Config']):
    kind = ast.unparse(statement.annotation)
    if kind in classes:
      prefix = statement.target.id + '.'
      nested += _of_class(classes[kind], prefix, text.splitlines())
    else:
      found += _of_statements([statement], '', text.splitlines())
  return found + nested


def markdown() -> str:
  """A heading and a definition list for each part of the config.

  Neighbours that share a comment become one item.
  """
  lines = []
  parts = itertools.groupby(fields(), lambda f: f.name.rpartition('.')[0])
  for part, members in parts:
    lines += [f'## {part or "Top level"}', '']
    for meaning, group in itertools.groupby(members, lambda f: f.meaning):
      terms = [f'`{f.name}` (default `{f.default}`)' for f in group]
      lines += [', '.join(terms), f': {meaning}', '']
  return '\n'.join(lines)


def _annotated(node: ast.ClassDef) -> list[ast.AnnAssign]:
  return [s for s in node.body if isinstance(s, ast.AnnAssign)]


def _of_class(node, prefix: str, lines: list[str]) -> list[Field]:
  return _of_statements(_annotated(node), prefix, lines)


def _of_statements(statements, prefix: str, lines: list[str]) -> list[Field]:
  found = []
  for statement in statements:
    meaning = _comment_above(statement.lineno, lines)
    if not meaning and found:  # Shares the comment of the field above it.
      meaning = found[-1].meaning
    found.append(
      Field(prefix + statement.target.id, ast.unparse(statement.value), meaning)
    )
  return found


def _comment_above(line: int, lines: list[str]) -> str:
  """The block of comment lines right above a line that counts from 1."""
  block = []
  for text in reversed(lines[: line - 1]):
    if not text.strip().startswith('#'):
      break
    block.insert(0, text.strip().lstrip('#').strip())
  return ' '.join(block)
