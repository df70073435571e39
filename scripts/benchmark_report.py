"""The table and the chart of what scripts/benchmark.py measured."""

import pathlib
from typing import Any

from matplotlib import figure

# What rows that are compared have in common.
SAME = ('mode', 'precision', 'width', 'image_size', 'batch_size')


def table(report: dict[str, Any]) -> str:
  """The report as Markdown."""
  env = report['environment']
  lines = [
    f'{env["device"]}, {env["processor"]}, {env["cores"]} cores;'
    f' jax {env["packages"]["jax"]}, torch {env["packages"]["torch"]};'
    f' {env["num_images"]} images ({env["data"]}). Images a second: median'
    ' (10th to 90th percentile).',
    '',
    '| mode | width | px | batch | precision | | images/s | JAX is | compile'
    ' | peak memory | of matrix rate |',
    '|---|---|---|---|---|---|---|---|---|---|---|',
  ]
  for row in report['rows']:
    spread = f'{_short(row["p10"])} to {_short(row["p90"])}'
    cells = [
      row['mode'],
      row['width'] or '',
      row['image_size'],
      row['batch_size'],
      row['precision'],
      label(row),
      f'{_short(row["images_per_second"])} ({spread})',
      _ratio_cell(row, report['ratios']),
      f'{row["compile_seconds"]:.1f} s',
      f'{row["peak_memory_bytes"] / 1e9:.2f} GB',
      _share_cell(row, env['matrix_flops_per_second']),
    ]
    lines.append('| ' + ' | '.join(map(str, cells)) + ' |')
  rates = ', '.join(
    f'{rate / 1e12:.3g} Tflop/s in {precision}'
    for precision, rate in env['matrix_flops_per_second'].items()
  )
  return '\n'.join([*lines, '', f'Matrix rate: {rates}.', ''])


def label(row: dict[str, Any]) -> str:
  """Name of what was measured: JAX, PyTorch eager or torch.compile."""
  if row['framework'] == 'jax':
    return 'JAX'
  return 'torch.compile' if row['compiled'] else 'PyTorch'


def _ratio_cell(row, ratios) -> str:
  """JAX over this line of PyTorch's."""
  wanted = {name: row[name] for name in SAME} | {'compiled': row['compiled']}
  for entry in ratios:
    if row['framework'] == 'torch' and wanted.items() <= entry.items():
      spread = f'{entry["p10"]:.2f} to {entry["p90"]:.2f}'
      return f'{entry["ratio"]:.2f} times ({spread})'
  return ''


def _share_cell(row, rates) -> str:
  if row['mode'] != 'compute':
    return ''
  flops = training_flops(row['width'], row['image_size'])
  share = flops * row['images_per_second'] / rates[row['precision']]
  return f'{100 * share:.0f} %'


def chart(report: dict[str, Any], path: pathlib.Path) -> None:
  """Draws images per second of each case over those of eager PyTorch."""
  groups: dict[str, dict[str, float]] = {}
  for row in report['rows']:
    width = f'width {row["width"]}, ' if row['width'] else ''
    name = (
      f'{row["mode"]}, {width}{row["image_size"]} px, batch'
      f' {row["batch_size"]}, {row["precision"]}'
    )
    groups.setdefault(name, {})[label(row)] = row['images_per_second']
  canvas = figure.Figure(figsize=(8, 1 + 0.5 * len(groups)), layout='tight')
  axes = canvas.subplots()
  colours = {'JAX': 'C0', 'PyTorch': 'C7', 'torch.compile': 'C1'}
  for offset, (series, colour) in enumerate(colours.items()):
    bars = [
      (i + 0.27 * (offset - 1), rates[series] / rates['PyTorch'], rates[series])
      for i, rates in enumerate(groups.values())
      if series in rates and 'PyTorch' in rates
    ]
    if not bars:
      continue
    places, lengths, values = zip(*bars, strict=True)
    drawn = axes.barh(places, lengths, 0.26, label=series, color=colour)
    axes.bar_label(
      drawn, [f' {_short(v)} images/s' for v in values], fontsize=7
    )
  axes.set_yticks(range(len(groups)), list(groups))
  axes.invert_yaxis()
  axes.axvline(1, color='black', linewidth=0.8)
  axes.margins(x=0.25)
  axes.set_xlabel('images per second, relative to PyTorch eager channels-last')
  axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.15), ncols=3)
  canvas.savefig(path, dpi=150)


def training_flops(width: int, image_size: int) -> int:
  """Operations of one image's forward and backward pass.

  Two for each multiply-add of a convolution; thrice those of the forward pass,
  less the gradient of the images.
  """
  macs, features = 0, 3
  widths = [width * 2**level for level in range(5)]
  for level, w in enumerate(widths):
    pixels = (image_size >> level) ** 2
    macs += pixels * 9 * (features * w + w * w)
    if level < 4:  # The way up: transposed convolution and double one.
      macs += pixels * (2 * w * w + 9 * (2 * w * w + w * w))
    features = w
  macs += image_size**2 * width
  first = image_size**2 * 9 * 3 * width
  return 2 * (3 * macs - first)


def _short(value: float) -> str:
  return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'
