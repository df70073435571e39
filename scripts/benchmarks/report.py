"""The table and the chart for the results of scripts/benchmark.py."""

import pathlib
from typing import Any

import numpy as np
from benchmarks import unet_floor

# Fields that are equal in rows that are compared.
SAME = ('mode', 'precision', 'width', 'image_size', 'batch_size')


def table(report: dict[str, Any]) -> str:
  """The report as Markdown."""
  env = report['environment']
  lines = [
    f'{env["device"]}, {env["processor"]}, {env["cores"]} cores;'
    f' jax {env["packages"]["jax"]}, torch {env["packages"]["torch"]};'
    f' {env["num_images"]} images ({env["data"]}). The compared cases took'
    f' {env["repetitions"]} turns of {env["seconds_per_turn"]:g} s each, at'
    ' least one step per turn. "images/s" is the median (10th to 90th'
    ' percentile). "JAX is" is the median ratio over the turns.',
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
  lines += ['', f'Matrix rate: {rates or "not measured"}.']
  lines += _host_lines(report['rows'])
  return '\n'.join([*lines, ''])


def _host_lines(rows: list[dict[str, Any]]) -> list[str]:
  """Lines that give the host work of a step as a share of the step."""
  shares = []
  for host in (row for row in rows if row['mode'] == 'host'):
    wanted = {**host, 'mode': 'compute'}
    for row in rows:
      if all(row[n] == wanted[n] for n in (*SAME, 'framework')):
        share = row['images_per_second'] / host['images_per_second']
        shares.append(
          f'Host work (dispatch, data, logging) of a step at width'
          f' {row["width"]}, {row["image_size"]} px, batch'
          f' {row["batch_size"]}, {row["precision"]}: {100 * share:.2f} % of'
          ' the step.'
        )
  return shares


def label(row: dict[str, Any]) -> str:
  """Name of the measured program: JAX, PyTorch (eager) or torch.compile."""
  if row['framework'] == 'jax':
    return 'JAX'
  return 'torch.compile' if row['compiled'] else 'PyTorch'


def _ratio_cell(row, ratios) -> str:
  """Speed of JAX relative to this row of PyTorch."""
  wanted = {name: row[name] for name in SAME} | {'compiled': row['compiled']}
  for entry in ratios:
    if row['framework'] == 'torch' and wanted.items() <= entry.items():
      spread = f'{entry["p10"]:.2f} to {entry["p90"]:.2f}'
      return f'{entry["ratio"]:.2f} times ({spread})'
  return ''


def _share_cell(row, rates) -> str:
  if row['mode'] != 'compute' or row['precision'] not in rates:
    return ''
  flops = unet_floor.training_flops(row['width'], row['image_size'])
  share = flops * row['images_per_second'] / rates[row['precision']]
  return f'{100 * share:.0f} %'


def chart(report: dict[str, Any], path: pathlib.Path) -> None:
  """Draws the ratios of the table, except those of `input`.

  Bars show medians; lines on them show the 10th to the 90th percentile.
  """
  # Imported here, because every measured process imports this module.
  from matplotlib import figure

  groups: dict[str, dict[bool, dict[str, Any]]] = {}
  for entry in report['ratios']:
    if entry['mode'] == 'input':  # Its bar would dwarf all others.
      continue
    name = (
      f'{entry["mode"]}, width {entry["width"]}, {entry["image_size"]} px,'
      f' batch {entry["batch_size"]}, {entry["precision"]}'
    )
    groups.setdefault(name, {})[entry['compiled']] = entry
  canvas = figure.Figure(figsize=(8, 1 + 0.5 * len(groups)), layout='tight')
  axes = canvas.subplots()
  for compiled, theirs in enumerate(('PyTorch eager', 'torch.compile')):
    places = [i for i, group in enumerate(groups.values()) if compiled in group]
    if not places:
      continue
    entries = [g[compiled] for g in groups.values() if compiled in g]
    p10, ratio, p90 = (
      np.array([entry[key] for entry in entries])
      for key in ('p10', 'ratio', 'p90')
    )
    bars = axes.barh(
      np.array(places) + 0.4 * compiled,
      ratio,
      0.38,
      xerr=[ratio - p10, p90 - ratio],
      label=f'JAX over {theirs}',
    )
    axes.bar_label(bars, [f' {value:.2f}' for value in ratio], fontsize=7)
  middle = 0.2 if any(True in group for group in groups.values()) else 0
  axes.set_yticks(np.arange(len(groups)) + middle, list(groups))
  axes.invert_yaxis()
  axes.axvline(1, color='black', linewidth=0.8)
  axes.margins(x=0.25)
  axes.set_xlabel("JAX's images per second over PyTorch's, channels-last")
  if groups:
    axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.1), ncols=2)
  canvas.savefig(path, dpi=150)


def _short(value: float) -> str:
  return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'
