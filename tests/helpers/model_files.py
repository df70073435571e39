"""The files by which the folder of a shared model is known, without weights."""

import pathlib


def write(folder: pathlib.Path) -> pathlib.Path:
  """Makes such a folder and returns it."""
  folder.mkdir()
  for name in ('config.json', 'model.json'):
    (folder / name).write_text('{}')
  return folder


def names(folder: pathlib.Path) -> list[str]:
  return sorted(path.name for path in folder.rglob('*'))
