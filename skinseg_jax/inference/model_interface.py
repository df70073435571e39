"""What prediction and scoring expect of a model.

`TrainedModel` and `ClassicalModel` are each a `Model`; `Ensemble` is only an
`AnyModel`, because its members may take images of different sizes.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import jax

from skinseg_jax import config as config_lib
from skinseg_jax.inference import forward_pass


class AnyModel(Protocol):
  """One model, or several whose probabilities are averaged."""

  @property
  def config(self) -> config_lib.Config:
    """Says the threshold, and the size [H, W] of the probabilities."""
    ...

  @property
  def step(self) -> int:
    """Number of updates made; of several models the largest."""
    ...

  @property
  def members(self) -> Sequence['Model']:
    """The models; of one model only itself."""
    ...

  @property
  def sharding(self) -> jax.sharding.NamedSharding:
    """How a batch is laid out over the devices."""
    ...

  def on_this_process(self) -> 'AnyModel':
    """The same on the devices of this process only; all have to call it."""
    ...

  def fingerprint(self) -> str:
    """SHA-256; equal where predictions are."""
    ...


class Model(AnyModel, Protocol):
  """One network or method; `config.data.image_size` is its input size."""

  @property
  def best(self) -> dict[str, Any] | None:
    """`step` and `dice` of the best checkpoint; None if none was scored."""
    ...

  def logits(self, images: jax.Array) -> jax.Array:
    """Predicts a batch; uint8 [B, H, W, 3] to float32 [B, H, W, 1]."""
    ...

  def each_view(
    self, images: jax.Array, *, several: bool
  ) -> forward_pass.Views:
    """Predicts views of a batch; the mean of its own is that of `logits`.

    Args:
      images: uint8 [B, H, W, 3].
      several: Whether a model that averages no views takes as many as it can.
    """
    ...

  def on_this_process(self) -> 'Model':
    """The same on the devices of this process only; all have to call it."""
    ...
