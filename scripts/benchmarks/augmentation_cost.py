"""Times the training step with the paper's augmentation and with all changes.

python scripts/benchmarks/augmentation_cost.py [--width 64]
  [--size 224] [--batch 4]

All changes are every field of the augmentation at a strong value. The two
settings take turns, so that a change of the machine's speed affects both.
Prints medians. Run nothing else on the machine at the same time.
"""

import argparse
import dataclasses
import statistics
import sys
import time

import jax
import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.data import input_pipeline
from skinseg_jax.runtime import compilation, errors
from skinseg_jax.training import augmentation, train_state, train_step

_ALL = config_lib.AugmentationConfig(
  rotation_degrees=180.0,
  quarter_turn=0.75,
  scale=0.25,
  translation=0.1,
  shear_degrees=10.0,
  brightness=0.1,
  contrast=0.2,
  saturation=0.2,
  hue_degrees=10.0,
  gamma=0.2,
  colour_constancy=0.1,
  blur=1.0,
  noise=0.02,
  hair=0.2,
)


def main(argv: list[str]) -> None:
  """Parses the command line, times and prints."""
  parser = argparse.ArgumentParser(description=__doc__)
  for name, default in (('width', 64), ('size', 224), ('batch', 4)):
    parser.add_argument(f'--{name}', type=int, default=default)
  parser.add_argument('--repeats', type=int, default=5)
  args = parser.parse_args(argv[1:])
  for name in ('batch', 'repeats'):
    if getattr(args, name) < 1:
      raise errors.InputError(f'--{name}: must be at least 1.')
  paper = config_lib.Config()
  paper.model.width = args.width
  paper.data.image_size = (args.size, args.size)
  configs = {
    'paper': paper,
    'all': dataclasses.replace(paper, augmentation=_ALL),
  }
  for config in configs.values():
    config_rules.validate(config)
  rng = np.random.default_rng(0)
  shape = (args.batch, args.size, args.size)
  batch = {
    'image': rng.integers(0, 256, (*shape, 3), np.uint8),
    'mask': rng.integers(0, 2, shape).astype(np.uint8),
  }
  batch = jax.device_put(batch, input_pipeline.data_sharding())
  runs = {name: _runs(config, batch) for name, config in configs.items()}
  seconds = {name: ([], []) for name in configs}
  for _ in range(args.repeats):
    for name, functions in runs.items():
      for function, times in zip(functions, seconds[name], strict=True):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
  medians = {n: [statistics.median(t) for t in s] for n, s in seconds.items()}
  for name, (step, alone) in medians.items():
    print(f'{name:6} step {step:.3f} s, only its augmentation {alone:.4f} s')
  (step, alone), (step_all, alone_all) = medians['paper'], medians['all']
  print(
    f'difference: step {(step_all - step) / step:+.1%}, only augmentation'
    f' {(alone_all - alone) / step:+.1%} of the step'
  )


def _runs(config, batch):
  """Functions for one update and one augmentation, both already compiled."""
  static = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  )
  state = static.state
  step = compilation.compile_step(
    train_step.train_step,
    static.graphdef,
    state,
    batch,
    xla_options='auto',
    config=config,
  )
  augment = jax.jit(
    # The step is an argument, so that XLA does not treat it as a constant.
    lambda step, images, masks: augmentation.augment(
      images, masks, step, seed=0, config=config.augmentation
    )
  )

  def run_step():
    nonlocal state
    state, found = step(static.graphdef, state, batch)
    jax.block_until_ready((state, found))

  def run_augment():
    jax.block_until_ready(augment(1, batch['image'], batch['mask']))

  run_step()
  run_augment()
  return run_step, run_augment


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
