"""The command predict with the fake model, slow enough to be killed.

python predict_slowly.py FOLDER SECONDS FLAG ...

FOLDER is a scratch folder. Each forward pass takes SECONDS.
"""

import pathlib
import sys
import time

import predict_cases as cases
import pytest

from skinseg_jax.inference import forward_pass, predictor


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  cases.make_model(pytest.MonkeyPatch(), pathlib.Path(argv[1]))
  forward = forward_pass.each_view

  def slow(*args, **views):
    time.sleep(float(argv[2]))
    return forward(*args, **views)

  forward_pass.each_view = slow
  predictor.BATCH_SIZE = 4
  return cases.run(*argv[3:])


if __name__ == '__main__':
  sys.exit(main(sys.argv))
