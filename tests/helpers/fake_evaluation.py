"""A run folder with one evaluation, made without a model.

The predictions are the true masks of generated lesions with added noise.
"""

import json

import numpy as np
from scipy import ndimage

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, splits
from skinseg_jax.data.sources import synthetic
from skinseg_jax.evaluation import (
  assessment,
  result_files,
  subgroups,
  summaries,
)
from skinseg_jax.metrics import calibration, surface
from skinseg_jax.run import run_folder

SHA = '0123456789abcdef' * 4


def write_run(
  workdir,
  *,
  name='validation',
  num_images=48,
  size=(64, 64),
  split='lesion',
  rename=lambda image_id: image_id,
):
  """Writes the folder; returns images and masks in the form of `cache`."""
  source = synthetic.SyntheticSource(num_images=num_images, size=size, seed=0)
  examples = [source[i] for i in range(num_images)]
  metadata = [
    {**row, 'image_id': rename(row['image_id'])} for row in source.metadata
  ]
  data = cache.CachedData(
    images=np.stack([example['image'] for example in examples]),
    masks=np.stack([example['mask'] for example in examples]),
    image_ids=[row['image_id'] for row in metadata],
    fingerprint=source.fingerprint,
  )
  _write_run_files(workdir, size, split)
  directory = run_folder.evaluation_dir(workdir, name)
  _write_evaluation(directory, name, data, metadata, split)
  return data


def _write_run_files(workdir, size, split):
  config = config_lib.Config()
  config.data.source = 'synthetic'
  config.data.image_size = size
  config.data.split = split
  workdir.mkdir(exist_ok=True)
  run_folder.write_json(workdir / 'config.json', config_lib.to_dict(config))
  environment = {
    'command': ['skinseg_jax/main.py', '--config', 'configs/quickstart.py'],
    'python': '3.11.7',
    'packages': {'jax': '0.10.2', 'flax': '0.12.8'},
    'device': 'cpu',
    'platform': 'cpu',
    'num_devices': 1,
    'num_processes': 1,
    'commit': '',
    'data_source': 'synthetic',
    'data_fingerprint': SHA,
    'split_sha256': SHA,
  }
  run_folder.write_json(workdir / 'environment.json', environment)
  lines = [
    {
      'step': 10 * epoch,
      'epoch/number': epoch,
      **{
        f'{side}/{score}': value
        for side, gap in (('epoch', 0.0), ('validation', 0.03))
        for score, value in {
          'loss': 0.2 + 1 / (epoch + 1) + gap,
          'dice': 0.9 - 1 / (epoch + 1) - gap,
          'accuracy': 0.95 - 0.5 / (epoch + 1) - gap,
        }.items()
      },
    }
    for epoch in range(1, 7)
  ]
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (workdir / 'metrics.jsonl').write_text(text)


def _logits(masks):
  """Logits from shifted, noisy true masks, like those of a mediocre model."""
  rng = np.random.default_rng(1)
  noise = rng.normal(size=masks.shape).astype(np.float32)
  noise = ndimage.gaussian_filter(noise, (0, 4, 4)) * 14
  level = rng.normal(-0.3, 0.6, (len(masks), 1, 1))
  level[:2] = -9  # Two lesions are missed completely.
  soft = ndimage.gaussian_filter(masks.astype(np.float32), (0, 2, 2))
  return (8 * (soft - 0.5) + noise + level).astype(np.float32)


def _assess(data):
  masks, logits = data.masks, _logits(data.masks)
  predicted = (logits > 0).astype(np.uint8)
  counts = {
    'tp': np.sum((masks == 1) & (predicted == 1), (1, 2)),
    'fp': np.sum((masks == 0) & (predicted == 1), (1, 2)),
    'fn': np.sum((masks == 1) & (predicted == 0), (1, 2)),
    'tn': np.sum((masks == 0) & (predicted == 0), (1, 2)),
  }
  loss = np.logaddexp(0, logits) - logits * masks
  histogram = calibration.probability_histogram(
    logits[..., None], masks, np.ones(len(masks), bool)
  )
  skin = list(map(assessment.skin_of, data.images, masks))
  return assessment.Assessment(
    image_ids=data.image_ids,
    counts=counts,
    loss=loss.mean(axis=(1, 2), dtype=np.float64),
    squared_error=np.asarray(
      calibration.squared_errors(logits[..., None], masks)
    ),
    surface=surface.batch_scores(predicted, masks),
    measured=subgroups.measure_all(data.images, masks),
    skin={name: np.array([row[name] for row in skin]) for name in skin[0]},
    pieces=np.array([subgroups.pieces(mask) for mask in predicted]),
    packed=np.packbits(predicted.reshape(len(masks), -1), axis=1),
    histogram=np.asarray(histogram, np.int64),
    native_counts={name: 9 * values for name, values in counts.items()},
  )


def _write_evaluation(directory, name, data, metadata, split):
  assessed = _assess(data)
  summary = summaries.summarise(
    assessed, metadata, image_size=data.masks.shape[1:], threshold=0.5
  )
  best = calibration.best_threshold(assessed.histogram)
  half = splits.Split(
    train=data.image_ids[::2], validation=data.image_ids[1::2]
  )
  summary |= {
    'checkpoint_step': 60,
    'best_checkpoint': {'step': 50, 'dice': 0.87},
    'operating_point': {
      'threshold': best,
      'chosen_on': 'train',
      'train_dice': 0.91,
      'train_images': 1234,
      'pooled': summaries.scores_at(assessed.histogram, best),
    },
    'data': {
      'name': 'synthetic',
      'fingerprint': SHA,
      'split': split,
      'split_sha256': SHA,
    },
    'leakage': splits.report(half, metadata).as_dict(),
  }
  result_files.write(directory, summary, assessed, metadata)
