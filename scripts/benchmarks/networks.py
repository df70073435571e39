"""Compares a network's speed with that of its PyTorch twin, in turns.

  python scripts/benchmarks/networks.py --architecture unet \
    --encoder efficientnet_lite0 --image_size 128 --batch_size 16

Each side runs in a process of its own, and only one of them runs at a time.
Other programs disturb both alike, so look at the ratios: PyTorch's seconds by
ours, of neighbouring turns. A training step is forward and backward pass, loss
(cross-entropy and Dice) and AdamW, in float32, on noise. A prediction is of one
image, to probabilities on the host. PyTorch runs eagerly, channels last.

Needs the packages torch, torchvision, timm and segmentation-models-pytorch.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import pathlib
import signal
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

# Of segmentation-models-pytorch.
_TWINS = {
  'unet': 'Unet',
  'unetplusplus': 'UnetPlusPlus',
  'fpn': 'FPN',
  'pspnet': 'PSPNet',
  'linknet': 'Linknet',
  'manet': 'MAnet',
  'deeplabv3': 'DeepLabV3',
  'deeplabv3plus': 'DeepLabV3Plus',
}
_KINDS = ('train', 'predict')
# Seconds that a side has the machine to itself in each turn.
_TURN = 2.0

_Steps = dict[str, Callable[[], object]]


def main() -> None:
  """Measures, prints a table and writes it."""
  args = _parser().parse_args()
  context = multiprocessing.get_context('spawn')
  pipes, processes = {}, {}
  for side in ('jax', 'torch'):
    pipes[side], theirs = context.Pipe()
    process = context.Process(
      target=_serve, args=(side, args, theirs), daemon=True
    )
    process.start()
    processes[side] = process
    pipes[side].recv()  # It is warm.
    os.kill(process.pid, signal.SIGSTOP)
  turns = {kind: {side: [] for side in pipes} for kind in _KINDS}
  for _ in range(args.turns):
    for kind in _KINDS:
      for side, pipe in pipes.items():
        # Stopped between its turns: its waiting threads would spin.
        os.kill(processes[side].pid, signal.SIGCONT)
        pipe.send(kind)
        turns[kind][side].append(pipe.recv())
        os.kill(processes[side].pid, signal.SIGSTOP)
  result = {**vars(args), 'output': str(args.output), 'seconds': turns}
  result['ratios'] = {kind: _ratios(turns[kind]) for kind in _KINDS}
  args.output.write_text(json.dumps(result, indent=2))
  print(_table(result))
  for process in processes.values():
    process.kill()


def _parser():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--architecture', choices=_TWINS, default='unet')
  parser.add_argument('--encoder', default='efficientnet_lite0')
  parser.add_argument('--image_size', type=int, default=128)
  parser.add_argument('--batch_size', type=int, default=16)
  parser.add_argument('--turns', type=int, default=8)
  parser.add_argument(
    '--output', type=pathlib.Path, default=pathlib.Path('networks.json')
  )
  return parser


def _ratios(sides: dict[str, list[float]]) -> dict[str, float]:
  ratios = [t / j for j, t in zip(sides['jax'], sides['torch'], strict=True)]
  return {
    'median': statistics.median(ratios),
    'least': min(ratios),
    'greatest': max(ratios),
  }


def _table(result: dict) -> str:
  lines = [
    f'{result["architecture"]} on {result["encoder"]},'
    f' {result["image_size"]} px, training batch {result["batch_size"]}',
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
  from skinseg_jax.models import build
  from skinseg_jax.runtime import compilation

  config = config_lib.ModelConfig(
    architecture=args.architecture, encoder=args.encoder
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
  import torch

  # torchvision's compiled operators may be missing; its import needs the names.
  library = torch.library.Library('torchvision', 'FRAGMENT')
  for name in ('nms', 'qnms'):
    if not hasattr(torch.ops.torchvision, name):
      library.define(
        f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
      )
  smp = importlib.import_module('segmentation_models_pytorch')
  ours = args.encoder
  encoder = ours if ours.startswith('resnet') else f'tu-tf_{ours}'
  model = getattr(smp, _TWINS[args.architecture])(encoder, encoder_weights=None)
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
  main()
