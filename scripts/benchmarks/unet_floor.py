"""Computes the least work and memory traffic of a U-Net training step.

python scripts/benchmarks/unet_floor.py [--width 64]
  [--image_size 224] [--batch_size 32] [--bytes_per_value 2]
  [--tflops 989] [--gigabytes 3350]

Also prints the least time on a chip with the given Tflop/s and GB/s.

Only the operations of convolutions are counted, two for each multiply-add. A
layer has three products: its output, the gradient of its input and the gradient
of its kernel. Bytes count each value that a product reads or writes once, and
five passes over the output for batch norm with ReLU: two forward, three
backward. A program can need fewer bytes if it fuses a batch norm into its
neighbours, or if a cache keeps values from one layer to the next. Pooling,
concatenation and the optimiser are not counted.
"""

import argparse
import dataclasses


@dataclasses.dataclass(frozen=True)
class Layer:
  """One convolution, and the batch norm that may follow it.

  Attributes:
    name: Path of the layer in the model.
    macs: Multiply-adds in the forward pass of one image.
    values_in: Number of values read for one image.
    values_out: Number of values written for one image.
    weights: Number of values in the kernel.
    norm: Whether batch norm and ReLU follow.
    first: Whether the layer reads the image; it then needs no gradient of its
      input.
  """

  name: str
  macs: int
  values_in: int
  values_out: int
  weights: int
  norm: bool = True
  first: bool = False

  def training_flops(self) -> int:
    """Operations of one image's forward and backward pass."""
    return 2 * self.macs * (2 if self.first else 3)

  def training_bytes(self, batch_size: int, bytes_per_value: int) -> int:
    """Bytes that one step moves."""
    activations = batch_size * (self.values_in + self.values_out)
    norm = 5 * batch_size * self.values_out if self.norm else 0
    products = 2 if self.first else 3
    return bytes_per_value * (products * (activations + self.weights) + norm)


def layers(width: int, image_size: int) -> list[Layer]:
  """All convolutions, in the order of the forward pass."""
  widths = [width * 2**level for level in range(5)]
  pixels = [(image_size >> level) ** 2 for level in range(5)]
  found, features = [], 3
  for level in range(5):
    block = 'bottleneck' if level == 4 else f'downs.{level}'
    found += _double(block, pixels[level], features, widths[level])
    features = widths[level]
  found[0] = dataclasses.replace(found[0], first=True)
  for i, level in enumerate(reversed(range(4))):
    w, p = widths[level], pixels[level]
    found.append(
      # Each output pixel uses one kernel position with 2w input channels.
      Layer(f'ups.{i}', p * 2 * w * w, p // 4 * 2 * w, p * w, 8 * w * w, False)
    )
    found += _double(f'up_blocks.{i}', p, 2 * w, w)
  head = Layer('head', pixels[0] * width, pixels[0] * width, pixels[0], width)
  return [*found, dataclasses.replace(head, norm=False)]


def _double(name: str, pixels: int, c_in: int, c_out: int) -> list[Layer]:
  return [
    Layer(
      f'{name}.conv{i}',
      pixels * 9 * c * c_out,
      pixels * c,
      pixels * c_out,
      9 * c * c_out,
    )
    for i, c in ((1, c_in), (2, c_out))
  ]


def training_flops(width: int, image_size: int) -> int:
  """Operations of one image's forward and backward pass."""
  return sum(layer.training_flops() for layer in layers(width, image_size))


def step_seconds(
  width: int,
  image_size: int,
  *,
  batch_size: int,
  bytes_per_value: int,
  flops_per_second: float,
  bytes_per_second: float,
) -> float:
  """Least time of a training step; each layer is limited by flops or bytes."""
  return sum(
    max(
      batch_size * layer.training_flops() / flops_per_second,
      layer.training_bytes(batch_size, bytes_per_value) / bytes_per_second,
    )
    for layer in layers(width, image_size)
  )


def table(
  width: int, image_size: int, batch_size: int, bytes_per_value: int
) -> str:
  """Markdown table with the operations and bytes of each layer in a step."""
  lines = [
    '| layer | Gflop | GB | flop per byte |',
    '|---|---|---|---|',
  ]
  rows = [
    (
      layer.name,
      batch_size * layer.training_flops(),
      layer.training_bytes(batch_size, bytes_per_value),
    )
    for layer in layers(width, image_size)
  ]
  whole = 'all', sum(row[1] for row in rows), sum(row[2] for row in rows)
  lines += [
    f'| {name} | {flops / 1e9:,.1f} | {moved / 1e9:.3f} | {flops / moved:.0f} |'
    for name, flops, moved in [*rows, whole]
  ]
  return '\n'.join(lines)


def main() -> None:
  """Prints table and time."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--image_size', type=int, default=224)
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument('--bytes_per_value', type=int, default=2)
  # NVIDIA's figures for an H100 SXM: bfloat16 without sparsity, and memory.
  parser.add_argument('--tflops', type=float, default=989.0)
  parser.add_argument('--gigabytes', type=float, default=3350.0)
  args = parser.parse_args()
  net = (args.width, args.image_size)
  print(table(*net, args.batch_size, args.bytes_per_value))
  seconds = step_seconds(
    *net,
    batch_size=args.batch_size,
    bytes_per_value=args.bytes_per_value,
    flops_per_second=1e12 * args.tflops,
    bytes_per_second=1e9 * args.gigabytes,
  )
  print(f'\nat least {1e3 * seconds:.1f} ms a step')


if __name__ == '__main__':
  main()
