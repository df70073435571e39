"""Describes collections of images and how much two of them differ."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skinseg_jax.data import cache
from skinseg_jax.data.sources import interface

# Largest number of images sampled, evenly spread over a collection.
_MOST_IMAGES = 500

_CHANNELS = ('red', 'green', 'blue')
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

# Smallest differences that are reported: in standard deviations of the training
# images' mean colours, and as a ratio of median areas.
_COLOUR_SHIFT, _AREA_RATIO = 1.0, 1.5


def profile(
  source: interface.Source,
  data: cache.CachedData,
  indices: Sequence[int] | np.ndarray,
) -> dict[str, Any]:
  """Describes a collection by at most 500 of its images.

  Args:
    source: The images at their original size.
    data: The same images, in the same order, at the model's size.
    indices: Indices of the images in the collection.

  Returns:
    A dict for JSON. `images` is the number of sampled images. `colour` has, for
    each channel and in units of 0 to 255, `mean` and `sd` over pixels and
    `sd_of_means`, the standard deviation of the images' means. `image_sizes`
    has the number of images by stored size, 'WIDTH x HEIGHT', the most frequent
    first. `lesion_area` has the `mean` and `quantiles` of the lesion's share of
    the image, in [0, 1].
  """
  number = min(len(indices), _MOST_IMAGES)
  positions = np.linspace(0, len(indices) - 1, number).round().astype(int)
  chosen = [int(indices[position]) for position in positions]
  means, squares, areas = [], [], []
  sizes: collections.Counter[str] = collections.Counter()
  for index in chosen:
    pixels = data.images[index].reshape(-1, 3).astype(np.float32)
    means.append(pixels.mean(axis=0, dtype=np.float64))
    squares.append((pixels**2).mean(axis=0, dtype=np.float64))
    areas.append(data.masks[index].mean())
    height, width = source[index]['mask'].shape
    sizes[f'{width} x {height}'] += 1
  mean = np.mean(means, axis=0)
  spread = np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 0))
  return {
    'images': number,
    'colour': {
      channel: {
        'mean': float(mean[i]),
        'sd': float(spread[i]),
        'sd_of_means': float(np.std(means, axis=0)[i]),
      }
      for i, channel in enumerate(_CHANNELS)
    },
    'image_sizes': dict(sizes.most_common()),
    'lesion_area': {
      'mean': float(np.mean(areas)),
      'quantiles': {str(q): float(np.quantile(areas, q)) for q in _QUANTILES},
    },
  }


def notes(training: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
  """Describes large differences between two profiles in sentences."""
  return [
    *_colour_notes(training['colour'], here['colour']),
    *_size_notes(training['image_sizes'], here['image_sizes']),
    *_area_notes(
      training['lesion_area']['quantiles']['0.5'],
      here['lesion_area']['quantiles']['0.5'],
    ),
  ]


def _colour_notes(training, here) -> list[str]:
  found = []
  for channel in _CHANNELS:
    usual = training[channel]
    difference = here[channel]['mean'] - usual['mean']
    spread = max(usual['sd_of_means'], 1.0)
    if abs(difference) > _COLOUR_SHIFT * spread:
      found.append(
        f'{channel} is {abs(difference):.0f} of 255'
        f' {"higher" if difference > 0 else "lower"} on average than in'
        f' training: {abs(difference) / spread:.1f} standard deviations of the'
        ' training images'
      )
  return found


def _size_notes(training, here) -> list[str]:
  if set(training) & set(here):
    return []
  most_training, most_here = next(iter(training)), next(iter(here))
  return [
    'no image has the size of any training image; the most frequent size is'
    f' {most_here} here and {most_training} in training'
  ]


def _area_notes(training: float, here: float) -> list[str]:
  if max(training, here) <= _AREA_RATIO * min(training, here):
    return []
  return [
    f'the median lesion covers {here:.1%} of the image here and'
    f' {training:.1%} in training'
  ]
