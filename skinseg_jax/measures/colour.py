"""Colours of pixels: CIELAB, and shares of six reference colours."""

import numpy as np

# Reference colours of Kasmi and Mokrani, IET Image Processing 10(6), 2016,
# https://doi.org/10.1049/iet-ipr.2015.0385, as public programs quote them: the
# six colours of the ABCD rule, 8-bit sRGB.
REFERENCE = {
  'white': (197, 188, 217),
  'red': (118, 21, 17),
  'light_brown': (163, 82, 16),
  'dark_brown': (135, 44, 5),
  'blue_grey': (113, 108, 139),
  'black': (41, 31, 30),
}

# Linear light of an 8-bit sRGB value, and linear RGB to XYZ (IEC 61966-2-1).
_SRGB = np.arange(256) / 255
_LINEAR = np.where(
  _SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4
)
_XYZ = np.array(
  [
    [0.4124, 0.3576, 0.1805],
    [0.2126, 0.7152, 0.0722],
    [0.0193, 0.1192, 0.9505],
  ]
)

# Pixels that are compared with the reference colours at once.
_BLOCK = 2**18


def lab(pixels: np.ndarray) -> np.ndarray:
  """CIELAB (D65) of sRGB pixels, uint8 [..., 3]; float64 [..., 3]."""
  return _lab_of_light(_LINEAR[pixels])


def mean_lab(pixels: np.ndarray) -> np.ndarray:
  """CIELAB (D65) of the mean light of sRGB pixels [K, 3]; float64 [3]."""
  # A histogram needs far fewer look-ups than one per pixel.
  light = np.array(
    [np.bincount(channel, minlength=256) @ _LINEAR for channel in pixels.T]
  ) / len(pixels)
  return _lab_of_light(light)


def _lab_of_light(light: np.ndarray) -> np.ndarray:
  xyz = light @ _XYZ.T / _XYZ.sum(axis=1)
  x, y, z = np.moveaxis(
    np.where(
      xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29
    ),
    -1,
    0,
  )
  return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def shares(pixels: np.ndarray) -> dict[str, float]:
  """Share of the pixels that is nearest to each colour of `REFERENCE`.

  Nearest is by Euclidean distance of 8-bit sRGB values; of two that are equally
  near, the first counts.

  Args:
    pixels: sRGB, uint8 [K, 3], K > 0.

  Returns:
    A share in [0, 1] for each name; their sum is 1.
  """
  colours = np.array(list(REFERENCE.values()), np.float32)
  # |x - c|^2 is smallest where x.c - |c|^2 / 2 is largest.
  half = (colours**2).sum(axis=1) / 2
  counts = np.zeros(len(colours), np.int64)
  for start in range(0, len(pixels), _BLOCK):
    block = pixels[start : start + _BLOCK].astype(np.float32)
    nearest = (block @ colours.T - half).argmax(axis=1)
    counts += np.bincount(nearest, minlength=len(colours))
  return dict(zip(REFERENCE, (counts / len(pixels)).tolist(), strict=True))
