"""Estimates step time by number of H200 GPUs from a model, not measured.

python scripts/benchmarks/scaling_model.py

docs/explanation/scaling.md gives the sources of the figures. To change a
figure, edit the constants below.
"""

import math

# The paper's U-Net, width 64 at 224 x 224.
_FLOP_PER_IMAGE = 221e9
_GRADIENT_BYTES = 4 * 31_037_633
# Sums over devices that the step has to wait for: 18 batch norms, forward and
# backward.
_STATISTICS = 36
# One image and its mask, uint8.
_IMAGE_BYTES = 224 * 224 * 4

# One H200: dense peak in flop/s in bfloat16, and the share of it that we assume
# for these convolutions.
_PEAK, _SHARE = 989e12, 0.4
# Bytes per second that a GPU moves in an all-reduce, at 80 % of the peak: by
# NVLink within a node of 8 GPUs (450 GB/s per direction), and between nodes by
# one 400 Gbit/s port per GPU.
_NVLINK, _NETWORK = 0.8 * 450e9, 0.8 * 50e9
_GPUS_PER_NODE = 8
# Latencies in seconds. NVLink: from the first to the last GPU of a node and
# back. Network: one way, for each doubling of the number of nodes.
_NVLINK_LATENCY, _NETWORK_LATENCY = 15e-6, 8e-6
_PCIE = 0.8 * 64e9


def step(gpus: int, images: int) -> dict[str, float]:
  """Seconds of each part of an update with `images` images per GPU."""
  inside = min(gpus, _GPUS_PER_NODE)
  nodes = gpus // inside
  ring = lambda members: 2 * (members - 1) / members
  latency = 0.0
  if gpus > 1:
    latency = _NVLINK_LATENCY + _NETWORK_LATENCY * 2 * math.log2(nodes)
  return {
    'compute': images * _FLOP_PER_IMAGE / (_PEAK * _SHARE),
    # Summed within a node; each GPU's part is then summed between nodes; the
    # result is spread within the node.
    'gradients': ring(inside) * _GRADIENT_BYTES / _NVLINK
    + ring(nodes) * _GRADIENT_BYTES / inside / _NETWORK
    + latency,
    'statistics': _STATISTICS * latency,
    'input': images * _IMAGE_BYTES / _PCIE,
  }


def main() -> None:
  """Prints the table for 32 images per GPU."""
  images = 32
  print(
    'GPUs  batch   compute  gradients  statistics  step     images/s'
    '  efficiency  host GB/s  10^8 images'
  )
  for gpus in (1, 2, 4, 8, 16, 64, 256, 1024):
    parts = step(gpus, images)
    # The input is copied while the previous step is computed.
    seconds = max(sum(parts.values()) - parts['input'], parts['input'])
    speed = gpus * images / seconds
    ms = {name: f'{1e3 * value:.2f} ms' for name, value in parts.items()}
    print(
      f'{gpus:4}  {gpus * images:6}  {ms["compute"]:8} {ms["gradients"]:10}'
      f' {ms["statistics"]:11} {1e3 * seconds:.1f} ms  {speed:9,.0f} '
      f' {parts["compute"] / seconds:8.0%}    {speed * _IMAGE_BYTES / 1e9:8.1f}'
      f'   {1e8 / speed / 3600:7.2f} h'
    )


if __name__ == '__main__':
  main()
