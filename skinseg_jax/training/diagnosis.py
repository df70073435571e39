"""Explains failed training runs: non-finite values and constant masks."""

import sys
from collections.abc import Mapping, Sequence

from skinseg_jax.runtime import errors


def divergence(
  *,
  steps: tuple[int, int],
  bad_step: int,
  image_ids: Sequence[str],
  last_checkpoint: int | None,
) -> errors.DivergenceError:
  """Makes the error for a loss or weights that are not finite.

  Args:
    steps: First and last update of the group that was checked together.
    bad_step: First update of the group with a non-finite loss or weight.
    image_ids: Images in the batch of `bad_step`.
    last_checkpoint: Step of the last checkpoint; None if there is none.
  """
  kept = (
    'no checkpoint was saved yet'
    if last_checkpoint is None
    else f'the checkpoint of step {last_checkpoint} is intact'
  )
  return errors.DivergenceError(
    'loss or weights are not finite between steps'
    f' {steps[0]} and {steps[1]}, first after step {bad_step}; {kept}. Lower'
    " train.learning_rate, or set model.compute_dtype to 'float32'. The"
    ' images of that step:\n' + errors.listing(image_ids, most=len(image_ids))
  )


def count_one_sided(counts: Mapping[str, int], before: int) -> int:
  """Counts consecutive epochs with constant masks; warns at the second.

  Args:
    counts: Pooled over the validation images.
    before: Result of this function for the previous epoch.
  """
  lesion, skin = counts['tp'] + counts['fp'], counts['tn'] + counts['fn']
  if lesion and skin:
    return 0
  if before == 1:
    print(
      'note: for two epochs now, every pixel of every validation image was'
      f' called {"lesion" if lesion else "background"}: the model learns'
      ' nothing. Check the masks, lower train.learning_rate, or train longer.',
      file=sys.stderr,
      flush=True,
    )
  return before + 1
