"""Generated lesions: the same each time, exact masks, and not trivial."""

import collections
import concurrent.futures

import cv2
import numpy as np
import pytest
from matplotlib import path as mpl_path

from skinseg_jax import config as config_lib
from skinseg_jax.data import splits
from skinseg_jax.data.sources import catalog, synthetic
from skinseg_jax.runtime import errors

_SIZE = (64, 64)


@pytest.fixture(scope='module')
def source():
  return synthetic.SyntheticSource(200, _SIZE, seed=0)


@pytest.fixture(scope='module')
def arrays(source):
  examples = [source[index] for index in range(len(source))]
  images = np.stack([example['image'] for example in examples])
  return images, np.stack([example['mask'] for example in examples])


def _pooled_dice(predicted, masks):
  return 2 * np.sum(predicted & masks) / (np.sum(predicted) + np.sum(masks))


def test_examples_are_what_a_source_deals_out():
  source = synthetic.SyntheticSource(3, (48, 80), seed=1)
  assert len(source) == 3
  assert source.image_ids == [
    'synthetic_000000',
    'synthetic_000001',
    'synthetic_000002',
  ]
  for index, image_id in enumerate(source.image_ids):
    example = source[index]
    assert example['image_id'] == image_id
    assert source.metadata[index]['image_id'] == image_id
    assert example['image'].shape == (48, 80, 3)
    assert example['mask'].shape == (48, 80)
    assert example['image'].dtype == example['mask'].dtype == np.uint8
    assert set(np.unique(example['mask'])) == {0, 1}
  for index in (-1, 3):
    with pytest.raises(IndexError):
      source[index]


def test_the_config_opens_it():
  config = config_lib.DataConfig(
    source='synthetic', num_synthetic=5, image_size=(32, 48), seed=7
  )
  source = catalog.open_source(config)
  assert len(source) == 5
  assert source[4]['image'].shape == (32, 48, 3)
  same = synthetic.SyntheticSource(5, (32, 48), 7)
  assert source.fingerprint == same.fingerprint


def test_images_do_not_depend_on_order_threads_or_number(source, arrays):
  images, masks = arrays
  other = synthetic.SyntheticSource(40, _SIZE, seed=0)
  order = np.random.default_rng(0).permutation(40).tolist()
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    examples = pool.map(other.__getitem__, order)
    for index, example in zip(order, examples, strict=True):
      np.testing.assert_array_equal(example['image'], images[index])
      np.testing.assert_array_equal(example['mask'], masks[index])
  assert other.metadata == source.metadata[:40]


def test_all_arguments_shape_images_and_fingerprint(source):
  fingerprints = {source.fingerprint}
  for arguments in ((201, _SIZE, 0), (200, (64, 80), 0), (200, _SIZE, 1)):
    fingerprints.add(synthetic.SyntheticSource(*arguments).fingerprint)
  assert len(fingerprints) == 4
  reseeded = synthetic.SyntheticSource(1, _SIZE, seed=1)
  assert np.any(reseeded[0]['mask'] != source[0]['mask'])


def test_images_vary(arrays):
  images, masks = arrays
  for batch in (images, masks):
    assert len({array.tobytes() for array in batch}) == len(batch)
  # From fair to dark skin, with room for the light.
  skin = [image[mask == 0].mean() for image, mask in zip(*arrays, strict=True)]
  assert min(skin) < 110
  assert max(skin) > 190


def test_lesions_cover_a_hundredth_to_six_tenths(arrays):
  _, masks = arrays
  shares = masks.mean(axis=(1, 2))
  assert shares.min() > 0.01
  assert shares.max() < 0.6
  assert np.mean((shares > 0.05) & (shares < 0.4)) > 0.75
  edges = np.concatenate(
    [masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], axis=1
  )
  assert 0.05 < np.mean(edges.any(axis=1)) < 0.4


@pytest.mark.parametrize('size', [(64, 64), (96, 64), (48, 80)])
def test_mask_is_the_inside_of_the_border(size):
  # The border is drawn the other way round: from its angle to the image.
  source = synthetic.SyntheticSource(12, size, seed=3)
  height, width = size
  centers = np.stack(
    np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1
  )
  for index in range(12):
    number = int(source.metadata[index]['lesion_id'].removeprefix('lesion_'))
    lesion = synthetic._draw_lesion(3, number)
    view = synthetic._draw_view(np.random.default_rng([3, 1, index]))
    angles = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    radius = sum(
      abs(harmonic) * np.cos(order * angles + np.angle(harmonic))
      for order, harmonic in enumerate(lesion.harmonics)
    )
    radius *= np.sqrt(lesion.area * 4 / np.pi)
    # Longer along one axis, shorter along the other: the area stays.
    long = radius * np.cos(angles) * lesion.aspect**0.5
    short = radius * np.sin(angles) / lesion.aspect**0.5
    cos, sin = np.cos(-view.angle), np.sin(-view.angle)
    x = view.zoom * (cos * long - sin * short) + view.center[0]
    y = view.zoom * (sin * long + cos * short) + view.center[1]
    shorter = min(size)
    border = np.stack([x * shorter + width, y * shorter + height], axis=1) / 2
    inside = mpl_path.Path(border).contains_points(centers.reshape(-1, 2))
    np.testing.assert_array_equal(
      source[index]['mask'], inside.reshape(size), err_msg=str(index)
    )


def test_an_image_is_the_same_scene_at_any_size(arrays):
  large = synthetic.SyntheticSource(20, (128, 128), seed=0)
  for index in range(20):
    mask = large[index]['mask'][::2, ::2]
    assert _pooled_dice(mask, arrays[1][index]) > 0.93


def test_some_lesions_have_two_views(source, arrays):
  by_lesion = collections.defaultdict(list)
  for index, row in enumerate(source.metadata):
    by_lesion[row['lesion_id']].append(index)
  # 200 images are 50 times two lesions of one image and one of two.
  assert collections.Counter(map(len, by_lesion.values())) == {1: 100, 2: 50}
  for indices in by_lesion.values():
    assert len({source.metadata[index]['dx'] for index in indices}) == 1
  split = splits.make_split(config_lib.DataConfig(), source.metadata)
  assert splits.report(split, source.metadata).leaked_images == 0


def test_classes_are_those_of_ham10000_and_differ_in_colour(source, arrays):
  redness = collections.defaultdict(list)
  for row, image, mask in zip(source.metadata, *arrays, strict=True):
    red, green, _ = image[mask == 1].mean(axis=0)
    redness[row['dx']].append(red / green)
  assert sorted(redness) == ['akiec', 'bcc', 'bkl', 'df', 'mel', 'nv', 'vasc']
  assert np.median(redness['vasc']) > 1.5 * np.median(redness['nv'])


def test_lesions_are_darker_than_the_skin_beside_them(arrays):
  contrast = [
    image[mask == 0].mean() - image[mask == 1].mean()
    for image, mask in zip(*arrays, strict=True)
  ]
  # A dark rim can make the rest of the image darker than the lesion.
  assert np.mean(np.array(contrast) > 5) > 0.9


def test_no_threshold_solves_them(arrays):
  images, masks = arrays
  greys = np.stack([cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in images])
  best = max(_pooled_dice(greys < level, masks) for level in range(256))
  assert 0.4 < best < 0.8
  otsu = [
    grey <= cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)[0] for grey in greys
  ]
  assert best < _pooled_dice(np.stack(otsu), masks) < 0.9


def test_a_negative_seed_is_refused():
  with pytest.raises(errors.InputError, match=r'data\.seed is -1'):
    synthetic.SyntheticSource(2, _SIZE, seed=-1)
