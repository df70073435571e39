"""Looks at the masks of a set together: what single files cannot show.

A mask that is inverted, flipped or another image's is a valid file. The set
shows it. The thresholds were chosen on HAM10000, whose masks pass. A fault is
reported if at least a tenth of the masks show it and chance cannot explain it,
and always if all masks are empty or cover the whole image.
"""

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import stats

from skinseg_jax.data import cache, mask_fit
from skinseg_jax.runtime import errors

# Side at which fits are compared, in pixels, and the most images compared.
_SIDE = 32
_MOST_IMAGES = 2000
# With fewer images, masks are not compared with colours.
_FEWEST_IMAGES = 8
# Areas outside of these, as shares of the image, are rare: HAM10000 has 0.4 %
# to 100 %, and 1 image in 1,000 above 97 %.
_AREAS = (0.001, 0.99)
# Width of the border and half of the side of the centre, as shares of the side.
_BORDER, _CENTRE = 1 / 16, 3 / 16
# A mask counts as inverted if its share of lesion at the border exceeds that in
# the centre by this: none of HAM10000 does, 0.99 of its inverted masks do.
_INVERTED = 0.1
# A small lesion may lie off the centre. A mask also counts as inverted if it
# covers more than these shares of the border and of the picture, and more of
# the border than of the picture: none of HAM10000 does. By either rule 0.999 of
# its inverted masks count.
_INVERTED_BORDER, _INVERTED_AREA = 0.9, 0.6
# From this share on, all masks are called inverted.
_ALL = 0.8
# Chance of a false alarm by each test, given the share of masks that may look
# wrong in a good set.
_FALSE_ALARMS = 1e-3
_LISTED = 10


@dataclasses.dataclass(frozen=True)
class Remedy:
  """What to type after a warning, as sentences' ends.

  Attributes:
    invert: Swaps lesion and skin in all masks.
    threshold: Reads grey masks with another threshold.
  """

  invert: str
  threshold: str


def training_remedy(*, inverted: bool) -> Remedy:
  """For a run's own images; `inverted` is its `data.mask_invert`."""
  other = str(not inverted).lower()
  return Remedy(
    invert=f'train again with --config.data.mask_invert={other} and a new'
    ' --workdir',
    threshold='train again with another --config.data.mask_threshold and a new'
    ' --workdir',
  )


def scoring_remedy(name: str) -> Remedy:
  """For images of other data: scores of the same name are not written over."""
  return Remedy(
    invert='score again with --mask_invert (without it if you gave it)'
    f' --name {shlex.quote(f"{name}_inverted")}',
    threshold='score again with another --mask_threshold and --name'
    f' {shlex.quote(f"{name}_threshold")}',
  )


@dataclasses.dataclass(frozen=True)
class Finding:
  """A probable mistake.

  Attributes:
    kind: 'empty', 'full', 'empty or full', 'extreme areas', 'inverted', a move
      of `mask_fit.MOVES`, or 'misfit'.
    images: How many masks show it.
    text: One paragraph with the numbers and the remedy.
    image_ids: Those masks, the most suspicious first, ten at most.
  """

  kind: str
  images: int
  text: str
  image_ids: list[str]


@dataclasses.dataclass(frozen=True)
class MaskCheck:
  """What a set of masks is like.

  Attributes:
    images: Number of masks.
    compared: How many of them were compared with their images' colours.
    area: Quantiles .05, .5 and .95 of the lesion's share of the image.
    border, centre: Mean share of lesion at the border and in the centre of the
      picture.
    findings: Probable mistakes; empty where nothing looks wrong.
    useless: Whether no mask holds both lesion and skin.
  """

  images: int
  compared: int
  area: list[float]
  border: float
  centre: float
  findings: list[Finding]
  useless: bool

  def as_dict(self) -> dict[str, Any]:
    """All of it, for JSON."""
    return dataclasses.asdict(self)

  def warning(self) -> str:
    """All findings, for stderr; '' where nothing looks wrong."""
    return '\n'.join(f'WARNING: {found.text}' for found in self.findings)

  def refuse_useless(self) -> None:
    """Refuses masks that teach nothing and that no score means anything for.

    Raises:
      InputError: If no mask holds both lesion and skin.
    """
    if self.useless:
      raise errors.InputError('\n'.join(found.text for found in self.findings))


def examine(
  data: cache.CachedData, indices: np.ndarray, remedy: Remedy
) -> MaskCheck:
  """Looks for masks that are empty, inverted, moved or of other images.

  Args:
    data: Images and masks at one size.
    indices: Positions of those that are looked at, int [N], N at least 1.
    remedy: What findings propose.
  """
  image_ids = [data.image_ids[index] for index in indices]
  shapes = np.array([_shape(data.masks[index]) for index in indices])
  area, border, centre = shapes.T
  findings = [
    *_area_findings(area, image_ids, remedy),
    *_inverted(area, border, centre, image_ids, remedy),
  ]
  chosen = _to_compare(area)
  if len(chosen) >= _FEWEST_IMAGES:
    votes = mask_fit.vote(*_small(data, indices[chosen]))
    names = [image_ids[index] for index in chosen]
    findings += _misfits(votes, names)
  return MaskCheck(
    images=len(indices),
    compared=len(chosen) if len(chosen) >= _FEWEST_IMAGES else 0,
    area=np.quantile(area, [0.05, 0.5, 0.95]).tolist(),
    border=float(border.mean()),
    centre=float(centre.mean()),
    findings=findings,
    useless=not np.any((area > 0) & (area < 1)),
  )


def _shape(mask: np.ndarray) -> tuple[float, float, float]:
  """Share of lesion in the picture, at its border and in its centre."""
  height, width = mask.shape
  rows, columns = (max(1, round(n * _BORDER)) for n in mask.shape)
  inner = mask[rows : height - rows, columns : width - columns]
  top, left = (round(n * (0.5 - _CENTRE)) for n in mask.shape)
  centre = mask[top : height - top, left : width - left]
  total = int(np.count_nonzero(mask))
  at_border = total - int(np.count_nonzero(inner))
  return (
    total / mask.size,
    at_border / (mask.size - inner.size),
    np.count_nonzero(centre) / centre.size,
  )


def _to_compare(area: np.ndarray) -> np.ndarray:
  """Indices of masks with lesion and skin, evenly spread over the set."""
  least, most = _AREAS
  usable = np.flatnonzero((area >= least) & (area <= most))
  if len(usable) > _MOST_IMAGES:
    places = np.linspace(0, len(usable) - 1, _MOST_IMAGES)
    usable = usable[places.round().astype(int)]
  return usable


def _small(
  data: cache.CachedData, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Images and masks at `_SIDE`, each pixel a mean."""
  images = np.empty((len(indices), _SIDE, _SIDE, 3), np.float32)
  masks = np.empty((len(indices), _SIDE, _SIDE), np.float32)
  for place, index in enumerate(indices):
    images[place] = _shrunk(data.images[index])
    masks[place] = _shrunk(255 * data.masks[index])
  return images, masks / 255


def _shrunk(array: np.ndarray) -> np.ndarray:
  picture = Image.fromarray(array)
  return np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BOX))


def _too_many(count: int, total: int, usual: float, least: float) -> bool:
  """Whether so many are neither chance nor few.

  Args:
    count: Masks that look wrong.
    total: Of so many.
    usual: Share of them in a good set, at most.
    least: The least share that matters.
  """
  chance = stats.binom.sf(count - 1, total, usual)
  return count >= least * total and bool(chance < _FALSE_ALARMS)


def _area_findings(area, image_ids, remedy) -> list[Finding]:
  total = len(area)
  findings = []
  empty, full = area == 0, area == 1
  kinds = [
    ('empty', empty, 'hold no lesion at all'),
    ('full', full, 'are lesion in every pixel'),
  ]
  if empty.any() and full.any() and np.all(empty | full):
    what = 'are empty or cover the whole image'
    kinds = [('empty or full', empty | full, what)]
  for kind, wrong, what in kinds:
    count = int(wrong.sum())
    if count and (count == total or _too_many(count, total, 0.02, 0.1)):
      names = _first(image_ids, wrong)
      text = (
        f'{_of(count, total)} masks {what}. Lesion is each pixel above the'
        ' threshold for grey values. Look at the mask files; if their values'
        f' do not fit the threshold, {remedy.threshold}. {_examples(names)}'
      )
      findings.append(Finding(kind, count, text, names))
  least, most = _AREAS
  wrong = ((area > 0) & (area < least)) | ((area > most) & (area < 1))
  count = int(wrong.sum())
  if _too_many(count, total, 0.02, 0.1):
    names = _first(image_ids, wrong)
    text = (
      f'the areas of the masks differ wildly: {_of(count, total)} cover less'
      f' than {least:.1%} or more than {most:.0%} of the image. Look at the'
      ' mask files: specks of noise, outlines that were not filled and grey'
      f' backgrounds read as lesion look so. For the last, {remedy.threshold}.'
      f' {_examples(names)}'
    )
    findings.append(Finding('extreme areas', count, text, names))
  return findings


def _inverted(area, border, centre, image_ids, remedy) -> list[Finding]:
  total = len(border)
  around = (border > _INVERTED_BORDER) & (area > _INVERTED_AREA)
  wrong = (border - centre > _INVERTED) | (around & (border > area))
  count = int(wrong.sum())
  if not _too_many(count, total, 0.01, 0.1):
    return []
  names = _first(image_ids, wrong)
  if count >= _ALL * total:
    how = f'If skin is white in your masks, {remedy.invert}.'
  else:
    how = (
      'The other masks look right, so that inverting all of them would not'
      ' help: invert the files of these images.'
    )
  edge, middle, whole = (x[wrong].mean() for x in (border, centre, area))
  text = (
    f'these masks look inverted: in {_of(count, total)} images the marked'
    f' area covers {edge:.0%} of the border of the picture, {middle:.0%} of'
    f' its centre and {whole:.0%} of all of it. A model learns to outline'
    f' the skin, and scores mean nothing. {how} {_examples(names)}'
  )
  return [Finding('inverted', count, text, names)]


def _misfits(votes: mask_fit.Votes, image_ids: Sequence[str]) -> list[Finding]:
  """Masks that were moved one way, else masks that are other images'."""
  total = len(image_ids)
  worst = np.argsort(votes.fit)
  misfits = int(votes.misfit.sum())
  for index, move in enumerate(mask_fit.MOVES):
    wrong = votes.move == index
    count = int(wrong.sum())
    # If masks belong to other images, some moved copies fit by chance, but
    # rarely the same move for many.
    if 2 * count >= misfits and _too_many(count, total, 0.01, 0.1):
      names = [image_ids[i] for i in worst if wrong[i]][:_LISTED]
      text = (
        f'masks seem to be {move}: {_of(count, total)} fit the colours of'
        ' their images clearly better once that is undone. Check how these'
        f' masks were written or resized. {_examples(names)}'
      )
      return [Finding(move, count, text, names)]
  if not _too_many(misfits, total, 0.05, 0.12):
    return []
  names = [image_ids[i] for i in worst if votes.misfit[i]][:_LISTED]
  text = (
    'images and masks do not seem to belong together:'
    f' {_of(misfits, total)} images fit masks of many other images, or turned'
    ' copies of their own, clearly better than their own (up to 5 % is usual).'
    f' Check that each mask bears the name of its image. {_examples(names)}'
  )
  return [Finding('misfit', misfits, text, names)]


def _first(image_ids: Sequence[str], wrong: np.ndarray) -> list[str]:
  return [image_ids[index] for index in np.flatnonzero(wrong)[:_LISTED]]


def _of(count: int, total: int) -> str:
  return f'{count:,} of {total:,}'


def _examples(names: Sequence[str]) -> str:
  return f'Look first at: {", ".join(names)}.'
