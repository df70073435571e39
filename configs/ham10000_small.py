"""The paper's split and recipe at width 16, 112 px and 5 epochs, for a CPU.

python -m skinseg_jax.main --config configs/ham10000_small.py
Expected: 26 minutes on two CPU cores (266 to 289 s per epoch), pooled Dice
.9257 with seed 1. With seed 0 the score drops in the fifth epoch:
docs/explanation/results.md.
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
