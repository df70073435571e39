"""Writes `report.html`, a page about one evaluation of a run, and figures."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache
from skinseg_jax.evaluation import paper, result_files
from skinseg_jax.metrics import confusion
from skinseg_jax.reporting import (
  figures,
  overlays,
  pages,
  provenance,
  review_page,
)
from skinseg_jax.run import metric_writer

# Number of images of each kind in the gallery.
_CASES = 6

_ATTRIBUTES = {
  'dx': 'Diagnosis (dx)',
  'sex': 'Sex',
  'localization': 'Body site',
  'source': 'Source',
  'age': 'Age in years',
  'lesion_area': 'Area of the lesion (share of the image)',
  'touches_border': 'Lesion touches the border',
  'contrast': 'Contrast between lesion and skin (CIE76)',
  'hair': 'Hair and other dark lines (share of the skin)',
}


def write_all(
  workdir: pathlib.Path, data: cache.CachedData, name: str = 'validation'
) -> None:
  """Writes report, figures and review page of an evaluation.

  Args:
    workdir: Run folder.
    data: The scored images and masks; may contain others.
    name: Name of the evaluation. The pages of 'validation' go to the run folder
      itself, those of any other evaluation to its own folder.

  Raises:
    InputError: If the evaluation is incomplete.
  """
  write_report(workdir, data, name)
  review_page.write_review(workdir, data, name)


def write_report(
  workdir: pathlib.Path, data: cache.CachedData, name: str = 'validation'
) -> pathlib.Path:
  """Writes `report.html` and `figures/*.png`, and the figures to TensorBoard.

  Args:
    workdir: Run folder.
    data: The scored images and masks; may contain others.
    name: Name of the evaluation.

  Returns:
    Path of the page, which needs no other file and no network.

  Raises:
    InputError: If the evaluation is incomplete.
  """
  evaluation = result_files.read(workdir, name)
  config = config_lib.load(workdir / 'config.json')
  as_paper = config.data.split == 'paper' and name == 'validation'
  tiles = _Tiles(evaluation, data)
  gallery = _gallery(evaluation)
  charts = _charts(evaluation, metric_writer.read(workdir), as_paper)
  for kind, indices in gallery.items():
    charts[f'gallery_{kind}'] = overlays.sheet(
      [tiles.pictures(i) for i in indices],
      [tiles.caption(i) for i in indices],
      f'{kind.capitalize()} of {len(evaluation.rows):,} images',
    )
  drawn = _write_figures(evaluation, charts)
  path = evaluation.home / 'report.html'
  pages.write(
    path,
    'report.html',
    run=workdir.resolve().name,
    name=name,
    summary=evaluation.summary,
    headline=_headline(evaluation.summary),
    paper=paper.scores() if as_paper else None,
    per_image=_per_image(evaluation),
    native=_native(evaluation.summary),
    shift=evaluation.summary.get('shift'),
    judged=evaluation.summary.get('review'),
    charts={key: pages.data_uri(png, 'png') for key, png in drawn.items()},
    curves=_present(charts, 'curve_'),
    distributions=_present(charts, 'each_'),
    groups=_groups(evaluation),
    failures=_failures(evaluation, tiles),
    tints=overlays.TINTS,
    gallery={
      kind.capitalize(): [tiles.tile(i) for i in indices]
      for kind, indices in gallery.items()
    },
    identity=provenance.identity(workdir, evaluation),
    differences=provenance.differences(config),
    loss_note=provenance.loss_note(config),
    model=provenance.model(config),
    data_notes=provenance.data_notes(config, evaluation),
    few_dark_skins=provenance.few_dark_skins(config, evaluation),
  )
  return path


def _charts(evaluation, records, as_paper) -> dict[str, Any]:
  """All charts by name, in the order of the page."""
  summary, charts = evaluation.summary, {}
  if any('epoch/number' in record for record in records):
    for name in ('loss', 'dice', 'accuracy'):
      charts[f'curve_{name}'] = figures.training_curve(
        records, name, paper_figures=as_paper
      )
  charts['confusion_matrix'] = figures.confusion_matrix(summary['counts'])
  for name in ('dice', 'iou', 'boundary_f1', 'hd95'):
    charts[f'each_{name}'] = figures.distribution(
      evaluation.column(name),
      name,
      at=confusion.JACCARD_THRESHOLD if name == 'iou' else None,
    )
  marks, points = _operating_points(summary)
  charts['precision_recall'] = figures.precision_recall(
    summary['precision_recall'],
    points,
    summary['calibration']['average_precision'],
  )
  charts['threshold_sweep'] = figures.threshold_sweep(summary['sweep'], marks)
  charts['reliability'] = figures.reliability(
    summary['calibration']['reliability']
  )
  tone = summary['skin_tone']
  if tone['images']:
    charts['skin_tone'] = figures.skin_tone(
      evaluation.column('ita'), evaluation.column('dice')
    )
  lowest = _lowest(evaluation.subgroups)
  for attribute, rows in evaluation.subgroups.items():
    charts[f'forest_{attribute}'] = figures.forest(
      rows,
      summary['pooled']['dice'],
      _ATTRIBUTES[attribute],
      lowest=lowest,
    )
  return charts


def _operating_points(summary) -> tuple[dict, dict]:
  """Thresholds by label, and (recall, precision) at each by label."""
  chosen = {f'threshold {summary["threshold"]:g}': summary}
  thresholds = [summary['threshold']]
  if point := summary['operating_point']:
    chosen[f'{point["threshold"]:.3f}, best on training'] = point
    thresholds.append(point['threshold'])
  return dict(zip(chosen, thresholds, strict=True)), {
    label: (scored['pooled']['recall'], scored['pooled']['precision'])
    for label, scored in chosen.items()
  }


def _lowest(subgroups) -> float:
  """Lower axis limit of all forest plots.

  The lowest interval end, rounded down to a tenth, minus a margin of 0.02.
  """
  ends = [
    row['dice']['value'] if row['dice']['low'] is None else row['dice']['low']
    for rows in subgroups.values()
    for row in rows
  ]
  return max(0.0, np.floor(10 * min(ends, default=0)) / 10 - 0.02)


def _write_figures(
  evaluation: result_files.Evaluation, charts: Mapping[str, Any]
) -> dict[str, bytes]:
  """Writes each chart as a PNG file and to TensorBoard."""
  directory = evaluation.home / 'figures'
  directory.mkdir(parents=True, exist_ok=True)
  drawn = {key: figures.to_png(chart) for key, chart in charts.items()}
  for key, png in drawn.items():
    temporary = directory / f'{key}.tmp'
    temporary.write_bytes(png)
    temporary.replace(directory / f'{key}.png')
  metric_writer.write_images(
    directory,
    evaluation.summary['checkpoint_step'],
    {f'{evaluation.name}/{key}': png for key, png in drawn.items()},
  )
  return drawn


class _Tiles:
  """Pictures and captions of single images."""

  def __init__(
    self, evaluation: result_files.Evaluation, data: cache.CachedData
  ):
    self._evaluation, self._data = evaluation, data
    self._data_index = {name: i for i, name in enumerate(data.image_ids)}

  def pictures(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and overlay, uint8 [h, w, 3] each."""
    source = self._data_index[self._evaluation.image_ids[index]]
    image, truth = self._data.images[source], self._data.masks[source]
    predicted = self._evaluation.prediction(index)
    return overlays.plain(image), overlays.overlay(image, truth, predicted)

  def caption(self, index: int) -> str:
    row = self._evaluation.rows[index]
    kind = f'{row["dx"]}, ' if row.get('dx') else ''
    dice = pages.percent(float(row['dice']), 1)
    return f'{row["image_id"]}: {kind}Dice {dice}'

  def tile(self, index: int) -> dict[str, str]:
    image, tinted = map(overlays.to_jpeg, self.pictures(index))
    return {
      'image_id': self._evaluation.image_ids[index],
      'image': pages.data_uri(image, 'jpeg'),
      'overlay': pages.data_uri(tinted, 'jpeg'),
      'caption': self.caption(index),
    }


def _gallery(evaluation) -> dict[str, Sequence[int]]:
  """Indices of the images to show, by kind; kinds may overlap."""
  ranked = evaluation.ranked()
  middle = max(0, (len(ranked) - _CASES) // 2)
  rng = np.random.default_rng(0)
  drawn = rng.permutation(len(ranked))[:_CASES]
  return {
    'best': ranked[::-1][:_CASES],
    'median': ranked[middle : middle + _CASES],
    'worst': ranked[:_CASES],
    'random': sorted(drawn.tolist()),
  }


def _headline(summary) -> list[dict[str, Any]]:
  pooled = lambda name: {
    'label': f'pooled {figures.LABELS[name]}',
    'name': name,
    'score': summary['pooled'][name],
    'score_ends': summary['pooled_intervals'][name],
  }
  each = lambda name: {
    'label': f'{figures.LABELS[name]} per image',
    'name': name,
    'score': summary['per_image'][name]['mean'],
    'score_ends': summary['per_image'][name],
  }
  return [
    pooled('dice'),
    pooled('iou'),
    each('dice'),
    each('threshold_jaccard'),
    each('hd95'),
    pooled('precision'),
    pooled('recall'),
    pooled('accuracy'),
  ]


def _per_image(evaluation) -> list[dict[str, Any]]:
  rows = []
  for name, ends in evaluation.summary['per_image'].items():
    values = evaluation.column(name)
    bad = 95 if name in figures.DISTANCES else 5
    rows.append(
      {
        'name': name,
        'ends': ends,
        'median': float(np.median(values)),
        'tail': float(np.percentile(values, bad)),
      }
    )
  return rows


def _native(summary) -> list[dict[str, Any]]:
  native = summary['native_size']
  if not native:
    return []
  return [
    {
      'name': name,
      'pooled': native['pooled'].get(name),
      'mean': each['mean'],
    }
    for name, each in native['per_image'].items()
  ]


def _present(charts, prefix: str) -> dict[str, str]:
  """Labels of the charts whose names start with `prefix`."""
  return {
    key: figures.LABELS[key.removeprefix(prefix)]
    for key in charts
    if key.startswith(prefix)
  }


def _groups(evaluation) -> list[dict[str, Any]]:
  return [
    {
      'title': _ATTRIBUTES[attribute],
      'chart': f'forest_{attribute}',
      'rows': rows,
    }
    for attribute, rows in evaluation.subgroups.items()
  ]


def _failures(evaluation, tiles) -> list[dict[str, Any]]:
  index = {name: i for i, name in enumerate(evaluation.image_ids)}
  rows = []
  for row in evaluation.failures:
    tinted = tiles.pictures(index[row['image_id']])[1]
    uri = pages.data_uri(overlays.to_jpeg(tinted), 'jpeg')
    rows.append({**row, 'overlay': uri})
  return rows
