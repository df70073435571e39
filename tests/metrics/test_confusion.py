import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from skinseg_jax.evaluation import paper
from skinseg_jax.metrics import confusion


def test_counts_by_hand():
  # Probabilities .5, above, below, above for truth 1, 1, 0, 0. The first pixel
  # is background, because .5 is not above the threshold.
  logits = jnp.array([0.0, 1.0, -1.0, 1.0]).reshape(1, 2, 2, 1)
  masks = jnp.array([1, 1, 0, 0], jnp.uint8).reshape(1, 2, 2)
  counts = confusion.confusion_counts(logits, masks)
  assert {name: int(c[0]) for name, c in counts.items()} == {
    'tp': 1,
    'fp': 1,
    'fn': 1,
    'tn': 1,
  }


def test_threshold_is_a_probability():
  # sigmoid(1) = .731.
  logits, masks = jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1), jnp.uint8)
  hit = lambda t: int(
    confusion.confusion_counts(logits, masks, threshold=t)['tp'][0]
  )
  assert (hit(0.73), hit(0.74)) == (1, 0)


def test_shapes_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match=r'\(1, 4, 4, 1\) and \(2, 4, 4\)'):
    confusion.confusion_counts(jnp.zeros((1, 4, 4, 1)), jnp.zeros((2, 4, 4)))


def test_counts_of_one_mask_equal_scikit_learn():
  rng = np.random.default_rng(0)
  predicted, true = rng.random((2, 9, 14)) > np.array([0.3, 0.6])[:, None, None]
  expected = sk.confusion_matrix(true.ravel(), predicted.ravel()).ravel()
  found = confusion.mask_counts(predicted, true)
  assert [found[name] for name in ('tn', 'fp', 'fn', 'tp')] == expected.tolist()
  nothing = np.zeros((4, 5), bool)
  assert confusion.mask_counts(nothing, ~nothing) == {
    'tp': 0, 'fp': 0, 'fn': 20, 'tn': 0,
  }  # fmt: skip


def test_the_papers_percentages_follow_from_its_counts():
  scores = confusion.ratios(paper.COUNTS)
  printed = [
    f'{100 * scores[name]:.2f}'
    for name in ('accuracy', 'precision', 'recall', 'dice')
  ]
  assert printed == ['95.47', '97.21', '84.04', '90.15']
  assert sum(paper.COUNTS.values()) == 1999 * 224 * 224


def test_ratios_equal_scikit_learn():
  rng = np.random.default_rng(0)
  for share in (0.02, 0.5, 0.98):
    true, pred = rng.random((2, 500)) < share
    tn, fp, fn, tp = sk.confusion_matrix(true, pred).ravel()
    scores = confusion.ratios({'tp': tp, 'fp': fp, 'fn': fn, 'tn': tn})
    assert scores['accuracy'] == pytest.approx(sk.accuracy_score(true, pred))
    assert scores['precision'] == pytest.approx(sk.precision_score(true, pred))
    assert scores['recall'] == pytest.approx(sk.recall_score(true, pred))
    assert scores['specificity'] == pytest.approx(sk.recall_score(~true, ~pred))
    assert scores['dice'] == pytest.approx(sk.f1_score(true, pred))
    assert scores['iou'] == pytest.approx(sk.jaccard_score(true, pred))
    assert scores['mcc'] == pytest.approx(sk.matthews_corrcoef(true, pred))


def test_empty_masks():
  # Columns: both empty; only the truth empty; only the prediction empty; both
  # full.
  scores = confusion.ratios(
    {
      'tp': np.array([0, 0, 0, 9]),
      'fp': np.array([0, 4, 0, 0]),
      'fn': np.array([0, 0, 4, 0]),
      'tn': np.array([9, 5, 5, 0]),
    }
  )
  for name in ('precision', 'recall', 'dice', 'iou'):
    assert scores[name].tolist() == [1, 0, 0, 1], name
  assert scores['specificity'].tolist() == [1, 5 / 9, 1, 1]
  assert scores['mcc'].tolist() == [1, 0, 0, 1]


def test_mcc_by_hand_and_beyond_64_bits():
  # (6 * 3 - 1 * 2) / sqrt(7 * 8 * 4 * 5) = 16 / sqrt(1120). For counts that are
  # 10^8 times as large, the product 1120 * 10^32 does not fit in 64 bits.
  counts = {'tp': 6, 'fp': 1, 'fn': 2, 'tn': 3}
  for scale in (1, 10**8):
    scaled = {name: scale * count for name, count in counts.items()}
    assert confusion.ratios(scaled)['mcc'] == pytest.approx(16 / 1120**0.5)


def test_mcc_is_minus_one_where_all_is_wrong():
  wrong = {'tp': 0, 'fp': 5, 'fn': 4, 'tn': 0}
  assert confusion.ratios(wrong)['mcc'] == pytest.approx(-1)


def test_isic_scores_as_the_challenge_counts_them():
  # The truth is 2 x 2 of 4 x 4. The predictions, by column: empty, disjoint,
  # overlapping by a quarter, by a half, three quarters of it, equal, all.
  scores = confusion.isic_scores(
    {
      'tp': np.array([0, 0, 1, 2, 3, 4, 4]),
      'fp': np.array([0, 4, 3, 2, 0, 0, 12]),
      'fn': np.array([4, 4, 3, 2, 1, 0, 0]),
      'tn': np.array([12, 8, 9, 10, 12, 12, 0]),
    }
  )
  by_hand = {
    'accuracy': [12 / 16, 8 / 16, 10 / 16, 12 / 16, 15 / 16, 1, 4 / 16],
    'sensitivity': [0, 0, 1 / 4, 2 / 4, 3 / 4, 1, 1],
    'specificity': [1, 8 / 12, 9 / 12, 10 / 12, 1, 1, 0],
    'dice': [0, 0, 2 / 8, 4 / 8, 6 / 7, 1, 8 / 20],
    'jaccard': [0, 0, 1 / 7, 2 / 6, 3 / 4, 1, 4 / 16],
    'threshold_jaccard': [0, 0, 0, 0, 3 / 4, 1, 0],
  }
  assert {name: values.tolist() for name, values in scores.items()} == by_hand


def test_isic_scores_where_the_truth_is_empty_or_full():
  # Columns: both empty; truth empty, 4 pixels predicted; truth full, 4 of 9
  # missed; both full.
  scores = confusion.isic_scores(
    {
      'tp': np.array([0, 0, 5, 9]),
      'fp': np.array([0, 4, 0, 0]),
      'fn': np.array([0, 0, 4, 0]),
      'tn': np.array([9, 5, 0, 0]),
    }
  )
  assert scores['sensitivity'].tolist() == [1, 1, 5 / 9, 1]
  assert scores['specificity'].tolist() == [1, 5 / 9, 1, 1]
  assert scores['dice'].tolist() == [1, 0, 10 / 14, 1]
  assert scores['jaccard'].tolist() == [1, 0, 5 / 9, 1]


def test_thresholded_jaccard_keeps_the_threshold_itself():
  iou = np.array([0.0, 0.6499, 0.65, 0.9])
  assert confusion.thresholded_jaccard(iou).tolist() == [0, 0, 0.65, 0.9]


def test_pooling_is_exact_beyond_32_bits():
  counts = {n: np.full(3, 2**31 - 1, np.int32) for n in confusion.COUNTS}
  assert confusion.pool(counts)['tp'] == 3 * (2**31 - 1)


def test_baselines_of_the_papers_truth():
  # "All background" is right on 75,574,373 of 100,301,824 pixels = .7535. "All
  # lesion" has Dice 2 * .24653 / 1.24653 = .3955.
  baselines = confusion.baselines(paper.COUNTS)
  assert baselines['all_background']['accuracy'] == pytest.approx(
    0.7535, abs=5e-5
  )
  assert baselines['all_lesion']['dice'] == pytest.approx(0.3955, abs=5e-5)
  assert baselines['all_background']['dice'] == 0
