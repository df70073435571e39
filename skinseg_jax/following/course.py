"""Follows one lesion: predicts, registers, measures and compares."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from skinseg_jax.data import pictures, preprocessing
from skinseg_jax.following import changes, registration, series, views
from skinseg_jax.inference import model_interface
from skinseg_jax.quality import expected_dice, review
from skinseg_jax.runtime import errors

REFERENCE, REGISTERED = 'reference', 'registered'
ALONE, NOTHING, SKIPPED = 'not registered', 'nothing found', 'skipped'
# Signs of a picture that makes a poor reference; `review.BORDER` is another.
_POOR = (review.UNIFORM, review.DARK, review.BLURRED)
# A spacing of a file that is not used is reported if it differs by more.
_SPACING_TOLERANCE = 0.05
# Pictures are examined at this longer side at most, in pixels.
_SIDE = 1024


@dataclasses.dataclass(eq=False)
class Visit:
  """One picture of a lesion, and what is known of it.

  Attributes:
    entry: The file and its date.
    status: `REFERENCE`, which the others are compared with; `REGISTERED` to it;
      `ALONE` if that failed; `NOTHING` if there is no lesion; `SKIPPED` if the
      file cannot be read.
    problem: Why it is skipped, not registered or not compared, or its spacing
      is not used; ''.
    poor: Why the picture is not the reference although it comes earlier, or why
      the reference is not a good one; separated by '; ', otherwise ''.
    reasons: Why a person should look at the outline, separated by '; '.
    scale: Pixels of the reference file for one of this file, where registered.
    degrees: Turn onto the reference, clockwise as seen.
    points: Points of the skin that agree.
    unit: Of lengths: 'mm', 'px' of the reference, or 'own px'.
    values: By the names in `changes.MEASURES`; empty without a lesion.
    changed: Changes from the reference, by name, where they make sense.
    picture: As it lies on the reference where it is registered, RGB, uint8
      [H, W, 3]; None if the file cannot be read.
    mask: The lesion on `picture`, bool [H, W]; all that was found if nothing
      lies where the reference has its lesion.
    cut: Whether the lesion goes on outside of the picture.
  """

  entry: series.Entry
  status: str
  problem: str = ''
  poor: str = ''
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
  reasons: tuple[str, ...]

  @property
  def spacing(self) -> float | None:
    """What is stated of square pixels; registration has one scale."""
    if self.stated and math.isclose(*self.stated, rel_tol=0.01):
      return math.sqrt(math.prod(self.stated))
    return None


@dataclasses.dataclass(frozen=True, eq=False)
class _Reference:
  """What others are compared with; `step`: width of its pixels in the unit."""

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
  """Measures the pictures of a lesion and compares them with one of them.

  The reference is the first picture with a lesion that is in order: not of
  nearly one colour, dark or blurred, and with the whole lesion in it. If none
  is, it is the first with a lesion.

  Args:
    one: The lesion.
    model: Trained models.
    pixel_spacing: Millimetres between pixels of the reference, if its file
      does not state it; None if not known.
    calibration: What `calibrate_review` learned for the model, for the review.
    bands: Whether to measure the outline of each view as well.

  Returns:
    One for each entry, in order.
  """
  see = lambda entry: _see(entry, model, calibration, bands)
  chosen, poor = _choose(one.entries, see)
  reference = chosen and _reference(*chosen, pixel_spacing)
  visits = []
  for entry in one.entries:
    if reference and entry == reference.visit.entry:
      visits.append(reference.visit)
    else:
      visits.append(_visit(entry, see, reference))
    visits[-1].poor = poor.get(entry, '')
  return visits


def _choose(
  entries: Sequence[series.Entry], see: Callable[[series.Entry], '_Seen']
) -> tuple[tuple[series.Entry, '_Seen'] | None, dict[series.Entry, str]]:
  """Finds the reference, and what is wrong with those that come earlier.

  Pictures before the reference are seen once more later: only one is kept in
  memory.
  """
  first = None
  poor: dict[series.Entry, str] = {}
  for entry in entries:
    try:
      seen = see(entry)
    except errors.InputError:
      continue
    if not seen.masks.mask.any():
      continue
    why = [reason for reason in seen.reasons if reason in _POOR]
    if _cut(views.largest(seen.masks.mask)):
      why.append(review.BORDER)
    if not why:
      return (entry, seen), poor
    first = first or (entry, seen)
    poor[entry] = '; '.join(why)
  return first, poor


def _visit(
  entry: series.Entry,
  see: Callable[[series.Entry], '_Seen'],
  reference: _Reference | None,
) -> Visit:
  """One picture that is not the reference."""
  try:
    seen = see(entry)
  except errors.InputError as error:
    return Visit(entry, SKIPPED, str(error))
  if reference and seen.masks.mask.any():
    return _compared(entry, seen, reference)
  return Visit(
    entry,
    NOTHING,
    reasons='; '.join(seen.reasons),
    picture=seen.image,
    mask=seen.masks.mask,
  )


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
  about = review.examine(
    preprocessing.resize_image(image, model.config.data.image_size),
    masks.answer.probability,
    masks.mask,
    model.config.evaluation.threshold,
    calibration,
    features=masks.answer.features,
  )
  return _Seen(image, reduction, masks, spacing, about.reasons)


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
  return Visit(
    entry,
    status,
    reasons='; '.join(seen.reasons),
    unit=unit,
    values=changes.measure(seen.image, lesion, each, step),
    picture=seen.image,
    mask=lesion,
    cut=_cut(lesion),
  )


def _cut(lesion: np.ndarray) -> bool:
  """Whether a lesion has a pixel at the edge of its picture."""
  sides = lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]
  return any(bool(side.any()) for side in sides)


def _reference(
  entry: series.Entry, seen: _Seen, pixel_spacing: float | None
) -> _Reference:
  spacing = seen.spacing or pixel_spacing
  step = (spacing or 1.0) / seen.reduction
  lesion = views.largest(seen.masks.mask)
  unit = 'mm' if spacing else 'px'
  visit = _measured(entry, REFERENCE, seen, lesion, step, unit)
  visit.problem = _unused(seen, spacing)
  points = registration.find_points(seen.image, seen.masks.mask)
  return _Reference(visit, seen, points, step)


def _compared(entry: series.Entry, seen: _Seen, reference: _Reference) -> Visit:
  points = registration.find_points(seen.image, seen.masks.mask)
  try:
    found = registration.register(reference.points, points)
  except registration.RefusedError as error:
    lesion = views.largest(seen.masks.mask)
    step = 1 / seen.reduction
    visit = _measured(entry, ALONE, seen, lesion, step, 'own px')
    visit.problem = '; '.join(filter(None, [str(error), _unused(seen, None)]))
    if visit.several or reference.visit.several:
      visit.problem += (
        '; it or the reference shows several lesions, so nothing is compared'
      )
      return visit
  else:
    visit = _registered(entry, seen, reference, found)
    if not visit.values:
      return visit
  for what in changes.MEASURES:
    if what.relative and visit.status != REGISTERED:
      continue
    if what.whole and (visit.cut or reference.visit.cut):
      continue
    change = changes.compare(
      what,
      reference.visit.values[what.name].value,
      visit.values[what.name].value,
    )
    if change:
      visit.changed[what.name] = change
  return visit


def _registered(
  entry: series.Entry,
  seen: _Seen,
  reference: _Reference,
  found: registration.Similarity,
) -> Visit:
  """Measures the lesion on that of the reference; no values without one."""
  assert reference.visit.mask is not None
  place = registration.brought_back(
    reference.visit.mask, found, seen.image.shape[:2]
  )
  lesion = views.piece_at(seen.masks.mask, place)
  if lesion.any():
    step = reference.step * found.scale
    unit = reference.visit.unit
    visit = _measured(entry, REGISTERED, seen, lesion, step, unit)
    visit.problem = _unused(
      seen, step * seen.reduction if unit == 'mm' else None
    )
  else:
    lesion = seen.masks.mask
    visit = Visit(
      entry,
      REGISTERED,
      'no lesion is found where the reference has it, so nothing is compared',
      reasons='; '.join(seen.reasons),
    )
  visit.scale = found.scale * seen.reduction / reference.seen.reduction
  visit.degrees, visit.points = found.degrees, found.points
  size = reference.seen.image.shape[:2]
  visit.picture = registration.aligned(seen.image, found, size)
  visit.mask = registration.aligned(lesion, found, size)
  return visit
