"""Measures how much longer a full evaluation takes than its forward passes.

python scripts/benchmarks/evaluation.py --workdir DIR [--size 224]

Both process the validation images of a run at the given size. They take turns
in one process, after a pass that compiles. The full evaluation is
`python -m skinseg_jax.evaluate` without the training images and without the
pages.
"""

import argparse
import json
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Sequence

import jax

from skinseg_jax.data import input_pipeline
from skinseg_jax.evaluation import evaluator
from skinseg_jax.inference import forward_pass, trained_model
from skinseg_jax.run import stored_data
from skinseg_jax.runtime import errors


def forward_alone(
  model: trained_model.TrainedModel, run_data: stored_data.RunData
) -> None:
  """Predicts every validation image and waits for the logits."""
  batches = iter(
    input_pipeline.evaluation_batches(
      run_data.data,
      input_pipeline.select(run_data.data, run_data.split.validation),
      batch_size=model.config.evaluation.batch_size,
      sharding=model.sharding,
    )
  )
  for batch in batches:
    logits = forward_pass.forward(
      model.graphdef,
      model.state,
      batch['image'],
      views=model.config.evaluation.test_time_augmentation,
    )
    jax.block_until_ready(logits)
  batches.close()


def full(
  model: trained_model.TrainedModel, run_data: stored_data.RunData
) -> dict[str, int]:
  """Evaluates as the command does and writes files; returns the counts."""
  options = evaluator.Options(training_side=False)
  with tempfile.TemporaryDirectory() as directory:
    outcome = evaluator.evaluate_subset(
      pathlib.Path(directory),
      model,
      run_data,
      subset='validation',
      options=options,
    )
  return outcome.summary['counts']


def main(argv: Sequence[str]) -> None:
  """Measures both in turn and prints JSON."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--size', type=int, default=224, help='pixels')
  parser.add_argument('--repetitions', type=int, default=2)
  args = parser.parse_args(argv[1:])
  model = trained_model.load(args.workdir, 'last')
  model.config.data.image_size = (args.size, args.size)
  run_data = stored_data.open_run_data(args.workdir, model.config.data)
  seconds = {forward_alone: [], full: []}
  forward_alone(model, run_data)  # Compiles, and reads the files once.
  for _ in range(args.repetitions):
    for work, times in seconds.items():
      began = time.perf_counter()
      counts = work(model, run_data)
      times.append(time.perf_counter() - began)
  pairs = zip(seconds[full], seconds[forward_alone], strict=True)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  result = {
    'num_images': len(run_data.split.validation),
    'image_size': args.size,
    'width': model.config.model.width,
    'counts': counts,
    'device': jax.devices()[0].device_kind,
    'forward_seconds': seconds[forward_alone],
    'evaluation_seconds': seconds[full],
    'ratios': [whole / alone for whole, alone in pairs],
    'peak_memory_gb': peak * 1024 / 1e9,
  }
  print(json.dumps(result, indent=2))


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
