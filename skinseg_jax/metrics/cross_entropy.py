"""Binary cross-entropy of logits, for training and for scoring."""

import jax
import jax.numpy as jnp
import optax


def bce_with_logits(logits: jax.Array, masks: jax.Array) -> jax.Array:
  """Binary cross-entropy, the mean over the pixels of each image.

  Args:
    logits: Model output before the sigmoid, float, [B, H, W, 1].
    masks: Ground truth in [0, 1], [B, H, W].

  Returns:
    Loss in nats, float32 [B].

  Raises:
    ValueError: If the shapes do not fit.
  """
  logits, masks = aligned(logits, masks)
  losses = optax.sigmoid_binary_cross_entropy(logits, masks)
  return losses.mean(axis=(1, 2))


def aligned(logits: jax.Array, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Both arrays as [B, H, W] with one type, at least float32.

  Raises:
    ValueError: If the shapes do not fit.
  """
  if logits.shape != (*masks.shape, 1):
    raise ValueError(
      'logits must be [B, H, W, 1] for masks [B, H, W], got'
      f' {logits.shape} and {masks.shape}.'
    )
  wide = jnp.promote_types(logits.dtype, jnp.float32)
  return logits[..., 0].astype(wide), masks.astype(wide)
