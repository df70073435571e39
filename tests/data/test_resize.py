"""Images, masks and probabilities are resized as OpenCV does."""

import zipfile

import cv2
import hypothesis
import numpy as np
import pytest
from fake_images import random_image
from hypothesis import strategies as st

from skinseg_jax.data import preprocessing

SIZES = [
  ((1, 1), (7, 5)),
  ((1, 1), (1, 1)),
  ((31, 17), (16, 32)),
  ((31, 17), (224, 224)),
  ((3000, 40), (224, 224)),
  ((40, 3000), (16, 16)),
  ((450, 600), (224, 224)),
  ((448, 448), (224, 224)),  # OpenCV has a path of its own for halving.
  ((450, 600), (225, 300)),
  ((450, 600), (112, 112)),
  ((5, 4), (5, 9)),
  ((4, 5), (9, 5)),
]


def assert_resizes_as_opencv(image, mask, size):
  resized = preprocessing.resize_image(image, size)
  expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
  assert resized.dtype == np.uint8
  assert resized.shape == (*size, 3)
  # One grey level: OpenCV may be built with another library's resize.
  difference = resized.astype(int) - expected.reshape(resized.shape)
  assert np.abs(difference).max() <= 1
  np.testing.assert_array_equal(
    preprocessing.resize_mask(mask, size),
    cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST).reshape(size),
  )


@pytest.mark.parametrize(('size', 'target'), SIZES)
def test_resize_equals_opencv(size, target):
  image = random_image(*size)
  assert_resizes_as_opencv(image, image[..., 0] % 2, target)


@hypothesis.given(*[st.integers(1, 90)] * 4, st.integers(0, 2**32 - 1))
@hypothesis.settings(deadline=None, max_examples=200)
def test_resize_equals_opencv_at_any_size(height, width, rows, columns, seed):
  image = random_image(height, width, seed)
  assert_resizes_as_opencv(image, image[..., 0] % 2, (rows, columns))


@hypothesis.given(st.integers(1, 5000), st.integers(1, 5000))
@hypothesis.settings(deadline=None, max_examples=300)
def test_nearest_takes_opencvs_pixel_at_any_length(source, target):
  # Quotients near whole numbers are where rules differ. Values up to 5000 need
  # more than 8 bits; masks of any type are taken.
  positions = np.arange(source, dtype=np.uint16)[None]
  np.testing.assert_array_equal(
    preprocessing.resize_mask(positions, (1, target)),
    cv2.resize(positions, (target, 1), interpolation=cv2.INTER_NEAREST),
  )


def test_bilinear_by_hand():
  # Centres of 4 pixels over 2 lie at -0.25, 0.25, 0.75 and 1.25.
  image = np.repeat(np.array([[[0], [100]]], np.uint8), 3, axis=2)
  resized = preprocessing.resize_image(image, (1, 4))
  assert resized[0, :, 1].tolist() == [0, 25, 75, 100]


def test_nearest_by_hand():
  # Pixel i of 2 takes pixel floor(i * 2.5) of 5.
  mask = np.array([[1, 0, 0, 0, 0]], np.uint8)
  assert preprocessing.resize_mask(mask, (1, 2)).tolist() == [[1, 0]]
  assert preprocessing.resize_mask(mask, (2, 1)).tolist() == [[1], [1]]


@pytest.mark.ham10000
def test_real_images_resize_as_opencv(ham10000_dir):
  images = zipfile.ZipFile(ham10000_dir / 'HAM10000_images_part_1.zip')
  folder = 'HAM10000_segmentations_lesion_tschandl'
  masks = zipfile.ZipFile(ham10000_dir / f'{folder}.zip')
  names = sorted(n for n in images.namelist() if n.endswith('.jpg'))
  with images, masks:
    for name in names[:200]:  # The first 402 but ten have inverted palettes.
      image_id = name.removesuffix('.jpg')
      image = preprocessing.decode_image(images.read(name), name)
      data = masks.read(f'{folder}/{image_id}_segmentation.png')
      mask = preprocessing.decode_mask(data, image_id)
      # OpenCV applies palettes too, so this is what the mask looks like.
      seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
      np.testing.assert_array_equal(mask * 255, seen)
      assert_resizes_as_opencv(image, mask, (224, 224))


@pytest.mark.parametrize(
  ('source', 'target'),
  [
    ((224, 224), (450, 600)),
    ((32, 48), (31, 17)),
    ((64, 64), (64, 64)),
    ((16, 16), (1, 3)),
    ((16, 32), (300, 400)),
  ],
)
def test_probability_resized_as_opencv_does(source, target):
  probability = np.random.default_rng(0).random(source, np.float32)
  kept = probability.copy()
  resized = preprocessing.resize_probability(probability, target)
  expected = cv2.resize(
    probability, target[::-1], interpolation=cv2.INTER_LINEAR
  )
  assert resized.dtype == np.float32
  assert np.abs(resized - expected).max() < 1e-6
  assert np.array_equal(probability, kept)
