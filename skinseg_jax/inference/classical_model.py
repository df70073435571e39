"""A classical method in the place of a trained model."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from skinseg_jax import config as config_lib
from skinseg_jax.classical import catalog, parameters
from skinseg_jax.data import input_pipeline
from skinseg_jax.inference import forward_pass
from skinseg_jax.run import run_folder
from skinseg_jax.runtime import errors

# The sigmoid of this is 1, and of its negative 0, within 1e-43. It also bounds
# the cross-entropy of a wrong pixel, as PyTorch's BCELoss does.
_CERTAIN = 100.0


@dataclasses.dataclass(frozen=True, eq=False)
class ClassicalModel:
  """A method without training; it is used like a `TrainedModel`.

  Attributes:
    config: Says at what size images are segmented. The method decides on the
      host, with probabilities of 0 and 1.
    name: Its name in `parameters.METHODS`.
    settings: Its parameters.
    step: 0, because nothing is trained.
    best: None, because there are no checkpoints.
    local: Whether it takes batches of this process only.
  """

  config: config_lib.Config
  name: str
  settings: parameters.Settings
  step: int = 0
  best: dict[str, Any] | None = None
  local: bool = False

  @property
  def members(self) -> 'tuple[ClassicalModel]':
    """Only itself."""
    return (self,)

  @property
  def sharding(self) -> jax.sharding.NamedSharding:
    """How a batch is laid out over the devices."""
    return input_pipeline.data_sharding(local=self.local)

  def logits(self, images: jax.Array) -> jax.Array:
    """Segments a batch; uint8 [B, H, W, 3] to float32 [B, H, W, 1]."""
    segment = catalog.segmenter(self.settings)
    masks = np.stack([segment(image) for image in np.array(images)])
    logits = np.where(masks[..., None], _CERTAIN, -_CERTAIN)
    return jax.device_put(logits.astype(np.float32), images.sharding)

  def each_view(
    self, images: jax.Array, *, several: bool
  ) -> forward_pass.Views:
    """The only view; it has no features."""
    del several  # Methods have no views.
    logits = self.logits(images)[None]
    return forward_pass.Views(logits, jnp.zeros((1, len(images), 0)))

  def on_this_process(self) -> 'ClassicalModel':
    """The same, for batches of this process only."""
    return dataclasses.replace(self, local=True)

  def fingerprint(self) -> str:
    """SHA-256 of name and parameters; equal where masks are."""
    about = [self.name, dataclasses.asdict(self.settings)]
    text = json.dumps(about, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def load(name: str, config: config_lib.Config) -> ClassicalModel:
  """Returns a method by name.

  Args:
    name: Its name.
    config: Says at what size images are segmented; test-time augmentation does
      not apply.

  Raises:
    InputError: If there is none of this name, or a package is missing.
  """
  return ClassicalModel(config, name, catalog.find(name))


def keep(model: ClassicalModel, home: pathlib.Path) -> None:
  """Writes name and parameters of a method into the folder of its scores.

  Raises:
    InputError: If the folder holds something else, or cannot be written to.
  """
  about = {
    'method': model.name,
    'parameters': dataclasses.asdict(model.settings),
    'image_size': list(model.config.data.image_size),
  }
  path = home / 'method.json'
  there = run_folder.read_json(path) if path.exists() else None
  if there != about and home.is_dir() and any(home.iterdir()):
    what = 'other scores' if there else 'other files'
    raise errors.InputError(
      f'{home} holds {what}, and --output needs an empty folder, or one with'
      f' earlier scores of {model.name} with the same parameters and image'
      ' size; give a new folder.'
    )
  try:
    home.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(path, about)
  except OSError as error:
    raise errors.InputError(
      f'cannot write to {home}: {error.strerror}; give another --output.'
    ) from error
