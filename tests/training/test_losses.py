import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from skinseg_jax.metrics import cross_entropy
from skinseg_jax.training import losses


def test_bce_by_hand():
  # -log sigmoid(0) = .6931 on lesion; on skin with logit 2,
  # -log(1 - sigmoid(2)) = 2.1269; their mean is 1.4100.
  logits = jnp.array([0.0, 2.0]).reshape(1, 1, 2, 1)
  masks = jnp.array([1, 0], jnp.uint8).reshape(1, 1, 2)
  assert cross_entropy.bce_with_logits(logits, masks)[0] == pytest.approx(
    1.41004, abs=1e-5
  )


@pytest.mark.torch
def test_bce_equals_torch():
  torch = pytest.importorskip('torch')
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 20, (3, 8, 8, 1)).astype(np.float32)
  masks = rng.integers(0, 2, (3, 8, 8)).astype(np.uint8)
  expected = torch.nn.functional.binary_cross_entropy_with_logits(
    torch.from_numpy(logits[..., 0]), torch.from_numpy(masks).float()
  )
  assert cross_entropy.bce_with_logits(logits, masks).mean() == pytest.approx(
    expected.item(), rel=1e-6
  )


def test_gradient_is_finite_at_extreme_logits():
  logits = jnp.array([-1e4, 1e4]).reshape(1, 1, 2, 1)
  masks = jnp.array([1, 0], jnp.uint8).reshape(1, 1, 2)
  grad = jax.grad(lambda x: cross_entropy.bce_with_logits(x, masks).sum())(
    logits
  )
  assert np.asarray(grad).ravel().tolist() == [-0.5, 0.5]


def test_shapes_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='logits must be'):
    cross_entropy.bce_with_logits(jnp.zeros((1, 4, 4)), jnp.zeros((1, 4, 4)))


# Two pixels of probability .5 and .8808, one of lesion, one of skin.
_LOGITS = np.float32([0.0, 2.0]).reshape(1, 1, 2, 1)
_MASKS = np.uint8([1, 0]).reshape(1, 1, 2)


def test_bce_and_dice_by_hand():
  # Dice (2 * .5 + 1) / (.5 + .8808 + 1 + 1) = .59158, cross-entropy 1.41004.
  assert losses.bce_dice_with_logits(_LOGITS, _MASKS)[0] == pytest.approx(
    1.41004 + 1 - 0.59158, abs=1e-5
  )


def test_focal_tversky_by_hand():
  # T = (.5 + 1) / (.5 + .7 * .5 + .3 * .8808 + 1) = .70947;
  # (1 - T) ** .75 = .39564.
  assert losses.focal_tversky_with_logits(_LOGITS, _MASKS)[0] == pytest.approx(
    0.39564, abs=1e-4
  )


@pytest.mark.torch
def test_losses_equal_torch_with_their_gradients():
  torch = pytest.importorskip('torch')
  rng = np.random.default_rng(1)
  logits = rng.normal(0, 3, (3, 8, 8, 1)).astype(np.float32)
  masks = rng.random((3, 8, 8)).astype(np.float32)

  def bce_dice(x, t):
    bce = torch.nn.functional.binary_cross_entropy_with_logits(x, t)
    p = torch.sigmoid(x)
    sums = lambda y: y.sum(dim=(1, 2))
    dice = (2 * sums(p * t) + 1) / (sums(p) + sums(t) + 1)
    return bce + (1 - dice).mean()

  def focal_tversky(x, t):
    p = torch.sigmoid(x)
    tp, fn, fp = (y.sum(dim=(1, 2)) for y in (p * t, (1 - p) * t, p * (1 - t)))
    index = (tp + 1) / (tp + 0.7 * fn + 0.3 * fp + 1)
    return ((1 - index) ** (1 / (4 / 3))).mean()

  written_here = {'bce_dice': bce_dice, 'focal_tversky': focal_tversky}
  for name, theirs in written_here.items():
    x = torch.from_numpy(logits[..., 0]).requires_grad_()
    expected = theirs(x, torch.from_numpy(masks))
    expected.backward()
    value, grad = jax.value_and_grad(
      lambda y, loss=losses.BY_NAME[name]: loss(y, masks).mean()
    )(logits)
    assert value == pytest.approx(expected.item(), rel=1e-5), name
    np.testing.assert_allclose(
      grad[..., 0], x.grad.numpy(), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize('name', list(losses.BY_NAME))
def test_every_loss_is_finite_and_least_where_all_is_right(name):
  loss = losses.BY_NAME[name]
  masks = np.zeros((2, 4, 4), np.uint8)
  masks[0, 1:3, 1:3] = 1  # The second mask has no lesion.
  right = np.where(masks, 1e4, -1e4)[..., None].astype(np.float32)
  assert (loss(right, masks) < 1e-3).all()
  assert (loss(-right, masks) > 0.5).all()
  for logits in (right, -right):
    assert np.isfinite(jax.grad(lambda y: loss(y, masks).sum())(logits)).all()


def test_images_are_weighed_alike():
  # The loss of an image does not depend on the rest of the batch.
  rng = np.random.default_rng(2)
  logits = rng.normal(size=(3, 4, 4, 1)).astype(np.float32)
  masks = rng.integers(0, 2, (3, 4, 4)).astype(np.uint8)
  for loss in losses.BY_NAME.values():
    together = loss(logits, masks)
    assert together.shape == (3,)
    alone = [loss(logits[i : i + 1], masks[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_softened_masks_equal_scipy():
  masks = (np.random.default_rng(0).random((2, 20, 24)) > 0.5).astype(np.uint8)
  for sigma in (0.7, 1.5):
    expected = [
      ndimage.gaussian_filter(
        mask.astype(float), sigma, mode='nearest', truncate=3.0
      )
      for mask in masks
    ]
    np.testing.assert_allclose(losses.soften(masks, sigma), expected, atol=1e-6)
  assert np.array_equal(losses.soften(masks, 0.0), masks)
