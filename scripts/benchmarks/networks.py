"""Compares a network's speed with that of its PyTorch twin, in turns.

  python scripts/benchmarks/networks.py --architecture unet \
    [--encoder efficientnet_lite0 | --width 16] [--image_size 128]
    [--batch_size 16] [--turns 8] [--output networks.json]

Each side runs in a process of its own, and only one of them runs at a time.
Other programs disturb both alike, so look at the ratios: PyTorch's seconds by
ours, of neighbouring turns. A training step is forward and backward pass, loss
(cross-entropy and Dice) and AdamW, in float32, on noise. A prediction is of one
image, to probabilities on the host. PyTorch runs eagerly, channels last.

Rows of earlier networks in the output are kept. Needs what the tests of the
twins need (tests/requirements-twins.txt).
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import signal
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from skinseg_jax.models import build
from skinseg_jax.runtime import errors

_ROOT = pathlib.Path(__file__).parents[2]
_KINDS = ('train', 'predict')
# Seconds that a side has the machine to itself in each turn.
_TURN = 2.0

_Steps = dict[str, Callable[[], object]]


def main(argv: list[str]) -> None:
  """Measures, prints a table and writes it."""
  args = _parser().parse_args(argv[1:])
  sides: dict[str, _Side] = {}
  try:
    for name in ('jax', 'torch'):
      sides[name] = _start(name, args)
    turns = {kind: {name: [] for name in sides} for kind in _KINDS}
    for _ in range(args.turns):
      for kind in _KINDS:
        for name, side in sides.items():
          turns[kind][name].append(side.measure(kind))
  finally:
    for side in sides.values():
      side.process.kill()
  about = {k: v for k, v in vars(args).items() if k != 'output'}
  ratios = {kind: _ratios(turns[kind]) for kind in _KINDS}
  result = {**about, 'seconds': turns, 'ratios': ratios}
  rows = json.loads(args.output.read_text()) if args.output.exists() else {}
  rows[_name(args)] = result
  args.output.write_text(json.dumps(rows, indent=2) + '\n')
  print(_table(_name(args), result))


class _Side(NamedTuple):
  """A process that is stopped unless it measures: its threads would spin."""

  process: multiprocessing.process.BaseProcess
  pipe: Connection

  def measure(self, kind: str) -> float:
    """Seconds of a step of this kind."""
    os.kill(self.process.pid, signal.SIGCONT)
    self.pipe.send(kind)
    seconds = self.pipe.recv()
    os.kill(self.process.pid, signal.SIGSTOP)
    return seconds


def _start(name: str, args: argparse.Namespace) -> _Side:
  context = multiprocessing.get_context('spawn')
  ours, theirs = context.Pipe()
  process = context.Process(target=_serve, args=(name, args, theirs))
  process.start()
  theirs.close()  # So that the end of the process is seen.
  try:
    ours.recv()  # It is warm.
  except EOFError:
    sys.exit(f'the {name} side failed; its error is above')
  os.kill(process.pid, signal.SIGSTOP)
  return _Side(process, ours)


def _parser():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--architecture', choices=build.ARCHITECTURES, default='unet')
  add('--encoder', default='', help='of networks that take one')
  add('--width', type=int, default=64, help='of the others')
  add('--image_size', type=int, default=128)
  add('--batch_size', type=int, default=16)
  add('--turns', type=int, default=8)
  add('--output', type=pathlib.Path, default=pathlib.Path('networks.json'))
  return parser


def _name(args: argparse.Namespace) -> str:
  return f'{args.architecture}, {args.encoder or f"width {args.width}"}'


def _ratios(sides: dict[str, list[float]]) -> dict[str, float]:
  ratios = [t / j for j, t in zip(sides['jax'], sides['torch'], strict=True)]
  return {
    'median': statistics.median(ratios),
    'least': min(ratios),
    'greatest': max(ratios),
  }


def _table(name: str, result: dict) -> str:
  lines = [
    f'{name}, {result["image_size"]} px, batch {result["batch_size"]}',
    '| | PyTorch s | ours s | ratio | least | greatest |',
    '|---|---|---|---|---|---|',
  ]
  for kind in _KINDS:
    ours, theirs = (
      statistics.median(result['seconds'][kind][side])
      for side in ('jax', 'torch')
    )
    ratios = result['ratios'][kind].values()
    numbers = ' | '.join(f'{ratio:.2f}' for ratio in ratios)
    lines.append(f'| {kind} | {theirs:.4f} | {ours:.4f} | {numbers} |')
  return '\n'.join(lines)


def _serve(side: str, args: argparse.Namespace, pipe: Connection) -> None:
  """Answers the name of a kind of step with its seconds."""
  steps = {'jax': _jax_steps, 'torch': _torch_steps}[side](args)
  for step in steps.values():
    step()
    step()
  pipe.send('warm')
  while True:
    step, count = steps[pipe.recv()], 0
    began = time.perf_counter()
    while count == 0 or time.perf_counter() - began < _TURN:
      step()
      count += 1
    pipe.send((time.perf_counter() - began) / count)


def _noise(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
  """Images [B, H, W, 3] and masks [B, H, W, 1], float32."""
  rng = np.random.default_rng(0)
  shape = (args.batch_size, args.image_size, args.image_size)
  images = rng.random((*shape, 3), np.float32)
  return images, (rng.random((*shape, 1)) > 0.5).astype(np.float32)


def _jax_steps(args: argparse.Namespace) -> _Steps:
  import jax
  import jax.numpy as jnp
  import optax
  from flax import nnx

  from skinseg_jax import config as config_lib
  from skinseg_jax.inference import forward_pass
  from skinseg_jax.runtime import compilation

  config = config_lib.ModelConfig(
    architecture=args.architecture, encoder=args.encoder, width=args.width
  )
  model = build.create(config, seed=0)
  optimizer = nnx.Optimizer(
    model, optax.adamw(1e-3, weight_decay=0.05), wrt=nnx.Param
  )
  graphdef, state = nnx.split((model, optimizer))
  evaluation = build.in_evaluation_mode(model)
  weights = jax.tree.map(jnp.copy, nnx.state(model))
  images, masks = map(jnp.asarray, _noise(args))
  image = (images[:1] * 255).astype(jnp.uint8)

  def loss_fn(model, images, masks):
    logits = model(images, key=jax.random.key(0))
    p = jax.nn.sigmoid(logits)
    dice = (2 * (p * masks).sum() + 1) / (p.sum() + masks.sum() + 1)
    return optax.sigmoid_binary_cross_entropy(logits, masks).mean() + 1 - dice

  def train(state, images, masks):
    model, optimizer = nnx.merge(graphdef, state)
    optimizer.update(model, nnx.grad(loss_fn)(model, images, masks))
    return nnx.state((model, optimizer))

  train = compilation.compile_step(
    jax.jit(train, donate_argnums=0), state, images, masks, xla_options='auto'
  )

  def train_once():
    nonlocal state
    state = jax.block_until_ready(train(state, images, masks))

  def predict():  # As every command does it.
    logits = forward_pass.forward(evaluation, weights, image, views='off')
    return np.asarray(forward_pass.probabilities(logits))

  return {'train': train_once, 'predict': predict}


def _torch_steps(args: argparse.Namespace) -> _Steps:
  # Before torch is imported. Nothing else runs: waiting threads may spin.
  os.environ['OMP_WAIT_POLICY'] = 'active'
  helpers = _ROOT / 'tests' / 'helpers' / 'pytorch'
  sys.path += [str(_ROOT / 'scripts'), str(helpers)]
  import torch_reference
  import twins

  torch = twins.torch
  if args.architecture == 'unet' and not args.encoder:
    model = torch_reference.UNet(args.width)
  else:
    model = twins.build(args.architecture, args.encoder, args.width)
  model = model.to(memory_format=torch.channels_last)
  optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
  # A permuted view of NHWC is channels last.
  images, masks = (
    torch.from_numpy(array).permute(0, 3, 1, 2) for array in _noise(args)
  )

  def train():
    model.train()
    optimizer.zero_grad()
    logits = model(images)
    p = logits.sigmoid()
    dice = (2 * (p * masks).sum() + 1) / (p.sum() + masks.sum() + 1)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    (cross_entropy(logits, masks) + 1 - dice).backward()
    optimizer.step()

  @torch.inference_mode()
  def predict():
    model.eval()
    return model(images[:1]).sigmoid().numpy()

  return {'train': train, 'predict': predict}


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
