import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import distance

from skinseg_jax.metrics import surface


def medpy_border(mask):
  """MedPy's border: mask xor its erosion by a cross; outside is background."""
  cross = ndimage.generate_binary_structure(2, 1)
  return mask ^ ndimage.binary_erosion(mask, cross)


def by_transform(predicted, true):
  """Scores as in MedPy, by distance transforms of the whole image."""
  ours, theirs = medpy_border(predicted), medpy_border(true)
  forth = ndimage.distance_transform_edt(~theirs)[ours]
  back = ndimage.distance_transform_edt(~ours)[theirs]
  return forth, back


def by_brute_force(predicted, true):
  """Scores from all distances between pixels that have a side outside."""

  def edge(mask):
    height, width = mask.shape
    return [
      (y, x)
      for y, x in np.argwhere(mask)
      if any(
        not (0 <= v < height and 0 <= u < width and mask[v, u])
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
      )
    ]

  every = distance.cdist(edge(predicted), edge(true))
  return every.min(axis=1), every.min(axis=0)


def scores_of(forth, back, shape):
  near = 0.0075 * np.hypot(*shape)
  precision, recall = (forth < near).mean(), (back < near).mean()
  both = precision + recall
  return {
    'boundary_f1': 2 * precision * recall / both if both else 0,
    'hd95': np.percentile(np.hstack([forth, back]), 95),
    # Mean over both directions, weighted by their numbers of pixels.
    'assd': np.average(
      [forth.mean(), back.mean()], weights=[len(forth), len(back)]
    ),
  }


def blob(rng, shape=(96, 80)):
  """A smooth random region, often touching the border."""
  noise = ndimage.gaussian_filter(rng.normal(size=shape), 8, mode='constant')
  return noise > np.quantile(noise, rng.uniform(0.3, 0.9))


@pytest.mark.parametrize('oracle', [by_transform, by_brute_force])
@pytest.mark.parametrize('kind', ['blobs', 'noise', 'sparse'])
def test_equals_distances_found_another_way(oracle, kind):
  rng = np.random.default_rng(0)
  for _ in range(8):
    pair = {
      'blobs': lambda: (blob(rng), blob(rng)),
      'noise': lambda: rng.random((2, 30, 41)) < 0.5,
      'sparse': lambda: rng.random((2, 40, 33)) < 0.01,
    }[kind]()
    assert surface.surface_scores(*pair) == pytest.approx(
      scores_of(*oracle(*pair), pair[0].shape)
    )


MASKS = {
  'full': np.ones((20, 30), bool),
  'pixel': np.arange(600).reshape(20, 30) == 217,
  'corner': np.arange(600).reshape(20, 30) == 599,
  'left half': np.arange(600).reshape(20, 30) % 30 < 15,
  'top row': np.arange(600).reshape(20, 30) < 30,
}


@pytest.mark.parametrize('predicted', MASKS)
@pytest.mark.parametrize('true', MASKS)
def test_full_one_pixel_and_border_touching_masks(predicted, true):
  pair = MASKS[predicted], MASKS[true]
  expected = scores_of(*by_brute_force(*pair), (20, 30))
  assert surface.surface_scores(*pair) == pytest.approx(expected)
  assert scores_of(*by_transform(*pair), (20, 30)) == pytest.approx(expected)


def test_empty_masks():
  empty, pixel = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
  pixel[3, 4] = True
  assert surface.surface_scores(empty, empty) == {
    'boundary_f1': 1,
    'hd95': 0,
    'assd': 0,
  }
  # The diagonal of 30 x 40 is 50.
  for pair in ((empty, pixel), (pixel, empty)):
    assert surface.surface_scores(*pair) == {
      'boundary_f1': 0,
      'hd95': 50,
      'assd': 50,
    }


def test_two_pixels_by_hand():
  # The tolerance is .0075 * hypot(300, 400) = 3.75. Pixels 3 down and 4 across
  # are 5 apart, which is beyond it; 3 apart is within it.
  masks = np.zeros((3, 300, 400), np.uint8)
  masks[0, 10, 10] = masks[1, 13, 14] = masks[2, 10, 13] = 1
  assert surface.tolerance((300, 400)) == pytest.approx(3.75)
  found = surface.batch_scores(masks[[0, 0]], masks[[1, 2]])
  assert {name: values.tolist() for name, values in found.items()} == {
    'boundary_f1': [0, 1],
    'hd95': [5, 3],
    'assd': [5, 3],
  }


def test_a_shifted_square_by_hand():
  # A 3 x 3 square, and the same square one column to the right. Each boundary
  # is a ring of 8 pixels with a hole.
  mask = np.zeros((224, 224), np.uint8)
  mask[100:103, 100:103] = 255
  found = surface.surface_scores(np.roll(mask, 1, axis=1), mask)
  # 4 of the 8 pixels lie in both rings. The other 4 (the outer column of 3, and
  # the pixel in the hole of the other ring) are 1 away from the other ring.
  assert found == {'boundary_f1': 1, 'hd95': 1, 'assd': 0.5}


def test_masks_of_several_sizes():
  rng = np.random.default_rng(1)
  sizes = [(31, 17), (60, 45), (9, 100)]
  first, second = ([rng.random(s) < 0.3 for s in sizes] for _ in range(2))
  found = surface.batch_scores(first, second)
  for i, pair in enumerate(zip(first, second, strict=True)):
    one = surface.surface_scores(*pair)
    assert {name: values[i] for name, values in found.items()} == one


def test_shapes_that_differ_are_refused():
  with pytest.raises(ValueError, match=r'\(4, 5\) and \(5, 4\)'):
    surface.surface_scores(np.ones((4, 5)), np.ones((5, 4)))


masks = hnp.arrays(bool, (2, *[9, 7]), elements=st.booleans())


@hypothesis.given(masks)
@hypothesis.settings(deadline=None)
def test_properties(pair):
  predicted, true = pair
  found = surface.surface_scores(predicted, true)
  # Scores are symmetric, unchanged by mirroring and transposing, bounded, and
  # perfect for equal masks.
  assert surface.surface_scores(true, predicted) == pytest.approx(found)
  turned = surface.surface_scores(predicted.T[::-1], true.T[::-1])
  assert turned == pytest.approx(found)
  assert 0 <= found['boundary_f1'] <= 1
  assert 0 <= found['assd'] <= np.hypot(9, 7)
  assert surface.surface_scores(true, true) == surface.BOTH_EMPTY
  if predicted.any() and true.any():
    expected = scores_of(*by_brute_force(predicted, true), true.shape)
    assert found == pytest.approx(expected)
