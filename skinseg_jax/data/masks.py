"""From the brightness of a mask's pixels to lesion and skin."""

import numpy as np

from skinseg_jax.data import remedies as remedies_lib
from skinseg_jax.runtime import errors

# Share of the border that one of two colours must cover to be the background.
_CLEAR_SHARE = 0.75


def lesion(
  grey: np.ndarray,
  name: str,
  *,
  threshold: int,
  remedies: remedies_lib.Remedies,
) -> np.ndarray:
  """Finds the pixels that are lesion.

  With a threshold, they are the pixels above it. Without one, a mask may hold:

  - black and white: 0 and the format's white, 0 and 255, or 0 and 1, or one of
    the values alone. White is lesion.
  - two other values, such as red on black. Skin is the background: the value
    that clearly covers most of the picture's border. Black is the background
    if it covers more than half of the border; the other one is the background
    if it covers all of it. If neither is black, the background covers at least
    three quarters of the border.

  If a mask has only two values and the threshold is not between them, it is
  ignored; otherwise a 0/1 mask would be empty at 127.

  Args:
    grey: Brightness, uint8, uint16, int32 or float32 [height, width]. 16 bits
      are from 0 to 65535; a threshold takes them for 0 to 255 if none is
      larger. Values of 32 bits are from 0 to 255, or to 65535,
      whatever the largest value needs; floats up to 1 are from 0 to 1.
    name: What messages call the mask.
    threshold: Grey value above which a pixel is lesion, 1 to 255; 0: none.
    remedies: What the user types to change a setting.

  Returns:
    bool [height, width].

  Raises:
    InputError: If the mask fits no rule.
  """
  grey = _unsigned(grey, name)
  if threshold:
    above = _scaled(grey) > threshold
    if above.any() != above.all() or len(np.unique(grey)) != 2:
      return above
  white = grey.max()
  above = grey > 0
  allowed = (0, 1, 255, np.iinfo(grey.dtype).max)
  if white in allowed and not np.any(above & (grey != white)):
    return above
  values = np.unique(grey)
  background = _background(grey, values)
  if background is None:
    raise errors.InputError(_describe(name, values, remedies))
  return grey != background


def to_8_bit(grey: np.ndarray) -> np.ndarray:
  """Scales uint16 to 0 to 255, rounding; leaves uint8 as it is."""
  if grey.dtype == np.uint8:
    return grey
  return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _scaled(grey: np.ndarray) -> np.ndarray:
  """As `to_8_bit`, but values of 8 bits that 16 bits hold stay as they are."""
  return grey.astype(np.uint8) if grey.max() <= 255 else to_8_bit(grey)


def _unsigned(grey: np.ndarray, name: str) -> np.ndarray:
  """Values of 32 bits as uint8 or uint16; others as they are."""
  if grey.dtype in (np.uint8, np.uint16):
    return grey
  low, high = grey.min(), grey.max()
  if not 0 <= low <= high <= 65535:  # Also what is not a number.
    raise errors.InputError(
      f'{name}: holds values from {low} to {high}; allowed are floats from 0 to'
      ' 1, or 0 to 255, and integers from 0 to 65535. Save the mask with the'
      ' values 0 and 255, 8 bits a pixel'
    )
  if grey.dtype == np.float32 and high <= 1:
    # No value but 0 and 1 themselves may become black or white.
    scaled = np.rint(grey * 255).clip(1, 254)
    return np.select([grey == 0, grey == 1], [0, 255], scaled).astype(np.uint8)
  return np.rint(grey).astype(np.uint8 if high <= 255 else np.uint16)


def _background(grey: np.ndarray, values: np.ndarray) -> int | None:
  """The value of the background, by the rule of `lesion`; None if unclear."""
  if len(values) != 2:
    return None
  border = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
  share_dark = np.count_nonzero(border == values[0]) / border.size
  if values[0] == 0:
    if share_dark > 0.5:
      return values[0]
    return values[1] if share_dark == 0 else None
  if share_dark >= _CLEAR_SHARE:
    return values[0]
  return values[1] if 1 - share_dark >= _CLEAR_SHARE else None


def _describe(
  name: str, values: np.ndarray, remedies: remedies_lib.Remedies
) -> str:
  """What the mask holds, and what reads it."""
  bits = _scaled(values)
  low, high = int(bits.min()), int(bits.max())
  # One value alone is compared with black.
  between = ((0 if low == high else low) + high) // 2
  found = [str(value) for value in values]
  listed = ', '.join(found)
  kind = f'the grey value{"s" if len(found) > 1 else ""} {listed}'
  if len(found) > 4:
    kind = f'{len(found)} grey values ({", ".join(found[:4])}, ...)'
  message = f'{name}: not binary, holds {kind}; allowed are 0 and 255, 0 and 1,'
  message += ' or two values of which one is clearly the background.'
  if between < 1:  # A threshold of 0 is none.
    return f'{message} Save the mask with the values 0 and 255'
  return (
    f'{message} {remedies.mask_threshold}{between} takes what is brighter than'
    f' {between} (of 255) for lesion'
  )
