"""Trains the runs of a study, each in a folder and a process of its own."""

import pathlib
import subprocess
import sys
from collections.abc import Mapping


def train(
  workdir: pathlib.Path, config: str, fields: Mapping[str, object]
) -> None:
  """Trains a run to its end, from where it stopped; not if it has ended.

  Args:
    workdir: Run folder.
    config: Name of the config.
    fields: Values of config fields that differ from it.
  """
  if (workdir / 'report.html').exists():  # The last file of a run.
    return
  print(workdir.name, flush=True)
  command = [sys.executable, '-m', 'skinseg_jax.main']
  command += ['--config', config, '--workdir', str(workdir)]
  command += [f'--config.{field}={value}' for field, value in fields.items()]
  subprocess.run(command, check=True)
