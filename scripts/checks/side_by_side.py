"""Continues a training in JAX and in PyTorch on the same batches.

python scripts/checks/side_by_side.py --workdir runs/ham10000_small
  [--checkpoint best] [--steps 200] [--every 10] [--one_in 8]

Both start from the weights and running statistics of the checkpoint with a new
Adam optimiser. They train on the same augmented batches and are scored on the
same validation images, with their running statistics. Prints the loss and the
pooled Dice of both. Works only for runs with the paper's recipe, because the
PyTorch reference implements no other. Needs the extra `torch`.
"""

import argparse
import functools
import importlib.util
import pathlib
import sys

import jax
import numpy as np
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.data import input_pipeline
from skinseg_jax.evaluation import scoring
from skinseg_jax.inference import trained_model
from skinseg_jax.metrics import confusion
from skinseg_jax.run import stored_data
from skinseg_jax.runtime import compilation, errors
from skinseg_jax.training import augmentation, train_state, train_step
from skinseg_jax.weights import torch_layouts

_augment = jax.jit(augmentation.augment, static_argnames=('seed', 'config'))
_BATCH_SIZE = 32  # For evaluation.
# Fields that must have the paper's value; the reference supports no other.
_PAPERS = (
  'model.compute_dtype',
  'train.optimizer',
  'train.schedule',
  'train.ema',
  'train.loss',
  'train.border_smoothing',
  'train.accumulation_steps',
)


class _Jax:
  """The run's model, trained by the package's compiled training step."""

  def __init__(self, model: trained_model.TrainedModel):
    self._model = model
    static = train_state.create(model.config, model.sharding, num_updates=1)
    self._graphdef = static.graphdef
    self._state = train_state.start_from(static.state, model.state)
    config = model.config
    size = (config.train.batch_size, *config.data.image_size)
    uint8 = functools.partial(
      jax.ShapeDtypeStruct, dtype=np.uint8, sharding=model.sharding
    )
    self._train_step = compilation.compile_step(
      train_step.train_step,
      self._graphdef,
      self._state,
      {'image': uint8((*size, 3)), 'mask': uint8(size)},
      xla_options=config.train.xla_options,
      config=config,
    )

  def step(self, batch) -> float:
    self._state, out = self._train_step(self._graphdef, self._state, batch)
    return float(out['loss'])

  def dice(self, batches) -> float:
    counts = scoring.score(
      self._model.graphdef,
      self._state[0],
      batches,
      threshold=0.5,
      views='off',
    )
    return float(confusion.ratios(confusion.pool(counts))['dice'])


class _Torch:
  """The PyTorch reference with the same weights."""

  def __init__(self, model: trained_model.TrainedModel):
    # Imported here, because `_parse` first checks that PyTorch is installed.
    sys.path.append(str(pathlib.Path(__file__).parents[1]))
    import torch_reference

    self._reference = torch_reference
    self._torch = torch = torch_reference.torch
    self._config = model.config
    self._steps = 0
    weights = torch_layouts.from_flax(nnx.merge(model.graphdef, model.state))
    self._net = torch_reference.make_model(
      model.config.model.width, torch.device('cpu')
    )
    self._net.load_state_dict(
      {name: torch.tensor(values) for name, values in weights.items()}
    )
    self._optimizer = torch_reference.make_optimizer(
      self._net, model.config.train.learning_rate
    )

  def step(self, batch) -> float:
    images, masks = _augment(
      batch['image'],
      batch['mask'],
      self._steps,
      seed=self._config.train.seed,
      config=self._config.augmentation,
    )
    self._steps += 1
    self._net.train()
    loss, _ = self._reference.train_step(
      self._net, self._optimizer, *self._tensors(images, masks)
    )
    return float(loss)

  def dice(self, batches) -> float:
    total = np.zeros(4, np.int64)
    self._net.eval()
    iterator = iter(batches)
    for batch in iterator:
      valid = np.asarray(batch['valid'])
      images, masks = self._tensors(
        np.asarray(batch['image'], np.float32)[valid] / 255,
        np.asarray(batch['mask'])[valid],
      )
      with self._torch.inference_mode():
        logits = self._net(images)
        total += self._reference.confusion_counts(logits, masks).numpy()
    iterator.close()
    tp, fp, fn, _ = total.tolist()
    return 2 * tp / (2 * tp + fp + fn)

  def _tensors(self, images, masks):
    """[B, H, W, 3] and [B, H, W] to NCHW, channels-last in memory."""
    return (
      self._torch.tensor(np.asarray(images)).permute(0, 3, 1, 2),
      self._torch.tensor(np.asarray(masks, np.float32))[:, None],
    )


def main(argv: list[str]) -> None:
  """Parses the command line and prints a row every `--every` steps."""
  args = _parse(argv)
  model = trained_model.load(args.workdir, args.checkpoint)
  found, paper = map(config_lib.flat, (model.config, config_lib.Config()))
  for field in _PAPERS:
    if found[field] != paper[field]:
      raise errors.InputError(
        f'{field} of {args.workdir} is {found[field]!r}; the reference'
        f' supports only {paper[field]!r}. Use a run with the recipe of the'
        ' paper.'
      )
  run = stored_data.open_run_data(args.workdir, model.config.data)
  batches = iter(
    input_pipeline.training_batches(
      run.data,
      input_pipeline.select(run.data, run.split.train),
      batch_size=model.config.train.batch_size,
      seed=model.config.train.seed,
      sharding=model.sharding,
    )
  )
  scored = input_pipeline.select(run.data, run.split.validation[:: args.one_in])
  both = _Jax(model), _Torch(model)
  print(f'starts at step {model.step}; scored on {len(scored)} images')
  print(
    '| step | loss, JAX | PyTorch | Dice, JAX | PyTorch |\n' + '|---' * 5 + '|'
  )
  for step in range(1, args.steps + 1):
    batch = next(batches)
    losses = [each.step(batch) for each in both]
    if step % args.every == 0:
      dice = [each.dice(_scoring(run, scored, model)) for each in both]
      cells = [f'{value:.4f}' for value in (*losses, *dice)]
      print(f'| {step} | {" | ".join(cells)} |', flush=True)
  batches.close()


def _scoring(run, indices, model):
  return input_pipeline.evaluation_batches(
    run.data, indices, batch_size=_BATCH_SIZE, sharding=model.sharding
  )


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--workdir', type=pathlib.Path, required=True, help='folder of a run')
  add('--checkpoint', default='best', help='best, last or a step')
  add('--steps', type=int, default=200)
  add('--every', type=int, default=10, help='steps between two scores')
  add('--one_in', type=int, default=8, help='score one in N validation images')
  args = parser.parse_args(argv[1:])
  if min(args.steps, args.every, args.one_in) < 1:
    raise errors.InputError('--steps, --every and --one_in must be at least 1.')
  missing = [n for n in ('torch', 'cv2') if not importlib.util.find_spec(n)]
  if missing:
    raise errors.InputError(
      f'{" and ".join(missing)} missing: pip install "skinseg_jax[torch]"'
    )
  return args


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
