"""The recipe of docs/explanation/recipe.md at width 64 and 224 px.

python -m skinseg_jax.main --config configs/ham10000_best.py
Expected time and score: not measured, because no GPU was available. It differs
from ham10000_best_small.py in full rotation instead of quarter turns, scale,
translation, shear, colour, blur, noise, hair, a longer average, and batches of
32 at a learning rate of 0.002. These values come from the literature and were
not measured here.
"""

from skinseg_jax import config as config_lib


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  config.data.source = 'ham10000'
  config.data.image_size = (224, 224)
  config.data.split = 'paper'
  config.model.width = 64
  config.model.compute_dtype = 'bfloat16'
  config.augmentation.rotation_degrees = 180.0
  config.augmentation.vertical_flip = 0.5
  config.augmentation.scale = 0.25
  config.augmentation.translation = 0.1
  config.augmentation.shear_degrees = 10.0
  config.augmentation.brightness = 0.1
  config.augmentation.contrast = 0.2
  config.augmentation.saturation = 0.2
  config.augmentation.hue_degrees = 10.0
  config.augmentation.gamma = 0.2
  config.augmentation.colour_constancy = 0.1
  config.augmentation.blur = 1.0
  config.augmentation.noise = 0.02
  config.augmentation.hair = 0.2
  config.train.batch_size = 32
  config.train.epochs = 40
  config.train.learning_rate = 2e-3
  config.train.optimizer = 'adamw'
  config.train.weight_decay = 0.05
  config.train.schedule = 'cosine'
  config.train.warmup = 0.05
  config.train.loss = 'bce_dice'
  config.train.ema = 0.998
  config.evaluation.test_time_augmentation = 'dihedral'
  return config
