"""The paper's experiment on HAM10000, with all of its settings.

python -m skinseg_jax.main --config configs/ham10000_paper.py
Expected time and score: not measured, because no GPU was available.
"""

from skinseg_jax import config as config_lib


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  config.data.source = 'ham10000'
  config.data.image_size = (224, 224)
  config.data.split = 'paper'
  config.model.width = 64
  config.augmentation.rotation_degrees = 35.0
  config.augmentation.border = 'mirror'
  config.augmentation.horizontal_flip = 0.5
  config.augmentation.vertical_flip = 0.1
  config.train.batch_size = 32
  config.train.epochs = 20
  config.train.learning_rate = 1e-3
  return config
