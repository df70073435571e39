"""What pictures are like as a whole, and how far two collections differ."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skinseg_jax.data import cache
from skinseg_jax.data.sources import interface

# Images looked at, evenly spread over a collection.
_MOST_IMAGES = 500

_CHANNELS = ('red', 'green', 'blue')
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

# From where on a difference is worth a sentence: in standard deviations of the
# training images' mean colours, and as a ratio of median areas.
_COLOUR_SHIFT, _AREA_RATIO = 1.0, 1.5


def profile(
  source: interface.Source,
  data: cache.CachedData,
  indices: Sequence[int] | np.ndarray,
) -> dict[str, Any]:
  """Describes a collection by at most 500 of its images.

  Args:
    source: The images at their own size.
    data: The same images, in the same order, at the model's size.
    indices: Which of them make the collection.

  Returns:
    What JSON can hold: `images` (how many were looked at), `colour` (of each
    channel `mean` and `sd` over pixels and `sd_of_means`, that of the images'
    means, in 0 to 255), `image_sizes` ('WIDTH x HEIGHT' as stored, with the
    number of images, the most frequent first) and `lesion_area` (`mean` and
    `quantiles` of its share of the image, in [0, 1]).
  """
  number = min(len(indices), _MOST_IMAGES)
  places = np.linspace(0, len(indices) - 1, number).round().astype(int)
  chosen = [int(indices[place]) for place in places]
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
  """Says in plain sentences where two profiles differ much."""
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
        f' training, {abs(difference) / spread:.1f} times what training images'
        ' vary by'
      )
  return found


def _size_notes(training, here) -> list[str]:
  if set(training) & set(here):
    return []
  most_there, most_here = next(iter(training)), next(iter(here))
  return [
    'no image has a size that training images have; most are'
    f' {most_here} here, {most_there} there'
  ]


def _area_notes(training: float, here: float) -> list[str]:
  if max(training, here) <= _AREA_RATIO * min(training, here):
    return []
  return [
    f'the median lesion covers {here:.1%} of the image, in training'
    f' {training:.1%}'
  ]
