"""Cheap signs of how far a prediction can be trusted, as numbers.

They need one forward pass and no true mask. Everything is computed on a reduced
copy whose shorter side has 96 to 191 pixels, so networks with large and with
small inputs give similar numbers.
"""

import numpy as np
from scipy import ndimage

# Signs of the picture alone.
PICTURE = (
  'red', 'green', 'blue', 'contrast', 'saturation', 'saturation_sd', 'detail',
  'coarse', 'direction', 'centre', 'dark_share', 'bright_share',
)  # fmt: skip
# Signs of the probability map; `lightness` also needs the picture.
ANSWER = (
  'soft_dice', 'doubt', 'border_entropy', 'border_width', 'agreement', 'inside',
  'highest', 'area', 'edge_share', 'pieces', 'largest', 'outline', 'lightness',
)  # fmt: skip
NAMES = PICTURE + ANSWER

_SIDE = 96
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_DARK, _BRIGHT = 40, 230
# Half the width of the band around an outline, in reduced pixels.
_BAND = 2
_NEIGHBOURS = np.ones((3, 3), bool)


def describe(
  image: np.ndarray, probability: np.ndarray, threshold: float
) -> dict[str, float]:
  """Computes the signs of one prediction.

  Args:
    image: RGB, uint8 [h, w, 3], of the model's size.
    probability: Probability of lesion, float [h, w], in [0, 1].
    threshold: Probability above which a pixel counts as lesion, in (0, 1).

  Returns:
    By the names in `PICTURE`:
    `red`, `green`, `blue`: mean of the channel, 0 to 255.
    `contrast`: log of the standard deviation of the grey values.
    `saturation`, `saturation_sd`: mean, and log of the standard deviation, of
    the difference between the largest and the smallest channel.
    `detail`: log10 of the variance of the Laplacian over the variance of the
    grey values; low for a blurred picture.
    `coarse`: share of that variance which means of 8 x 8 pixels keep, as logit;
    low for text and grain, high for one dark lesion on skin.
    `direction`: log of the changes between rows over those between columns.
    `centre`: grey value of the middle of the picture less that of the rest.
    `dark_share`, `bright_share`: root of the share of pixels below 40 and
    above 230.

    By the names in `ANSWER`:
    `soft_dice`: the Dice that the model expects if its probabilities are
    right, 2 sum(p m) / (sum(p) + sum(m)), as logit.
    `doubt`: log of sum(min(p, 1 - p)) over the lesion's pixels.
    `border_entropy`: mean entropy within two pixels of the outline, in bits.
    `border_width`: pixels with p between .1 and .9 for each pixel of outline.
    `agreement`: area at a threshold of .75 over that at .25.
    `inside`: mean p of the lesion's pixels; `highest`: largest p.
    `area`: log of the lesion's share of the picture.
    `edge_share`: share of the picture's edge that is lesion.
    `pieces`: log of the number of pieces; `largest`: the share of the largest.
    `outline`: log of the outline's pixels over those of a square of its area.
    `lightness`: grey value of the lesion less that of its surroundings.
    Without a lesion pixel, signs that need one are 0.
  """
  pixels = _reduced(image.astype(np.float32))
  p = _reduced(probability.astype(np.float32))
  grey = pixels @ _GREY
  return {**_picture(pixels, grey), **_answer(p, grey, threshold)}


def _reduced(values: np.ndarray) -> np.ndarray:
  factor = max(1, min(values.shape[:2]) // _SIDE)
  return _blocks(values, factor) if factor > 1 else values


def _blocks(values: np.ndarray, factor: int) -> np.ndarray:
  """Means of square blocks; what does not fill a block is cut off."""
  height, width = (n // factor * factor for n in values.shape[:2])
  blocks = values[:height, :width].reshape(
    height // factor, factor, width // factor, factor, *values.shape[2:]
  )
  return blocks.mean(axis=(1, 3))


def _picture(pixels: np.ndarray, grey: np.ndarray) -> dict[str, float]:
  spread = pixels.max(axis=2) - pixels.min(axis=2)
  height, width = grey.shape
  middle = np.zeros(grey.shape, bool)
  middle[height // 4 : -(height // 4), width // 4 : -(width // 4)] = True
  detail = (ndimage.laplace(grey).var() + 0.1) / (grey.var() + 1)
  kept = _blocks(grey, 8).var()
  coarse = (kept + 0.1) / (max(grey.var(), kept) + 1)
  steps = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
  found = (
    *pixels.mean(axis=(0, 1)), np.log(grey.std() + 1), spread.mean(),
    np.log(spread.std() + 1), np.log10(detail), np.log(coarse / (1 - coarse)),
    np.log((steps[0] + 0.1) / (steps[1] + 0.1)),
    grey[middle].mean() - grey[~middle].mean(),
    np.sqrt((grey < _DARK).mean()), np.sqrt((grey > _BRIGHT).mean()),
  )  # fmt: skip
  return dict(zip(PICTURE, map(float, found), strict=True))


def _answer(
  p: np.ndarray, grey: np.ndarray, threshold: float
) -> dict[str, float]:
  mask = p > threshold
  area = int(mask.sum())
  doubt = np.minimum(p, 1 - p).sum()
  # Half a pixel keeps ratios and logarithms finite.
  soft = (2 * p[mask].sum() + 0.5) / (p.sum() + area + 1)
  wide = ((p > 0.1) & (p < 0.9)).sum()
  found = dict.fromkeys(ANSWER, 0.0) | {
    'soft_dice': np.log(soft / (1 - soft)),
    'doubt': np.log((doubt + 0.5) / (area + 0.5)),
    'agreement': ((p > 0.75).sum() + 0.5) / ((p > 0.25).sum() + 0.5),
    'highest': p.max(),
    'area': np.log((area + 0.5) / mask.size),
  }
  if area:
    outside = ndimage.binary_dilation(mask, _NEIGHBOURS, _BAND)
    inside = ndimage.binary_erosion(mask, _NEIGHBOURS, _BAND, border_value=1)
    band = outside & ~inside
    around = outside & ~mask
    outline = sum(np.diff(mask, axis=axis).sum() for axis in (0, 1))
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    sizes = piece_sizes(mask)
    found |= {
      'border_entropy': entropy(p[band]).mean() if band.any() else 0.0,
      'border_width': wide / max(outline, 1),
      'inside': p[mask].mean(),
      'edge_share': edge.mean(),
      'pieces': np.log(len(sizes)),
      'largest': sizes.max() / area,
      'outline': np.log((outline + 1) / (4 * np.sqrt(area))),
      'lightness': (
        grey[mask].mean() - grey[around].mean() if around.any() else 0.0
      ),
    }
  return {name: float(value) for name, value in found.items()}


def piece_sizes(mask: np.ndarray) -> np.ndarray:
  """Pixels of each 8-connected piece of a bool mask, int [pieces]."""
  labels, number = ndimage.label(mask, _NEIGHBOURS)
  return np.bincount(labels.ravel(), minlength=number + 1)[1:]


def entropy(probability: np.ndarray) -> np.ndarray:
  """Binary entropy in bits: 0 where p is 0 or 1, and 1 where it is .5.

  Args:
    probability: float32 of any shape, in [0, 1].

  Returns:
    float32 of the same shape, in [0, 1].
  """
  tiny = np.finfo(np.float32).tiny
  other = 1 - probability
  bits = -probability * np.log2(np.maximum(probability, tiny))
  bits -= other * np.log2(np.maximum(other, tiny))
  return np.clip(bits, 0, 1)
