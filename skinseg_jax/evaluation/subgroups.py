"""Scores by group of patients, lesions and images, and the worst images.

Image properties are measured on the image and its true mask. Lengths are shares
of the image's shorter side, so they hardly depend on its size. All bands are
fixed, so tables of different data can be compared. Intervals are per group, so
about one group in twenty lies outside its own interval by chance.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from skinseg_jax.measures import colour, shape, skin
from skinseg_jax.metrics import bootstrap, confusion

UNKNOWN = 'unknown'

# Metadata columns that are used as attributes, and the names of the attributes.
METADATA = {
  'dx': 'dx',
  'sex': 'sex',
  'localization': 'localization',
  'dataset': 'source',
}

# Upper ends (excluded) and names of the bands of each measured attribute.
BANDS = {
  'age': (
    (30, '0-29'),
    (45, '30-44'),
    (60, '45-59'),
    (75, '60-74'),
    (math.inf, '75+'),
  ),
  # Share of the image.
  'lesion_area': (
    (math.ulp(0), 'no lesion'),
    (0.05, 'under 5 %'),
    (0.15, '5 to 15 %'),
    (0.35, '15 to 35 %'),
    (math.inf, '35 % and more'),
  ),
  'touches_border': ((0.5, 'no'), (math.inf, 'yes')),
  # CIE76 colour difference.
  'contrast': (
    (10, 'under 10'),
    (20, '10 to 20'),
    (30, '20 to 30'),
    (math.inf, '30 and more'),
  ),
  # Share of the skin.
  'hair': (
    (0.005, 'under 0.5 %'),
    (0.02, '0.5 to 2 %'),
    (math.inf, '2 % and more'),
  ),
}

# Groups with fewer lesions get a warning.
FEW_LESIONS = 20

# Width of the ring of skin that a lesion is compared with, as a share of the
# shorter side.
_RING = 0.05
# Predicted pieces smaller than this share of the image are ignored.
_PIECE = 0.001
# Of the typology angle, in the summary.
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def measure(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
  """Measures properties of an image and its lesion.

  Args:
    image: RGB, uint8, [H, W, 3].
    mask: Ground truth, nonzero for lesion, [H, W].

  Returns:
    `lesion_area`: Share of the image, in [0, 1].
    `touches_border`: 1 if the lesion has a pixel at the image's edge, else 0.
    `contrast`: Colour difference (CIE76, in CIELAB) between the lesion and a
      ring of skin around it. The ring is 5 % of the shorter side wide. Colours
      are averaged in linear light. NaN if there is no lesion or no ring.
    `hair`: Share of the skin's pixels, in [0, 1], on thin, dark and long
      structures, see `skin.hair`. NaN if there is no skin.
  """
  lesion = mask > 0
  return {
    'lesion_area': float(lesion.mean()),
    'touches_border': float(shape.touches_border(lesion)),
    'contrast': _contrast(image, lesion),
    'hair': _hair(image, lesion),
  }


def _contrast(image: np.ndarray, lesion: np.ndarray) -> float:
  reach = max(1, round(_RING * min(lesion.shape)))
  ring = skin.grown(lesion, reach) & ~lesion
  if not lesion.any() or not ring.any():
    return math.nan
  colours = [colour.mean_lab(image[region]) for region in (lesion, ring)]
  return float(np.linalg.norm(colours[0] - colours[1]))


def _hair(image: np.ndarray, lesion: np.ndarray) -> float:
  if lesion.all():
    return math.nan
  return float(skin.hair(image, lesion).sum() / (~lesion).sum())


def pieces(mask: np.ndarray) -> int:
  """Counts 8-connected pieces of at least 0.1 % of the image, [H, W]."""
  labels, _ = ndimage.label(mask, np.ones((3, 3)))
  sizes = np.bincount(labels.ravel())[1:]
  return int(np.sum(sizes >= _PIECE * mask.size))


def measure_all(
  images: Iterable[np.ndarray], masks: Iterable[np.ndarray]
) -> dict[str, np.ndarray]:
  """Measures many pictures, as `measure`; each value float64 [N]."""
  rows = [measure(*pair) for pair in zip(images, masks, strict=True)]
  return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def attributes(
  metadata: Sequence[Mapping[str, str]], measured: Mapping[str, np.ndarray]
) -> dict[str, list[str]]:
  """Names the group of each image for every attribute.

  Args:
    metadata: A row an image with any of the columns `dx`, `sex`, `age` (in
      years), `localization`, `dataset`; N of them.
    measured: From `measure_all`, [N] each.

  Returns:
    Group names by attribute, N each: `dx`, `sex`, `localization`, `source`,
    `age`, `lesion_area`, `touches_border`, `contrast`, `hair`. Values that are
    missing or cannot be read are 'unknown'. Attributes without any known value
    are left out.
  """
  found = {
    name: [row.get(column, '').strip() or UNKNOWN for row in metadata]
    for column, name in METADATA.items()
  }
  ages = [_number(row.get('age', '')) for row in metadata]
  numbers: dict[str, Iterable[float]] = {'age': ages, **measured}
  for name, values in numbers.items():
    found[name] = [_band(name, value) for value in values]
  return {
    name: values for name, values in found.items() if set(values) - {UNKNOWN}
  }


def _number(text: str) -> float:
  try:
    return float(text)
  except ValueError:
    return math.nan


def _band(name: str, value: float) -> str:
  # Comparisons with NaN are false, so NaN is 'unknown'.
  return next((band for end, band in BANDS[name] if value < end), UNKNOWN)


def table(
  counts: Mapping[str, np.ndarray],
  groups: Mapping[str, Sequence[str]],
  lesions: Sequence[str],
) -> list[dict[str, Any]]:
  """Scores every group.

  Args:
    counts: `tp`, `fp`, `fn`, `tn`, integers, [N].
    groups: From `attributes`, N names each.
    lesions: Lesion of each image, N names.

  Returns:
    Rows for JSON. `attribute` and `group` name the group; `images` and
    `lesions` are its numbers of images and lesions. `dice` (pooled),
    `mean_dice` and `threshold_jaccard` (means over images) are each a
    `bootstrap.Interval` as a dict. `warning` is '' if there are enough lesions.
    Bands are in ascending order, other groups are sorted by name.
  """
  counts = {name: np.asarray(counts[name]) for name in confusion.COUNTS}
  scores = confusion.ratios(counts)
  each = {
    'mean_dice': scores['dice'],
    'threshold_jaccard': confusion.thresholded_jaccard(scores['iou']),
  }
  rows = []
  for attribute, names in groups.items():
    for group in _ordered(attribute, set(names)):
      chosen = np.flatnonzero(np.array(names) == group).tolist()
      resampling = bootstrap.resample([lesions[i] for i in chosen])
      pick = lambda values, chosen=chosen: {
        name: value[chosen] for name, value in values.items()
      }
      intervals = {
        'dice': bootstrap.pooled(resampling, pick(counts))['dice'],
        **bootstrap.means(resampling, pick(each)),
      }
      rows.append(
        {
          'attribute': attribute,
          'group': group,
          'images': len(chosen),
          'lesions': resampling.num_clusters,
          **{name: dataclasses.asdict(i) for name, i in intervals.items()},
          'warning': _warning(resampling.num_clusters),
        }
      )
  return rows


def skin_tone(
  dice: np.ndarray, skin: Mapping[str, np.ndarray], lesions: Sequence[str]
) -> dict[str, Any]:
  """Relates Dice and the typology angle (ITA) of the skin, without groups.

  The angle stays a continuous value, because published groups disagree
  (https://arxiv.org/abs/2308.09640).

  Args:
    dice: Of each image, float [N].
    skin: `ita`, float [N], in degrees, NaN where there is none, and `reason`,
      [N], why there is none.
    lesions: Lesion of each image, N names.

  Returns:
    For JSON. `images` and `lesions`: numbers of those with an angle.
    `unavailable`: number of images by the reason why there is none.
    `ita_quantiles`: of the angle by probability, or None. `warning` as in
    `table`. `dice_rank_correlation`: Spearman's, as the dict of a
    `bootstrap.Interval` whose draws take whole lesions; None if there is none.
  """
  known = np.flatnonzero(~np.isnan(skin['ita'])).tolist()
  ita = skin['ita'][known]
  reasons = collections.Counter(skin['reason'].tolist())
  reasons.pop('', None)
  found, correlation = [lesions[i] for i in known], None
  if len(known):
    correlation = bootstrap.rank_correlation(
      bootstrap.resample(found), dice[known], ita
    )
  return {
    'images': len(known),
    'lesions': len(set(found)),
    'unavailable': dict(reasons.most_common()),
    'ita_quantiles': {str(q): float(np.quantile(ita, q)) for q in _QUANTILES}
    if len(known)
    else None,
    'dice_rank_correlation': correlation and dataclasses.asdict(correlation),
    'warning': _warning(len(set(found))),
  }


def _ordered(attribute: str, names: set[str]) -> list[str]:
  bands = [band for _, band in BANDS.get(attribute, ())]
  known = sorted(names - {*bands, UNKNOWN})
  return [b for b in [*bands, *known, UNKNOWN] if b in names]


def _warning(lesions: int) -> str:
  if lesions >= FEW_LESIONS:
    return ''
  what = '1 lesion' if lesions == 1 else f'{lesions} lesions'
  return f'only {what}: too few to judge'


def failures(
  image_ids: Sequence[str],
  counts: Mapping[str, np.ndarray],
  measured: Mapping[str, np.ndarray],
  predicted_pieces: Sequence[int] | np.ndarray,
  *,
  most: int = 20,
) -> list[dict[str, Any]]:
  """Lists the images with the lowest IoU, worst first.

  Args:
    image_ids: N names.
    counts: `tp`, `fp`, `fn`, `tn`, integers, [N].
    measured: From `measure_all`, [N] each.
    predicted_pieces: `pieces` of the predicted masks, N.
    most: How many images to list.

  Returns:
    Rows for JSON: `image_id`, `dice`, `iou` and `reason`, a short description
    of the error and its possible causes.
  """
  scores = confusion.ratios(counts)
  worst = sorted(
    range(len(image_ids)), key=lambda i: (scores['iou'][i], image_ids[i])
  )
  return [
    {
      'image_id': image_ids[i],
      'dice': float(scores['dice'][i]),
      'iou': float(scores['iou'][i]),
      'reason': _reason(
        {name: int(counts[name][i]) for name in confusion.COUNTS},
        {name: float(values[i]) for name, values in measured.items()},
        int(predicted_pieces[i]),
      ),
    }
    for i in worst[:most]
  ]


def _reason(counts, measured, num_pieces) -> str:
  wrong = [_error(**counts)]
  if num_pieces > 1 and measured['lesion_area'] > 0:
    wrong.append(f'in {num_pieces} pieces')
  causes = [
    text
    for text, holds in (
      ('small lesion', 0 < measured['lesion_area'] < 0.05),
      ('lesion touches the border', measured['touches_border'] > 0),
      ('low contrast', measured['contrast'] < 10),
      ('much hair', measured['hair'] >= 0.02),
    )
    if holds
  ]
  return ', '.join(wrong) + (f' ({", ".join(causes)})' if causes else '')


def _error(tp: int, fp: int, fn: int, tn: int) -> str:
  """Describes the error of a prediction from its counts."""
  true, predicted = tp + fn, tp + fp
  if not true and not predicted:
    return 'correct: no lesion'
  if not true:
    share = predicted / (predicted + tn)
    return f'{share:.1%} of the image predicted, but there is no lesion'
  if not predicted:
    return 'nothing predicted'
  if not tp:
    return 'prediction misses the lesion entirely'
  ratio = predicted / true
  if ratio > 1.5 or ratio < 1 / 1.5:
    return f'predicted {ratio:.2g} times the true area'
  return (
    f'{fn / true:.0%} of the lesion missed, false area of {fp / true:.0%} of'
    ' the lesion'
  )
