"""Pictures of a prediction on its image, suitable for colour-blind readers.

Tints differ in lightness as well as in hue, and both outlines are drawn, so
readers can recognise errors without relying on hue.
"""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import figure
from PIL import Image
from scipy import ndimage

# Okabe and Ito's sky blue, yellow and (darkened) blue.
TINTS = {
  'tp': ('correct lesion (TP)', (86, 180, 233)),
  'fp': ('false lesion (FP)', (240, 228, 66)),
  'fn': ('missed lesion (FN)', (0, 60, 160)),
}
_OPACITY = {'tp': 0.15, 'fp': 0.6, 'fn': 0.65}
TRUE_OUTLINE, PREDICTED_OUTLINE = (255, 255, 255), (0, 0, 0)

# Longer side of every picture, in pixels.
SIDE = 256


def _resized(
  array: np.ndarray, method: Image.Resampling, side: int = SIDE
) -> np.ndarray:
  scale = side / max(array.shape[:2])
  height, width = (max(1, round(n * scale)) for n in array.shape[:2])
  return np.asarray(Image.fromarray(array).resize((width, height), method))


def plain(image: np.ndarray) -> np.ndarray:
  """Resizes an image to the size of all pictures here.

  Args:
    image: RGB, uint8, [H, W, 3].

  Returns:
    uint8 [h, w, 3] with a longer side of `SIDE`.
  """
  return _resized(image, Image.Resampling.BILINEAR)


def outlined(
  image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]
) -> np.ndarray:
  """Draws the outline of a mask on an image.

  Args:
    image: RGB, uint8, [H, W, 3].
    mask: Nonzero for lesion, uint8 [H, W].
    colour: RGB of the line.

  Returns:
    uint8 [h, w, 3] with a longer side of `SIDE`.
  """
  return _with_outline(plain(image), mask, colour)


def with_outlines(
  image: np.ndarray,
  outlines: Sequence[tuple[np.ndarray, tuple[int, int, int]]],
  side: int,
) -> np.ndarray:
  """Draws the outlines of several masks on an image.

  Args:
    image: RGB, uint8, [H, W, 3].
    outlines: Masks, nonzero for lesion, uint8 [H, W], and the RGB of their
      lines; later ones lie on top.
    side: Longer side of the result in pixels.

  Returns:
    uint8 [h, w, 3].
  """
  picture = _resized(image, Image.Resampling.BILINEAR, side)
  for mask, colour in outlines:
    picture = _with_outline(picture, mask, colour)
  return picture


def _with_outline(picture, mask, colour) -> np.ndarray:
  side = max(picture.shape[:2])
  mask = _resized(mask, Image.Resampling.NEAREST, side) > 0
  line = mask & ~ndimage.binary_erosion(mask, np.ones((5, 5), bool))
  return np.where(line[..., None], np.uint8(colour), picture)


def overlay(
  image: np.ndarray, truth: np.ndarray, predicted: np.ndarray
) -> np.ndarray:
  """Tints correct, false and missed lesion pixels and draws both outlines.

  Args:
    image: RGB, uint8, [H, W, 3].
    truth: True mask, nonzero for lesion, uint8 [H, W].
    predicted: Predicted mask, nonzero for lesion, uint8 [H, W].

  Returns:
    uint8 [h, w, 3] with a longer side of `SIDE`.
  """
  picture = _tinted(plain(image), truth, predicted, _OPACITY)
  picture = _with_outline(picture, truth, TRUE_OUTLINE)
  return _with_outline(picture, predicted, PREDICTED_OUTLINE)


def error_map(
  image: np.ndarray, truth: np.ndarray, predicted: np.ndarray
) -> np.ndarray:
  """Shows errors in full colour on a pale grey version of the image.

  Arguments and result are the same as for `overlay`.
  """
  grey = plain(image).mean(axis=2, keepdims=True) * 0.5 + 64
  picture = np.repeat(grey, 3, axis=2).astype(np.uint8)
  solid = {'tp': 0.35, 'fp': 1.0, 'fn': 1.0}
  return _tinted(picture, truth, predicted, solid)


def _tinted(picture, truth, predicted, opacity) -> np.ndarray:
  true = _resized(truth, Image.Resampling.NEAREST) > 0
  found = _resized(predicted, Image.Resampling.NEAREST) > 0
  regions = {'tp': true & found, 'fp': ~true & found, 'fn': true & ~found}
  mixed = picture.astype(np.float32)
  for name, region in regions.items():
    tint = np.array(TINTS[name][1], np.float32)
    mixed[region] += opacity[name] * (tint - mixed[region])
  return mixed.round().astype(np.uint8)


def to_jpeg(picture: np.ndarray) -> bytes:
  """Encodes a picture as a JPEG file."""
  buffer = io.BytesIO()
  Image.fromarray(picture).save(buffer, 'jpeg', quality=85, optimize=True)
  return buffer.getvalue()


def sheet(
  pairs: Sequence[tuple[np.ndarray, np.ndarray]],
  captions: Sequence[str],
  title: str,
) -> figure.Figure:
  """Puts images and overlays on one sheet, three pairs per row.

  Args:
    pairs: Image and overlay of each case, uint8 [h, w, 3].
    captions: One line per pair.
    title: Title of the sheet.
  """
  rows = -(-len(pairs) // 3)
  canvas = figure.Figure(figsize=(11, 2.2 * rows + 0.5), layout='constrained')
  canvas.suptitle(
    f'{title}. Outlines: white = true, black = predicted. Areas: dark blue ='
    ' missed, yellow = false lesion',
    fontsize=10,
  )
  grid = canvas.subplots(rows, 3, squeeze=False).ravel()
  for axes in grid:
    axes.axis('off')
  for axes, (image, tinted), caption in zip(
    grid, pairs, captions, strict=False
  ):
    axes.imshow(np.concatenate([image, tinted], axis=1))
    axes.set_title(caption, fontsize=8, parse_math=False)
  return canvas
