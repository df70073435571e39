import io

import cv2
import numpy as np
import pytest
from PIL import Image

from skinseg_jax.reporting import figures, overlays

# Four columns: correct, false and missed lesion, skin.
TRUTH = np.zeros((4, 8), np.uint8)
TRUTH[:, [0, 1, 4, 5]] = 1
PREDICTED = np.zeros((4, 8), np.uint8)
PREDICTED[:, [0, 1, 2, 3]] = 1
GREY = np.full((4, 8, 3), 128, np.uint8)
# Centres of the columns in a picture 256 wide.
FOUND, TOO_MUCH, MISSED, SKIN = 32, 96, 160, 224


def test_errors_have_the_colours_of_the_legend():
  picture = overlays.error_map(GREY, TRUTH, PREDICTED)
  assert picture.shape == (128, 256, 3)
  row = picture[64]
  assert tuple(row[TOO_MUCH]) == overlays.TINTS['fp'][1]
  assert tuple(row[MISSED]) == overlays.TINTS['fn'][1]
  # Half of 128, plus 64.
  assert tuple(row[SKIN]) == (128, 128, 128)
  assert row[FOUND][2] > row[FOUND][0]


def test_overlay_leaves_skin_as_it_is_and_tints_the_rest():
  image = np.zeros_like(GREY)
  image[..., 0] = 200
  row = overlays.overlay(image, TRUTH, PREDICTED)[64]
  assert tuple(row[SKIN]) == (200, 0, 0)
  # Missed: 65 % of the way from (200, 0, 0) to (0, 60, 160).
  assert tuple(row[MISSED]) == (70, 39, 104)
  # Too much: 60 % of the way to (240, 228, 66).
  assert tuple(row[TOO_MUCH]) == (224, 137, 40)


def test_outline_lies_inside_the_mask_and_follows_its_edge():
  mask = np.zeros((128, 256), np.uint8)
  mask[20:60, 50:100] = 1
  picture = overlays.outlined(
    np.zeros((128, 256, 3), np.uint8), mask, (255, 255, 255)
  )
  line = picture[..., 0] > 0
  assert not line[mask == 0].any()
  # Two pixels wide: a rectangle of 40 x 50 less one of 36 x 46.
  assert line.sum() == 40 * 50 - 36 * 46


def test_right_side_up():
  image = np.zeros((64, 32, 3), np.uint8)
  image[:10, :10] = 255
  mask = np.zeros((64, 32), np.uint8)
  mask[:10, :10] = 1
  picture = overlays.error_map(image, mask, np.zeros_like(mask))
  assert picture.shape == (256, 128, 3)
  missed = np.all(picture == overlays.TINTS['fn'][1], axis=2)
  assert missed[:38, :38].all()
  assert not missed[42:].any()
  assert not missed[:, 42:].any()


# What people without one kind of cone see: Machado, Oliveira and Fernandes,
# 2009 (doi:10.1109/TVCG.2009.113), severity 1.0; on linear RGB.
BLIND = {
  'normal': np.eye(3),
  'protan': [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  'deutan': [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
  ],
  'tritan': [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.303900],
  ],
}


@pytest.mark.parametrize('kind', BLIND)
def test_tints_differ_for_everybody(kind):
  tints = np.float32([colour for _, colour in overlays.TINTS.values()]) / 255
  linear = np.where(
    tints <= 0.04045, tints / 12.92, ((tints + 0.055) / 1.055) ** 2.4
  )
  seen = np.clip(linear @ np.array(BLIND[kind]).T, 0, 1)
  seen = np.where(
    seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055
  )
  lab = cv2.cvtColor(np.float32(seen)[None], cv2.COLOR_RGB2Lab)[0]
  for a in range(3):
    for b in range(a):
      # 2.3 is a just noticeable difference.
      assert np.linalg.norm(lab[a] - lab[b]) > 40


def test_tints_of_errors_differ_without_colour():
  weights = [0.299, 0.587, 0.114]
  tones = [np.dot(overlays.TINTS[name][1], weights) for name in ('fp', 'fn')]
  assert abs(tones[0] - tones[1]) > 100


def test_sheet_of_few():
  chart = overlays.sheet([(GREY, GREY)] * 4, ['$a_$', 'b', 'c', 'd'], 'Best')
  assert Image.open(io.BytesIO(figures.to_png(chart))).width > 1000
