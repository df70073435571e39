"""Writes `review.html`, the page for an expert review of true masks."""

import pathlib

import numpy as np

from skinseg_jax.data import cache
from skinseg_jax.evaluation import result_files
from skinseg_jax.reporting import overlays, pages

# Number of images of each kind on the page.
_CASES = 20


def write_review(
  workdir: pathlib.Path, data: cache.CachedData, name: str = 'validation'
) -> pathlib.Path:
  """Writes `review.html` with the 20 worst images and 20 random others.

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
  data_index = {image_id: i for i, image_id in enumerate(data.image_ids)}
  cases = [
    _case(evaluation, data, i, data_index[evaluation.image_ids[i]], kind)
    for i, kind in _choose(evaluation)
  ]
  path = evaluation.home / 'review.html'
  pages.write(
    path,
    'review.html',
    run=workdir.resolve().name,
    name=name,
    cases=cases,
    total=len(evaluation.rows),
    tints=overlays.TINTS,
    file=f'review_{name}.csv',
    # Decisions concern the true masks, so all checkpoints share them.
    key=f'{evaluation.summary["data"]["fingerprint"]} {name}',
  )
  return path


def _choose(evaluation) -> list[tuple[int, str]]:
  """Indices of the shown images, each with the reason; worst first."""
  ranked = evaluation.ranked()
  worst, others = ranked[:_CASES], sorted(ranked[_CASES:])
  rng = np.random.default_rng(0)
  drawn = rng.permutation(others)[:_CASES].tolist()
  return [(i, f'lowest IoU, rank {n}') for n, i in enumerate(worst, 1)] + [
    (i, 'drawn at random') for i in drawn
  ]


def _case(evaluation, data, index, data_index, kind) -> dict[str, object]:
  image, truth = data.images[data_index], data.masks[data_index]
  predicted = evaluation.prediction(index)
  row = evaluation.rows[index]
  white, black = overlays.TRUE_OUTLINE, overlays.PREDICTED_OUTLINE
  panels = {
    'image': overlays.plain(image),
    _label('truth', truth): overlays.outlined(image, truth, white),
    _label('prediction', predicted): overlays.outlined(image, predicted, black),
    'errors': overlays.error_map(image, truth, predicted),
  }
  return {
    'image_id': row['image_id'],
    'kind': f'{kind}; Dice {pages.percent(float(row["dice"]), 1)}',
    'caption': ', '.join(filter(None, [row['image_id'], row.get('dx', '')])),
    'panels': {
      label: pages.data_uri(overlays.to_jpeg(picture), 'jpeg')
      for label, picture in panels.items()
    },
  }


def _label(what: str, mask: np.ndarray) -> str:
  return what if mask.any() else f'{what}: no lesion'
