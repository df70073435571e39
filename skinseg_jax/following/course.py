"""Follows one lesion: predicts, registers, measures and compares."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from skinseg_jax.data import pictures, preprocessing
from skinseg_jax.following import changes, registration, series, views
from skinseg_jax.inference import model_interface
from skinseg_jax.measures import shape
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
    earlier: Whether the picture comes before the reference.
    scale: Pixels of the reference file for one of this file, where registered.
    degrees: Turn onto the reference, clockwise as seen.
    points: Points of the skin that agree.
    unit: Of lengths: 'mm', 'px' of the reference, or 'own px'.
    spacing: Millimetres for one pixel of the file, as lengths have it; None
      where they are in pixels.
    stated: Whether the file itself states a spacing.
    values: By the names in `changes.MEASURES`; empty without a lesion.
    changed: Changes in the order of time, from the earlier to the later of this
      picture and the reference, by name, where they make sense.
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
  earlier: bool = False
  scale: float | None = None
  degrees: float | None = None
  points: int | None = None
  unit: str = ''
  spacing: float | None = None
  stated: bool = False
  values: dict[str, changes.Value] = dataclasses.field(default_factory=dict)
  changed: dict[str, changes.Change] = dataclasses.field(default_factory=dict)
  picture: np.ndarray | None = None
  mask: np.ndarray | None = None
  cut: bool = False

  @property
  def several(self) -> bool:
    """Whether the picture shows several lesions."""
    return review.SEVERAL in self.reasons.split('; ')

  def change(
    self, what: changes.Measure, reference: float | None, own: float | None
  ) -> changes.Change | None:
    """The change between values of the reference and of this picture."""
    if self.earlier:
      return changes.compare(what, own, reference)
    return changes.compare(what, reference, own)

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
  # Millimetres between rows and columns of the file, if it states them;
  # otherwise `given` is what the user says of its pixels.
  stated: tuple[float, float] | None
  given: float | None
  reasons: tuple[str, ...]

  @property
  def spacing(self) -> float | None:
    """What is known of square pixels; registration has one scale."""
    if self.stated and math.isclose(*self.stated, rel_tol=0.01):
      return math.sqrt(math.prod(self.stated))
    return self.given


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

  The reference is the first picture that shows a whole lesion and is not dark,
  blurred or of nearly one colour. If there is none, it is the first one in
  which a lesion is found.

  Args:
    one: The lesion.
    model: Trained models.
    pixel_spacing: Millimetres between pixels of all pictures whose files do
      not state it; None if not known.
    calibration: What `calibrate_review` learned for the model, for the review.
    bands: Whether to measure the outline of each view as well.

  Returns:
    One for each entry, in order.
  """
  see = lambda entry: _see(entry, model, pixel_spacing, calibration, bands)
  seen: dict[series.Entry, _Seen | str] = {}
  chosen, poor = _choose(one.entries, see, seen)
  reference = _reference(*chosen) if chosen else None
  earlier = reference is not None
  visits = []
  for entry in one.entries:
    if reference and entry == reference.visit.entry:
      visit, earlier = reference.visit, False
    else:
      look = seen.pop(entry) if entry in seen else see(entry)
      visit = _visit(entry, look, reference)
      visit.earlier = earlier
      if reference:
        _compare(visit, reference.visit)
    visit.poor = poor.get(entry, '')
    visits.append(visit)
  return visits


def _choose(
  entries: Sequence[series.Entry],
  see: Callable[[series.Entry], _Seen | str],
  seen: dict[series.Entry, _Seen | str],
) -> tuple[tuple[series.Entry, _Seen] | None, dict[series.Entry, str]]:
  """Finds the reference, and what `Visit.poor` says of each picture.

  Args:
    entries: The pictures.
    see: Looks at one.
    seen: Takes what was seen of the pictures up to the reference, so that none
      is predicted twice.
  """
  first = None
  poor: dict[series.Entry, str] = {}
  for entry in entries:
    look = seen[entry] = see(entry)
    if isinstance(look, str) or not look.masks.mask.any():
      continue
    why = [reason for reason in look.reasons if reason in _POOR]
    if shape.touches_border(views.largest(look.masks.mask)):
      why.append(review.BORDER)
    if not why:
      return (entry, look), poor
    first = first or (entry, look)
    poor[entry] = '; '.join(why)
  return first, {first[0]: poor[first[0]]} if first else {}


def _visit(
  entry: series.Entry, seen: _Seen | str, reference: _Reference | None
) -> Visit:
  """One picture that is not the reference."""
  if isinstance(seen, str):
    return Visit(entry, SKIPPED, seen)
  if reference and seen.masks.mask.any():
    return _placed(entry, seen, reference)
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
  pixel_spacing: float | None,
  calibration: expected_dice.Calibration | None,
  bands: bool,
) -> _Seen | str:
  """Looks at one picture; says why if its file cannot be read."""
  name = str(entry.path)
  try:
    data = entry.path.read_bytes()
    image = preprocessing.decode_image(data, name)
    stated = pictures.pixel_spacing(data, name)
  except OSError as error:
    return f'{name}: unreadable ({error})'
  except errors.InputError as error:
    return str(error)
  height, width = image.shape[:2]
  reduction = min(1.0, _SIDE / max(height, width))
  size = max(1, round(height * reduction)), max(1, round(width * reduction))
  # The model is given the picture itself, as `predict` does.
  masks = views.predict(model, image, size, bands=bands)
  about = review.examine(
    preprocessing.resize_image(image, model.config.data.image_size),
    masks.answer.probability,
    masks.mask,
    masks.threshold,
    calibration,
    features=masks.answer.features,
  )
  return _Seen(
    preprocessing.resize_image(image, size),
    reduction,
    masks,
    stated,
    None if stated else pixel_spacing,
    about.reasons,
  )


def _unused(seen: _Seen, used: float | None, why: str = '') -> str:
  """Says that the spacing of a file is not used; '' if it fits.

  Args:
    seen: The picture.
    used: Millimetres between pixels of the file as lengths have it, or None if
      they are in pixels.
    why: Why they are in pixels.
  """
  if not seen.spacing:
    if not seen.stated:
      return ''
    height, width = seen.stated
    return (
      f'its pixels of {height:g} x {width:g} mm are not square, so this spacing'
      ' is not used, and lengths and shapes are distorted'
    )
  if used and math.isclose(used, seen.spacing, rel_tol=_SPACING_TOLERANCE):
    return ''
  which = 'its spacing of' if seen.stated else 'the --pixel_spacing of'
  why = f'registration gives {used:.3g} mm' if used else why
  return f'{which} {seen.spacing:.3g} mm is not used: {why}'


def _measured(
  entry: series.Entry,
  status: str,
  seen: _Seen,
  lesion: np.ndarray,
  step: float,
  unit: str,
) -> Visit:
  """Measures one piece of the mask, and what each view has at its place."""
  each = (views.piece_at(view, lesion) for view in seen.masks.views())
  return Visit(
    entry,
    status,
    reasons='; '.join(seen.reasons),
    unit=unit,
    spacing=step * seen.reduction if unit == 'mm' else None,
    stated=seen.stated is not None,
    values=changes.measure(seen.image, lesion, each, step),
    picture=seen.image,
    mask=lesion,
    cut=shape.touches_border(lesion),
  )


def _reference(entry: series.Entry, seen: _Seen) -> _Reference:
  step = (seen.spacing or 1.0) / seen.reduction
  lesion = views.largest(seen.masks.mask)
  unit = 'mm' if seen.spacing else 'px'
  visit = _measured(entry, REFERENCE, seen, lesion, step, unit)
  visit.problem = _unused(seen, seen.spacing)
  points = registration.find_points(seen.image, seen.masks.mask)
  return _Reference(visit, seen, points, step)


def _placed(entry: series.Entry, seen: _Seen, reference: _Reference) -> Visit:
  """Registers a picture where that is possible, and measures its lesion."""
  points = registration.find_points(seen.image, seen.masks.mask)
  try:
    found = registration.register(reference.points, points)
  except registration.RefusedError as error:
    lesion = views.largest(seen.masks.mask)
    step = 1 / seen.reduction
    visit = _measured(entry, ALONE, seen, lesion, step, 'own px')
    unused = _unused(seen, None, 'the picture is not registered')
    visit.problem = '; '.join(filter(None, [str(error), unused]))
    return visit
  return _registered(entry, seen, reference, found)


def _compare(visit: Visit, reference: Visit) -> None:
  """Adds what changed, where that makes sense."""
  if not visit.values:
    return
  if visit.status == ALONE and (visit.several or reference.several):
    visit.problem += (
      '; it or the reference shows several lesions, so nothing is compared'
    )
    return
  for what in changes.MEASURES:
    if what.relative and visit.status != REGISTERED:
      continue
    if what.whole and (visit.cut or reference.cut):
      continue
    change = visit.change(
      what,
      reference.values[what.name].value,
      visit.values[what.name].value,
    )
    if change:
      visit.changed[what.name] = change


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
    why = 'the reference has none that can be used'
    visit.problem = _unused(seen, visit.spacing, why)
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
