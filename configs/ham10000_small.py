"""The paper's split and recipe at width 16, 112 px and 5 epochs, for a CPU.

python -m skinseg_jax.main --config configs/ham10000_small.py
Expected: 372 to 673 s an epoch on two CPU cores shared with other work; the
score varies from epoch to epoch (README, Results).
"""

from skinseg_jax import config as config_lib


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  config.data.source = 'ham10000'
  config.data.image_size = (112, 112)
  config.data.split = 'paper'
  config.model.width = 16
  config.train.epochs = 5
  return config
