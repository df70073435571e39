"""The improved recipe at width 16, 112 px and 5 epochs, for a CPU.

python -m skinseg_jax.main --config configs/ham10000_best_small.py
Why these values: docs/explanation/recipe.md.
Expected: 55 minutes of CPU time; pooled Dice .9374 and .9378, Dice per image
.9356 and .9361, thresholded Jaccard .8622 and .8633 (seeds 0 and 1).
"""

from skinseg_jax import config as config_lib


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  config.data.source = 'ham10000'
  config.data.image_size = (112, 112)
  config.data.split = 'paper'
  config.model.width = 16
  config.augmentation.rotation_degrees = 0.0
  config.augmentation.vertical_flip = 0.5
  config.augmentation.quarter_turn = 0.75
  config.train.batch_size = 16
  config.train.epochs = 5
  config.train.learning_rate = 3e-3
  config.train.optimizer = 'adamw'
  config.train.weight_decay = 0.05
  config.train.schedule = 'cosine'
  config.train.warmup = 0.05
  config.train.loss = 'bce_dice'
  config.train.ema = 0.99
  config.evaluation.test_time_augmentation = 'dihedral'
  return config
