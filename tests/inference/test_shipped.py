"""The model that comes with the package is whole, small and as published."""

import csv
import pathlib
import zipfile

import numpy as np
import pytest

import skinseg_jax
from skinseg_jax.data import preprocessing
from skinseg_jax.data.sources import synthetic
from skinseg_jax.inference import predictor as predictor_lib
from skinseg_jax.inference import trained_model
from skinseg_jax.weights import shared_model

_SCORES = (
  pathlib.Path(__file__).parents[2]
  / 'docs/benchmarks/ham10000_mobile/seed0/per_image.csv'
)


@pytest.fixture(scope='module')
def model():
  return skinseg_jax.load()


def test_it_outlines_generated_lesions(model):
  source = synthetic.SyntheticSource(8, (200, 240), seed=3)
  examples = [source[i] for i in range(len(source))]
  found = model.predict([example['image'] for example in examples])
  overlaps = []
  for example, prediction in zip(examples, found, strict=True):
    truth = example['mask'] > 0
    assert prediction.mask.shape == truth.shape
    both = np.count_nonzero(prediction.mask & truth)
    overlaps.append(2 * both / (prediction.mask.sum() + truth.sum()))
  # It has never seen such pictures; a wrong channel order or scale fails.
  assert np.median(overlaps) > 0.8


def test_it_fits_a_phone():
  files = {path.name: path for path in shared_model.SHIPPED.iterdir()}
  assert sorted(files) == [
    'README.md', 'config.json', 'failures.png', 'model.json',
    'model.safetensors', 'review.json', 'split.csv',
  ]  # fmt: skip
  assert sum(path.stat().st_size for path in files.values()) < 12e6


def test_its_card_can_be_shared():
  hub = pytest.importorskip('huggingface_hub')
  card = hub.ModelCard.load(shared_model.SHIPPED / 'README.md')
  assert card.data.license == 'cc-by-nc-4.0'
  assert card.data.eval_results


def test_the_card_has_the_published_scores():
  with _SCORES.open(newline='') as file:
    rows = list(csv.DictReader(file))
  tp, fp, fn = (
    np.array([int(row[name]) for row in rows]) for name in ('tp', 'fp', 'fn')
  )
  pooled = 2 * tp.sum() / (2 * tp + fp + fn).sum()
  each = (2 * tp / (2 * tp + fp + fn)).mean()
  card = (shared_model.SHIPPED / 'README.md').read_text()
  assert len(rows) == 1999
  assert f'| Dice, pooled over all pixels | {pooled:.4f} (' in card
  assert f'| Dice per image | {each:.4f} (' in card


@pytest.mark.ham10000
def test_it_scores_what_is_published(ham10000_dir):
  with _SCORES.open(newline='') as file:
    rows = list(csv.DictReader(file))[::250]
  masks = zipfile.ZipFile(
    ham10000_dir / 'HAM10000_segmentations_lesion_tschandl.zip'
  )
  images = [
    zipfile.ZipFile(ham10000_dir / f'HAM10000_images_part_{i}.zip')
    for i in (1, 2)
  ]
  places = {
    pathlib.PurePath(name).name: (file, name)
    for file in (*images, masks)
    for name in file.namelist()
  }
  read = lambda name: places[name][0].read(places[name][1])
  loaded = trained_model.load(shared_model.SHIPPED, 'last')
  size = loaded.config.data.image_size
  pictures = [
    preprocessing.decode_image(read(f'{row["image_id"]}.jpg'), 'image')
    for row in rows
  ]
  resized = [predictor_lib.resize(loaded, picture) for picture in pictures]
  found = predictor_lib.answers(loaded, resized, len(rows))
  for row, answer in zip(rows, found, strict=True):
    mask = answer.probability > 0.5
    png = read(f'{row["image_id"]}_segmentation.png')
    truth = preprocessing.decode_mask(png, row['image_id'])
    truth = preprocessing.resize_mask(truth, size) > 0
    both = np.count_nonzero(mask & truth)
    # Processors round differently: a few pixels at the outline may differ.
    assert both == pytest.approx(int(row['tp']), abs=5)
    assert np.count_nonzero(mask) - both == pytest.approx(int(row['fp']), abs=5)
    assert np.count_nonzero(truth) - both == pytest.approx(
      int(row['fn']), abs=5
    )
