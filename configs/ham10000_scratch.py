"""U-Net of width 16 from random weights, 128 px and 3 epochs, for a CPU.

python -m skinseg_jax.main --config configs/ham10000_scratch.py
The best network of its kind in docs/explanation/is-unet-optimal.md.
Expected: 23 minutes of processor time; Dice per image .9312 and .9315
(seeds 0 and 1, one view).
"""

from skinseg_jax import config as config_lib


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  config.data.source = 'ham10000'
  config.data.image_size = (128, 128)
  config.data.split = 'paper'
  config.model.width = 16
  config.augmentation.rotation_degrees = 0.0
  config.augmentation.vertical_flip = 0.5
  config.augmentation.quarter_turn = 0.75
  config.train.batch_size = 16
  config.train.epochs = 3
  config.train.learning_rate = 1e-3
  config.train.optimizer = 'adamw'
  config.train.weight_decay = 0.05
  config.train.schedule = 'cosine'
  config.train.warmup = 0.05
  config.train.loss = 'bce_dice'
  config.train.ema = 0.99
  return config
