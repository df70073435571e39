"""The page on which an expert judges true masks."""

import pathlib

import numpy as np

from skinseg_jax.data import cache
from skinseg_jax.evaluation import result_files
from skinseg_jax.reporting import overlays, pages

# Images of each kind on the page.
_CASES = 20


def write_review(
  workdir: pathlib.Path, data: cache.CachedData, name: str = 'validation'
) -> pathlib.Path:
  """Writes `review.html`: the 20 worst images and 20 drawn from the others.

  Args:
    workdir: Folder of a run.
    data: The images and masks that were scored, and maybe others.
    name: Which of its evaluations.

  Returns:
    Path of the page, which needs no other file and no network.

  Raises:
    InputError: If the evaluation is not whole.
  """
  evaluation = result_files.read(workdir, name)
  places = {image_id: i for i, image_id in enumerate(data.image_ids)}
  cases = [
    _case(evaluation, data, index, places[evaluation.image_ids[index]], kind)
    for index, kind in _choose(evaluation)
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
    # Decisions on true masks hold for every checkpoint on the same data.
    key=f'{evaluation.summary["data"]["fingerprint"]} {name}',
  )
  return path


def _choose(evaluation) -> list[tuple[int, str]]:
  """Indices and why they are shown, the worst first."""
  ranked = evaluation.ranked()
  worst, others = ranked[:_CASES], sorted(ranked[_CASES:])
  rng = np.random.default_rng(0)
  drawn = rng.permutation(others)[:_CASES].tolist()
  return [(i, f'{n}. worst by IoU') for n, i in enumerate(worst, 1)] + [
    (i, 'drawn at random') for i in drawn
  ]


def _case(evaluation, data, index, place, kind) -> dict[str, object]:
  image, truth = data.images[place], data.masks[place]
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
