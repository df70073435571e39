"""The classical methods: oracles, shapes on skin, names and packages."""

import dataclasses
import importlib.util
import itertools

import numpy as np
import pytest

cv2 = pytest.importorskip('cv2', reason="needs the extra 'classical'")
filters = pytest.importorskip(
  'skimage.filters', reason="needs the extra 'classical'"
)

from skinseg_jax.classical import (  # noqa: E402
  bee_colony,
  catalog,
  corrections,
  otsu,
  parameters,
  regions,
)
from skinseg_jax.runtime import errors  # noqa: E402

_SKIN, _LESION = (225, 180, 165), (120, 75, 60)


def _disc(height=96, width=128, radius=24, centre=(50, 60)):
  y, x = np.mgrid[:height, :width]
  return np.hypot(y - centre[0], x - centre[1]) <= radius


def _picture(lesion, *, noise=4, seed=0):
  image = np.where(lesion[..., None], _LESION, _SKIN).astype(np.float64)
  image = cv2.GaussianBlur(image, (0, 0), 1.5)
  image += np.random.default_rng(seed).normal(0, noise, image.shape)
  return np.rint(image).clip(0, 255).astype(np.uint8)


def _iou(found, true):
  return (found & true).sum() / (found | true).sum()


@pytest.mark.parametrize('name', parameters.METHODS)
@pytest.mark.parametrize('lit', ['evenly', 'unevenly'])
def test_a_lesion_on_skin_is_found_and_always_the_same(name, lit):
  lesion = _disc(radius=30)
  image = _picture(lesion, noise=1)
  if lit == 'unevenly':
    light = np.linspace(0.8, 1, image.shape[1])[:, None]
    image = (image * light).astype(np.uint8)
  segment = catalog.segmenter(catalog.find(name))
  found = segment(image)
  assert found.shape == lesion.shape
  assert found.dtype == bool
  assert _iou(found, lesion) > 0.7, _iou(found, lesion)
  cv2.setRNGSeed(99)  # What others drew before does not matter.
  assert np.array_equal(segment(image), found)


@pytest.mark.parametrize('name', parameters.METHODS)
@pytest.mark.parametrize('value', [0, 128, 255])
def test_an_image_of_one_colour_gives_a_mask(name, value):
  image = np.full((40, 48, 3), value, np.uint8)
  found = catalog.segmenter(parameters.METHODS[name])(image)
  assert found.shape == (40, 48)
  assert not found.any()


@pytest.mark.parametrize('channel', ['grey', 'blue', 'saturation'])
def test_otsus_threshold_is_opencvs(channel):
  image = _picture(_disc(), noise=12)
  settings = parameters.Otsu(channel, place=1.0, blur=0.0)
  found = otsu.beyond(
    corrections.Corrected(image, np.ones(image.shape[:2], bool)), settings
  )
  values = corrections.channel(image, channel)
  _, skin = cv2.threshold(values, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
  assert np.array_equal(found, skin == 0)


def test_dark_corners_and_hair_are_no_lesion():
  lesion = _disc(radius=20)
  image = _picture(lesion)
  y, x = np.mgrid[:96, :128]
  tube = np.hypot((y - 48) / 48, (x - 64) / 64) > 1.15
  image[tube] = 5
  cv2.line(image, (5, 20), (120, 30), (40, 30, 30), 1)
  corrected = corrections.correct(image, parameters.Corrections())
  assert corrected.valid[tube].mean() < 0.05
  assert corrected.valid[10:-10, 20:-20].all()
  found = catalog.segmenter(parameters.METHODS['otsu_blue'])(image)
  assert _iou(found, lesion) > 0.7
  assert not found[:25].any()


def test_uneven_light_becomes_even():
  light = np.linspace(0.6, 1, 128)[:, None]
  image = (_picture(_disc(), noise=1) * light).astype(np.uint8)
  skin = ~_disc(radius=32)
  settings = parameters.Corrections(illumination=2)
  even = corrections.correct(image, settings).image
  assert image[skin].std(axis=0).min() > 15
  assert even[skin].std(axis=0).max() < 4


def test_a_region_is_one_central_piece_without_holes():
  rough = _disc(radius=25, centre=(48, 64)) & ~_disc(radius=6, centre=(48, 64))
  rough[:12, :12] = True
  settings = parameters.CleanUp(opening=0, closing=0, growth=0)
  expected = _disc(radius=25, centre=(48, 64))
  assert np.array_equal(regions.clean(rough, settings), expected)
  grown = dataclasses.replace(settings, growth=3 / 96)
  found = regions.clean(rough, grown)
  assert found[48, 64 - 28]
  assert not found[48, 64 - 29]


def _histogram(seed):
  rng = np.random.default_rng(seed)
  middles = rng.uniform(20, 235, rng.integers(2, 6))
  values = rng.normal(rng.choice(middles, 4000), rng.uniform(3, 25))
  return np.bincount(values.astype(int).clip(0, 255), minlength=256)


@pytest.mark.parametrize('seed', range(12))
def test_bees_reach_the_exhaustive_optimum(seed):
  counts = _histogram(seed)
  between = bee_colony.variance_between(counts)
  colony = parameters.BeeColony(random_seed=seed)
  one = bee_colony.thresholds(counts, dataclasses.replace(colony, thresholds=1))
  values = [between([level]) for level in range(256)]
  assert between(one) == pytest.approx(max(values), rel=1e-12)
  two = bee_colony.thresholds(counts, dataclasses.replace(colony, thresholds=2))
  best = filters.threshold_multiotsu(
    classes=3, hist=(counts, np.arange(256))
  ).tolist()
  assert between(two) >= between(best) - 1e-4


def test_the_objective_is_the_variance_between_the_classes():
  counts = _histogram(3)
  levels = np.repeat(np.arange(256), counts)
  classes = np.digitize(levels, [60, 140], right=True)
  expected = sum(
    np.mean(classes == i) * (levels[classes == i].mean() - levels.mean()) ** 2
    for i in np.unique(classes)
  )
  found = bee_colony.variance_between(counts)([60, 140])
  assert found == pytest.approx(expected)


def test_all_pairs_agree_with_multi_otsu():
  counts = np.bincount([3, 3, 4, 9, 9, 10, 20, 21, 21], minlength=256)
  between = bee_colony.variance_between(counts)
  best = max(itertools.combinations(range(25), 2), key=between)
  bees = bee_colony.thresholds(counts, parameters.BeeColony(thresholds=2))
  assert between(bees) == pytest.approx(between(best))


def test_exhausted_sources_are_left_by_scouts():
  # Without scouts, one source that starts at the worse peak stays there.
  values = {10: 1.0, 200: 5.0}
  objective = lambda position: values.get(int(position[0]), 0.0)
  settings = parameters.BeeColony(thresholds=1, sources=2, cycles=2000, limit=3)
  colony = bee_colony._Colony(objective, settings, (0.0, 255.0))
  assert int(colony.search()[0]) == 200


def test_an_unknown_name_is_refused_with_the_nearest():
  with pytest.raises(errors.InputError, match=r'nearest: otsu_blue\)'):
    catalog.find('otsublue')


def test_missing_packages_are_named_with_the_extra(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.InputError, match=r'skinseg_jax\[classical\]'):
    catalog.find('edges')
