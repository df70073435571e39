"""The PyTorch side of scripts/benchmark.py."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch_reference as reference
from benchmarks import cases

# How to get a batch, and what to do with it.
_DrawAndStep = tuple[Callable[[], Any], Callable[[Any], Any]]


def set_up(case: cases.Case, data: cases.Data) -> cases.Work:
  """Creates everything that a case needs; compiles nothing yet."""
  on_gpu = torch.cuda.is_available()
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')  # TF32, as for convolutions.
  device = torch.device('cuda' if on_gpu else 'cpu')
  return cases.Work(
    *_SET_UPS[case.mode](case, data, device),
    lambda _: torch.cuda.synchronize() if on_gpu else None,
    torch.cuda.get_device_name() if on_gpu else 'cpu',
    torch.cuda.max_memory_allocated if on_gpu else cases.resident_peak,
  )


def _matrix(
  case: cases.Case, _: cases.Data, device: torch.device
) -> _DrawAndStep:
  pair = [
    torch.from_numpy(m).to(device, getattr(torch, case.precision))
    for m in cases.matrices(case.image_size)
  ]
  return lambda: pair, lambda pair: pair[0] @ pair[1]


def _input(
  case: cases.Case, data: cases.Data, device: torch.device
) -> _DrawAndStep:
  return functools.partial(next, _batches(case, data, device)), lambda x: x


def _batches(
  case: cases.Case, data: cases.Data, device: torch.device
) -> Iterator[Any]:
  examples = reference.list_examples(data.raw_dir)[: data.num_images]
  size = (case.image_size, case.image_size)
  loader = reference.make_loader(
    # Repeated, because the loader pauses after each epoch: epochs shorter than
    # real ones would make it look slower.
    reference.SkinLesionDataset(examples * 100, size, augment=True),
    batch_size=case.batch_size,
    training=True,
    workers=data.workers,
  )
  while True:
    for batch in loader:
      yield reference.to_device(batch, device)


def _predict(
  case: cases.Case, _: cases.Data, device: torch.device
) -> _DrawAndStep:
  model, run = _model(case, device)
  model.eval()
  images = torch.from_numpy(cases.noise(case))
  masks = torch.zeros(images.shape[:3], dtype=torch.uint8)

  @torch.inference_mode()
  def predict(images):
    with reference.autocast(device, case.precision):
      logits = run(reference.to_device((images, masks[:, :1]), device)[0])
    return torch.sigmoid(logits.float()).cpu().numpy()

  return lambda: images, predict


def _model(case: cases.Case, device: torch.device):
  model = reference.make_model(case.width, device)
  return model, torch.compile(model) if case.compiled else model


def _compute(
  case: cases.Case, data: cases.Data, device: torch.device
) -> _DrawAndStep:
  # No workers: nothing may run during the step.
  only = next(_batches(case, dataclasses.replace(data, workers=0), device))
  return lambda: only, _training(case, device)


def _end_to_end(
  case: cases.Case, data: cases.Data, device: torch.device
) -> _DrawAndStep:
  draw = functools.partial(next, _batches(case, data, device))
  return draw, _training(case, device)


def _training(case: cases.Case, device: torch.device) -> Callable[[Any], Any]:
  model, run = _model(case, device)
  optimizer = reference.make_optimizer(model, 1e-3)
  return lambda batch: reference.train_step(
    run, optimizer, *batch, precision=case.precision
  )


_SET_UPS = {
  'matrix': _matrix,
  'input': _input,
  'compute': _compute,
  'end_to_end': _end_to_end,
  'predict': _predict,
}
