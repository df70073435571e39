"""The paper's program in PyTorch: data set, U-Net, training and evaluation.

python scripts/torch_reference.py --raw_dir DIR

Tests and benchmarks compare skinseg_jax with this program. In every epoch,
OpenCV decodes, resizes and augments the images in the workers of a DataLoader.
Bytes become floats on the device. `--raw_dir` holds the files of HAM10000 from
Dataverse, zipped or unpacked. Needs the extra `torch`.
"""

import argparse
import contextlib
import functools
import os
import pathlib
import re
import time
import zipfile
from collections.abc import Sequence

if __name__ == '__main__':
  # Set before torch is imported, so that waiting threads sleep. If they spin,
  # they take the cores from the loader's workers, and a step can become a
  # hundred times slower.
  os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils import data

# The paper's split: the first images in the order of ids train, the rest
# validate.
NUM_TRAINING = 8016
ROTATION_DEGREES = 35.0
HORIZONTAL_FLIP, VERTICAL_FLIP = 0.5, 0.1


class DoubleConv(nn.Module):
  """(3x3 convolution, batch norm, ReLU) twice; keeps height and width."""

  def __init__(self, in_features: int, features: int):
    super().__init__()
    self.conv1 = nn.Conv2d(in_features, features, 3, padding=1, bias=False)
    self.norm1 = nn.BatchNorm2d(features)
    self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
    self.norm2 = nn.BatchNorm2d(features)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps [B, in_features, H, W] to [B, features, H, W]."""
    x = functional.relu(self.norm1(self.conv1(x)), inplace=True)
    return functional.relu(self.norm2(self.conv2(x)), inplace=True)


class UNet(nn.Module):
  """The paper's U-Net; `width` is the number of channels of the first level."""

  def __init__(self, width: int):
    super().__init__()
    widths = [width * 2**level for level in range(5)]
    self.downs = nn.ModuleList(map(DoubleConv, [3, *widths[:3]], widths[:4]))
    self.bottleneck = DoubleConv(widths[3], widths[4])
    self.ups = nn.ModuleList(
      nn.ConvTranspose2d(2 * features, features, 2, stride=2)
      for features in reversed(widths[:4])
    )
    self.up_blocks = nn.ModuleList(
      DoubleConv(2 * features, features) for features in reversed(widths[:4])
    )
    self.head = nn.Conv2d(width, 1, 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Predicts logits [B, 1, H, W] of images [B, 3, H, W] in [0, 1]."""
    skips = []
    for down in self.downs:
      x = down(x)
      skips.append(x)
      x = functional.max_pool2d(x, 2)
    x = self.bottleneck(x)
    for up, block in zip(self.ups, self.up_blocks, strict=True):
      x = block(torch.cat([skips.pop(), up(x)], dim=1))
    return self.head(x)


# Path of a file and ''; or path of a zip and the name of a file within it.
_File = tuple[str, str]


def list_examples(raw_dir: pathlib.Path) -> list[tuple[str, _File, _File]]:
  """Pairs images and masks by id: (id, image, mask), in the order of ids."""
  images = _find_files(raw_dir, 'HAM10000_images_part_*', r'(.+)\.jpe?g')
  find_masks = functools.partial(
    _find_files, raw_dir, pattern=r'(.+)_segmentation\.png'
  )
  # In Kaggle's layout, the folder of the masks can have any name.
  masks = find_masks('HAM10000_segmentations*') or find_masks('*')
  if not images or images.keys() != masks.keys():
    raise SystemExit(
      f'{raw_dir}: {len(images)} images and {len(masks)} masks, which do not'
      ' pair up; it must hold the images_part_1, images_part_2 and'
      ' segmentations of HAM10000 as zips or folders'
    )
  return [(name, images[name], masks[name]) for name in sorted(images)]


def _find_files(
  raw_dir: pathlib.Path, containers: str, pattern: str
) -> dict[str, _File]:
  """Files by id, in zips and folders, without the dot files of macOS."""
  found = {}
  for path in sorted(raw_dir.glob(containers)):
    if path.suffix == '.zip':
      with zipfile.ZipFile(path) as archive:
        files = [(str(path), name) for name in archive.namelist()]
    else:
      files = [(str(file), '') for file in sorted(path.rglob('*'))]
    for file in files:
      name = pathlib.PurePath(file[1] or file[0]).name
      match = re.fullmatch(pattern, name, re.IGNORECASE)
      if match and not name.startswith('.'):
        found[match[1]] = file
  return found


@functools.cache
def _open_zip(path: str, process: int) -> zipfile.ZipFile:
  # One per process, because workers that share a file share its position.
  del process
  return zipfile.ZipFile(path)


def _read(file: _File, flags: int) -> np.ndarray:
  path, member = file
  if not member:
    return cv2.imread(path, flags)
  content = _open_zip(path, os.getpid()).read(member)
  return cv2.imdecode(np.frombuffer(content, np.uint8), flags)


class SkinLesionDataset(data.Dataset):
  """Images and masks of skin lesions, resized and optionally augmented."""

  def __init__(
    self,
    examples: Sequence[tuple[str, _File, _File]],
    size: tuple[int, int],
    *,
    augment: bool,
  ):
    """Stores the names of the files.

    Args:
      examples: From `list_examples`.
      size: Height and width to resize to, in pixels.
      augment: Whether to rotate and flip at random.
    """
    self._examples, self._size, self._augment = examples, size, augment

  def __len__(self) -> int:
    return len(self._examples)

  def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image, uint8 [H, W, 3], and mask, uint8 [H, W] in {0, 1}."""
    _, image_file, mask_file = self._examples[index]
    image = cv2.cvtColor(_read(image_file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    mask = _read(mask_file, cv2.IMREAD_GRAYSCALE)
    height, width = self._size
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    if self._augment:
      image, mask = augment(image, mask)
    image = torch.from_numpy(np.ascontiguousarray(image))
    return image, torch.from_numpy((mask > 127).view(np.uint8))


def augment(
  image: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Rotates and flips image and mask together, with random numbers of torch."""
  turn, horizontal, vertical = torch.rand(3).tolist()
  height, width = mask.shape
  matrix = cv2.getRotationMatrix2D(
    ((width - 1) / 2, (height - 1) / 2), ROTATION_DEGREES * (2 * turn - 1), 1
  )
  warp = functools.partial(
    cv2.warpAffine,
    M=matrix,
    dsize=(width, height),
    borderMode=cv2.BORDER_REFLECT_101,
  )
  image = warp(image, flags=cv2.INTER_LINEAR)
  mask = warp(mask, flags=cv2.INTER_NEAREST)
  if horizontal < HORIZONTAL_FLIP:
    image, mask = image[:, ::-1], mask[:, ::-1]
  if vertical < VERTICAL_FLIP:
    image, mask = image[::-1], mask[::-1]
  return image, mask


def make_loader(
  dataset: SkinLesionDataset,
  *,
  batch_size: int,
  training: bool,
  workers: int,
) -> data.DataLoader:
  """Makes batches; for training, shuffles and drops an incomplete last one."""
  return data.DataLoader(
    dataset,
    batch_size,
    shuffle=training,
    drop_last=training,
    num_workers=workers,
    persistent_workers=workers > 0,
    pin_memory=torch.cuda.is_available(),
    worker_init_fn=_init_worker,
  )


def _init_worker(_: int) -> None:
  # One thread per worker; more threads of OpenCV would compete for the cores.
  cv2.setNumThreads(0)


def to_device(
  batch: Sequence[torch.Tensor], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
  """Moves a batch to the device as bytes, then converts it to floats.

  Args:
    batch: Images, uint8 [B, H, W, 3], and masks, uint8 [B, H, W].
    device: Target device.

  Returns:
    Images, float32 [B, 3, H, W] in [0, 1], channels-last in memory; masks,
    float32 [B, 1, H, W].
  """
  images, masks = (x.to(device, non_blocking=True) for x in batch)
  return images.permute(0, 3, 1, 2).float().div_(255), masks[:, None].float()


def make_model(width: int, device: torch.device) -> UNet:
  """A U-Net with PyTorch's initial weights, channels-last in memory."""
  return UNet(width).to(device, memory_format=torch.channels_last)


def make_optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
  """Adam, fused over all parameters."""
  return torch.optim.Adam(model.parameters(), lr=lr, fused=True)


def autocast(device: torch.device, precision: str):
  """A context in which convolutions use bfloat16 if `precision` is bfloat16."""
  if precision == 'bfloat16':
    return torch.autocast(device.type, torch.bfloat16)
  return contextlib.nullcontext()


def confusion_counts(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
  """Counts true and false pixels of a batch: tp, fp, fn, tn, int64 [4]."""
  pred, true = torch.sigmoid(logits) > 0.5, masks > 0.5
  return torch.stack(
    [
      (pred & true).sum(),
      (pred & ~true).sum(),
      (~pred & true).sum(),
      (~pred & ~true).sum(),
    ]
  )


def train_step(
  model: nn.Module,
  optimizer: torch.optim.Optimizer,
  images: torch.Tensor,
  masks: torch.Tensor,
  *,
  precision: str = 'float32',
) -> tuple[torch.Tensor, torch.Tensor]:
  """Makes one update; returns loss and confusion counts, on the device."""
  with autocast(images.device, precision):
    logits = model(images)
  logits = logits.to(masks.dtype)
  loss = functional.binary_cross_entropy_with_logits(logits, masks)
  optimizer.zero_grad(set_to_none=True)
  loss.backward()
  optimizer.step()
  logits = logits.detach()
  return loss.detach(), confusion_counts(logits, masks)


@torch.inference_mode()
def evaluate(
  model: nn.Module, loader: data.DataLoader, *, precision: str = 'float32'
) -> list[int]:
  """Returns tp, fp, fn, tn, pooled over all images."""
  device = next(model.parameters()).device
  total = torch.zeros(4, dtype=torch.int64, device=device)
  model.eval()
  for batch in loader:
    images, masks = to_device(batch, device)
    with autocast(device, precision):
      logits = model(images)
    total += confusion_counts(logits.float(), masks)
  return total.tolist()


def describe(counts: Sequence[int]) -> str:
  """Pooled scores in one line."""
  tp, fp, fn, tn = counts
  return (
    f'Dice {2 * tp / max(2 * tp + fp + fn, 1):.4f},'
    f' accuracy {(tp + tn) / sum(counts):.4f},'
    f' precision {tp / max(tp + fp, 1):.4f},'
    f' recall {tp / max(tp + fn, 1):.4f},'
    f' tp {tp}, fp {fp}, fn {fn}, tn {tn}'
  )


def train_epoch(
  model: nn.Module,
  optimizer: torch.optim.Optimizer,
  loader: data.DataLoader,
  *,
  precision: str,
) -> str:
  """Trains on every batch; returns mean loss and pooled scores in one line."""
  device = next(model.parameters()).device
  model.train()
  results = [
    train_step(model, optimizer, *to_device(batch, device), precision=precision)
    for batch in loader
  ]
  loss = torch.stack([loss for loss, _ in results]).mean().item()
  counts = torch.stack([counts for _, counts in results]).sum(0).tolist()
  return f'loss {loss:.4f}, {describe(counts)}'


def parse_arguments() -> argparse.Namespace:
  """Reads the command line; the defaults are the paper's."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--raw_dir', type=pathlib.Path, required=True)
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--image_size', type=int, nargs=2, default=(224, 224))
  parser.add_argument('--epochs', type=int, default=20)
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument('--learning_rate', type=float, default=1e-3)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument(
    '--precision', choices=['float32', 'bfloat16'], default='float32'
  )
  parser.add_argument('--compile', action='store_true')
  parser.add_argument('--workers', type=int, default=os.cpu_count())
  parser.add_argument(
    '--output', type=pathlib.Path, help='where to save the state_dict (.pt)'
  )
  return parser.parse_args()


def main() -> None:
  """Trains and evaluates on the paper's split."""
  args = parse_arguments()
  torch.manual_seed(args.seed)
  device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
  examples = list_examples(args.raw_dir)
  make = functools.partial(
    make_loader, batch_size=args.batch_size, workers=args.workers
  )
  size = tuple(args.image_size)
  training = make(
    SkinLesionDataset(examples[:NUM_TRAINING], size, augment=True),
    training=True,
  )
  validation = make(
    SkinLesionDataset(examples[NUM_TRAINING:], size, augment=False),
    training=False,
  )
  model = make_model(args.width, device)
  optimizer = make_optimizer(model, args.learning_rate)
  run = torch.compile(model) if args.compile else model
  for epoch in range(1, args.epochs + 1):
    began = time.perf_counter()
    scores = train_epoch(run, optimizer, training, precision=args.precision)
    seconds = time.perf_counter() - began
    print(f'epoch {epoch}: {scores}; {seconds:.0f} s', flush=True)
    counts = evaluate(run, validation, precision=args.precision)
    print(f'  validation: {describe(counts)}', flush=True)
  if args.output:
    torch.save(model.state_dict(), args.output)


if __name__ == '__main__':
  main()
