"""Follows one lesion: predicts, registers, measures and compares."""

import dataclasses
import math

import numpy as np

from skinseg_jax.data import pictures, preprocessing
from skinseg_jax.following import changes, registration, series, views
from skinseg_jax.inference import model_interface
from skinseg_jax.quality import expected_dice, review
from skinseg_jax.runtime import errors

FIRST, REGISTERED = 'first', 'registered'
ALONE, NOTHING, SKIPPED = 'not registered', 'nothing found', 'skipped'
# A spacing of a file that is not used is reported if it differs by more.
_SPACING_TOLERANCE = 0.05
# Pictures are examined at this longer side at most, in pixels.
_SIDE = 1024


@dataclasses.dataclass(eq=False)
class Visit:
  """One picture of a lesion, and what is known of it.

  Attributes:
    entry: The file and its date.
    status: `FIRST` of the pictures with a lesion; `REGISTERED` to it; `ALONE`
      if that failed; `NOTHING` if there is no lesion; `SKIPPED` if the file
      cannot be read.
    problem: Why it is skipped, not registered or not compared, or its spacing
      is not used; ''.
    reasons: Why a person should look at the outline, separated by '; '.
    scale: Pixels of the first file for one of this file, where registered.
    degrees: Turn onto the first picture, clockwise as seen.
    points: Points of the skin that agree.
    unit: Of lengths: 'mm', 'px' of the first picture, or 'own px'.
    values: By the names in `changes.MEASURES`; empty without a lesion.
    changed: Changes since the first picture, by name, where they make sense.
    picture: As it lies on the first one where it is registered, RGB, uint8
      [H, W, 3]; None if the file cannot be read.
    mask: The lesion on `picture`, bool [H, W]; all that was found if nothing
      lies where the first picture has its lesion.
    cut: Whether the lesion goes on outside of the picture.
  """

  entry: series.Entry
  status: str
  problem: str = ''
  reasons: str = ''
  scale: float | None = None
  degrees: float | None = None
  points: int | None = None
  unit: str = ''
  values: dict[str, changes.Value] = dataclasses.field(default_factory=dict)
  changed: dict[str, changes.Change] = dataclasses.field(default_factory=dict)
  picture: np.ndarray | None = None
  mask: np.ndarray | None = None
  cut: bool = False

  @property
  def several(self) -> bool:
    """Whether the picture shows several lesions."""
    return review.SEVERAL in self.reasons.split('; ')

  @property
  def beyond(self) -> list[changes.Measure]:
    """Measures that changed more than repeated pictures differ."""
    return [
      what
      for what in changes.MEASURES
      if what.name in self.changed and self.changed[what.name].beyond
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class _Seen:
  """A picture in memory: `image` is the file's, reduced by `reduction`."""

  image: np.ndarray
  reduction: float
  masks: views.Masks
  # Millimetres between rows and columns of the file, if it states them.
  stated: tuple[float, float] | None
  reasons: str

  @property
  def spacing(self) -> float | None:
    """What is stated of square pixels; registration has one scale."""
    if self.stated and math.isclose(*self.stated, rel_tol=0.01):
      return math.sqrt(math.prod(self.stated))
    return None


@dataclasses.dataclass(frozen=True, eq=False)
class _Reference:
  """The first picture; `step` is the width of its pixels in the unit."""

  visit: Visit
  seen: _Seen
  points: registration.Points
  step: float


def follow(
  one: series.Series,
  model: model_interface.AnyModel,
  pixel_spacing: float | None,
  calibration: expected_dice.Calibration | None = None,
  *,
  bands: bool = True,
) -> list[Visit]:
  """Measures the pictures of a lesion and compares them with the first.

  Args:
    one: The lesion.
    model: Trained models.
    pixel_spacing: Millimetres between pixels of the first picture, if its file
      does not state it; None if not known.
    calibration: What `calibrate_review` learned for the model, for the review.
    bands: Whether to measure the outline of each view as well.

  Returns:
    One for each entry, in order.
  """
  visits = []
  first: _Reference | None = None
  for entry in one.entries:
    try:
      seen = _see(entry, model, calibration, bands)
    except errors.InputError as error:
      visits.append(Visit(entry, SKIPPED, str(error)))
      continue
    if not seen.masks.mask.any():
      visits.append(Visit(entry, NOTHING, reasons=seen.reasons))
      visits[-1].picture, visits[-1].mask = seen.image, seen.masks.mask
      continue
    if first is None:
      first = _first(entry, seen, pixel_spacing)
      visits.append(first.visit)
    else:
      visits.append(_later(entry, seen, first))
  return visits


def _see(
  entry: series.Entry,
  model: model_interface.AnyModel,
  calibration: expected_dice.Calibration | None,
  bands: bool,
) -> _Seen:
  try:
    data = entry.path.read_bytes()
  except OSError as error:
    raise errors.InputError(f'{entry.path}: unreadable ({error})') from error
  name = str(entry.path)
  image = preprocessing.decode_image(data, name)
  spacing = pictures.pixel_spacing(data, name)
  height, width = image.shape[:2]
  reduction = min(1.0, _SIDE / max(height, width))
  image = preprocessing.resize_image(
    image,
    (max(1, round(height * reduction)), max(1, round(width * reduction))),
  )
  masks = views.predict(model, image)
  if not bands:
    masks.views.clear()
  size = model.config.data.image_size
  about = review.examine(
    preprocessing.resize_image(image, size),
    preprocessing.resize_probability(masks.probability, size),
    masks.mask,
    model.config.evaluation.threshold,
    calibration,
  )
  return _Seen(image, reduction, masks, spacing, '; '.join(about.reasons))


def _unused(seen: _Seen, used: float | None) -> str:
  """Says that the spacing of a file is not used; '' if it fits.

  Args:
    seen: The picture.
    used: Millimetres between pixels of the file as lengths have it, or None if
      they are in pixels.
  """
  if not seen.stated:
    return ''
  if not seen.spacing:
    height, width = seen.stated
    return (
      f'its pixels of {height:g} x {width:g} mm are not square, so this spacing'
      ' is not used, and lengths and shapes are distorted'
    )
  if used and math.isclose(used, seen.spacing, rel_tol=_SPACING_TOLERANCE):
    return ''
  instead = f': lengths are measured with {used:.3g} mm' if used else ''
  return f'its spacing of {seen.spacing:.3g} mm is not used{instead}'


def _measured(
  entry: series.Entry,
  status: str,
  seen: _Seen,
  lesion: np.ndarray,
  step: float,
  unit: str,
) -> Visit:
  """Measures one piece of the mask, and what each view has at its place."""
  each = [views.piece_at(view, lesion) for view in seen.masks.views]
  sides = lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]
  return Visit(
    entry,
    status,
    reasons=seen.reasons,
    unit=unit,
    values=changes.measure(seen.image, lesion, each, step),
    picture=seen.image,
    mask=lesion,
    cut=any(bool(side.any()) for side in sides),
  )


def _first(
  entry: series.Entry, seen: _Seen, pixel_spacing: float | None
) -> _Reference:
  spacing = seen.spacing or pixel_spacing
  step = (spacing or 1.0) / seen.reduction
  lesion = views.largest(seen.masks.mask)
  unit = 'mm' if spacing else 'px'
  visit = _measured(entry, FIRST, seen, lesion, step, unit)
  visit.problem = _unused(seen, spacing)
  points = registration.find_points(seen.image, seen.masks.mask)
  return _Reference(visit, seen, points, step)


def _later(entry: series.Entry, seen: _Seen, first: _Reference) -> Visit:
  points = registration.find_points(seen.image, seen.masks.mask)
  try:
    found = registration.register(first.points, points)
  except registration.RefusedError as error:
    lesion = views.largest(seen.masks.mask)
    step = 1 / seen.reduction
    visit = _measured(entry, ALONE, seen, lesion, step, 'own px')
    visit.problem = '; '.join(filter(None, [str(error), _unused(seen, None)]))
    if visit.several or first.visit.several:
      visit.problem += (
        '; it or the first picture shows several lesions, so nothing is'
        ' compared'
      )
      return visit
  else:
    visit = _registered(entry, seen, first, found)
    if not visit.values:
      return visit
  for what in changes.MEASURES:
    if what.relative and visit.status != REGISTERED:
      continue
    if what.whole and (visit.cut or first.visit.cut):
      continue
    change = changes.compare(
      what, first.visit.values[what.name].value, visit.values[what.name].value
    )
    if change:
      visit.changed[what.name] = change
  return visit


def _registered(
  entry: series.Entry,
  seen: _Seen,
  first: _Reference,
  found: registration.Similarity,
) -> Visit:
  """Measures the lesion that lies on the first one; no values without one."""
  assert first.visit.mask is not None
  place = registration.brought_back(
    first.visit.mask, found, seen.image.shape[:2]
  )
  lesion = views.piece_at(seen.masks.mask, place)
  if lesion.any():
    step = first.step * found.scale
    unit = first.visit.unit
    visit = _measured(entry, REGISTERED, seen, lesion, step, unit)
    visit.problem = _unused(
      seen, step * seen.reduction if unit == 'mm' else None
    )
  else:
    lesion = seen.masks.mask
    visit = Visit(
      entry,
      REGISTERED,
      'no lesion is found where the first picture has it, so nothing is'
      ' compared',
      seen.reasons,
    )
  visit.scale = found.scale * seen.reduction / first.seen.reduction
  visit.degrees, visit.points = found.degrees, found.points
  size = first.seen.image.shape[:2]
  visit.picture = registration.aligned(seen.image, found, size)
  visit.mask = registration.aligned(lesion, found, size)
  return visit
