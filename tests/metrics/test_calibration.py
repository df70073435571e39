import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.calibration
from sklearn import metrics as sk

from skinseg_jax.metrics import calibration, confusion

BINS = calibration.BINS
CENTRES = (np.arange(BINS) + 0.5) / BINS


def histogram_of(true, bins):
  histogram = np.zeros((2, BINS), np.int64)
  np.add.at(histogram, (true.astype(int), bins), 1)
  return histogram


def pixels(seed, num=20_000, spread=4.0):
  """Truth and bins of badly calibrated probabilities."""
  rng = np.random.default_rng(seed)
  true = rng.random(num) < 0.3
  probabilities = 1 / (1 + np.exp(-rng.normal(4.0 * true - 1, spread)))
  return true, np.minimum((probabilities * BINS).astype(int), BINS - 1)


def logits_of(seed, shape=(5, 16, 16)):
  rng = np.random.default_rng(seed)
  masks = (rng.random(shape) < 0.4).astype(np.uint8)
  logits = rng.normal(2.0 * masks - 1, 3.0).astype(np.float32)
  return jnp.asarray(logits[..., None]), jnp.asarray(masks)


def test_edges_and_extremes_by_hand():
  # sigmoid: 0 (underflow), .5, the next number above .5, 1, NaN.
  logits = jnp.array([-200.0, 0.0, 2e-7, 200.0, jnp.nan])
  logits = logits.reshape(1, 1, 5, 1)
  masks = jnp.array([0, 1, 1, 1, 0], jnp.uint8).reshape(1, 1, 5)
  found = calibration.probability_histogram(logits, masks, jnp.array([True]))
  assert found.dtype == jnp.int32
  assert np.argwhere(found).tolist() == [
    [0, 0],
    [1, BINS // 2 - 1],
    [1, BINS // 2],
    [1, BINS - 1],
  ]
  assert found[0, 0] == 2


@hypothesis.given(st.integers(0, 10**6), st.integers(1, BINS - 1))
@hypothesis.example(0, BINS // 2)
@hypothesis.settings(deadline=None, max_examples=30)
def test_counts_above_an_edge_are_the_confusion_counts(seed, edge):
  logits, masks = logits_of(seed)
  # Some logits with a probability at the edge, or next to it.
  at_edge = np.float32(np.log(edge / (BINS - edge)))
  near = at_edge + np.arange(-8, 8, dtype=np.float32) * np.spacing(at_edge)
  logits = logits.at[0, 0, :, 0].set(near)
  valid = jnp.array([True, True, False, True, False])
  histogram = np.asarray(
    calibration.probability_histogram(logits, masks, valid)
  )
  expected = confusion.confusion_counts(
    logits, masks, threshold=calibration.thresholds()[edge]
  )
  found = calibration.counts_above(histogram)
  for name in confusion.COUNTS:
    assert found[name][edge] == np.sum(np.asarray(expected[name])[valid])


def test_padding_is_left_out():
  logits, masks = logits_of(0)
  valid = jnp.array([True, False, True, True, False])
  found = calibration.probability_histogram(logits, masks, valid)
  alone = calibration.probability_histogram(
    logits[valid], masks[valid], jnp.ones(3, bool)
  )
  assert np.array_equal(found, alone)
  assert found.sum() == 3 * 16 * 16


def test_shapes_that_do_not_fit_are_refused():
  logits, masks = jnp.zeros((2, 4, 4, 1)), jnp.zeros((2, 4, 5))
  for function, more in (
    (calibration.probability_histogram, [jnp.ones(2, bool)]),
    (calibration.squared_errors, []),
  ):
    with pytest.raises(ValueError, match=r'\(2, 4, 4, 1\) and \(2, 4, 5\)'):
      function(logits, masks, *more)


def test_brier_score_equals_scikit_learn():
  logits, masks = logits_of(3)
  probabilities = 1 / (1 + np.exp(-np.asarray(logits[..., 0], np.float64)))
  squared = np.asarray(calibration.squared_errors(logits, masks))
  assert squared.shape == (5,)
  assert calibration.brier_score(squared, masks.size) == pytest.approx(
    sk.brier_score_loss(np.ravel(masks), probabilities.ravel()), rel=1e-5
  )


def test_brier_sums_do_not_lose_small_images():
  # A sum in float32 would lose the ones next to 2^24.
  squared = np.array([2.0**24, *[1.0] * 16], np.float32)
  assert calibration.brier_score(squared, 2**24) == 1 + 2.0**-20


@pytest.mark.parametrize('spread', [0.1, 1.0, 8.0])
def test_reliability_equals_scikit_learn(spread):
  true, bins = pixels(0, spread=spread)
  histogram = histogram_of(true, bins)
  frequency, confidence = sklearn.calibration.calibration_curve(
    true, CENTRES[bins], n_bins=15
  )
  rows = calibration.reliability(histogram)
  assert [r['frequency'] for r in rows] == pytest.approx(frequency.tolist())
  assert [r['confidence'] for r in rows] == pytest.approx(confidence.tolist())
  assert sum(r['pixels'] for r in rows) == len(true)
  assert all(r['low'] < r['confidence'] < r['high'] for r in rows)
  # ECE by its definition, pixel by pixel.
  wide = np.digitize(CENTRES[bins], np.linspace(0, 1, 16)) - 1
  ece = sum(
    np.mean(wide == k)
    * abs(true[wide == k].mean() - CENTRES[bins][wide == k].mean())
    for k in np.unique(wide)
  )
  found = calibration.expected_calibration_error(histogram)
  assert found == pytest.approx(ece)


def test_calibration_error_by_hand():
  # Of 300 pixels near .25, 75 are lesion; of 100 near 1, 80 are lesion:
  # (0 * 300 + .2 * 100) / 400 = .05, up to half a bin.
  histogram = np.zeros((2, BINS), np.int64)
  histogram[:, BINS // 4] = 225, 75
  histogram[:, -1] = 20, 80
  found = calibration.expected_calibration_error(histogram)
  assert found == pytest.approx(0.05, abs=1 / BINS)


def test_perfect_probabilities_are_calibrated():
  # In every bin, the share of lesion pixels is the centre of the bin.
  lesion = 2 * np.arange(BINS) + 1
  histogram = np.stack([2 * BINS - lesion, lesion])
  found = calibration.expected_calibration_error(histogram)
  assert found == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('seed', range(3))
def test_precision_recall_equals_scikit_learn(seed):
  true, bins = pixels(seed)
  histogram = histogram_of(true, bins)
  precision, recall, threshold = calibration.precision_recall(histogram)
  expected = sk.precision_recall_curve(true, CENTRES[bins])
  # scikit-learn starts at the lowest threshold and ends with the point (1, 0).
  assert precision[::-1] == pytest.approx(expected[0][:-1])
  assert recall[::-1] == pytest.approx(expected[1][:-1])
  assert threshold[::-1] == pytest.approx(expected[2] - 0.5 / BINS)
  assert calibration.average_precision(histogram) == pytest.approx(
    sk.average_precision_score(true, CENTRES[bins])
  )


def test_no_lesion_has_no_average_precision():
  true, bins = np.zeros(10, bool), np.arange(10)
  assert np.isnan(calibration.average_precision(histogram_of(true, bins)))


def test_sweep_equals_scores_at_each_threshold():
  true, bins = pixels(4)
  swept = calibration.sweep(histogram_of(true, bins))
  assert swept['threshold'].tolist() == [k / 128 for k in range(1, 128)]
  for i in (0, 20, 63, 126):
    pred = CENTRES[bins] > swept['threshold'][i]
    for name, score in (
      ('dice', sk.f1_score),
      ('iou', sk.jaccard_score),
      ('precision', sk.precision_score),
      ('recall', sk.recall_score),
    ):
      assert swept[name][i] == pytest.approx(score(true, pred))


@hypothesis.given(
  st.lists(
    st.tuples(st.booleans(), st.integers(0, BINS - 1)), min_size=1, max_size=30
  )
)
@hypothesis.settings(deadline=None)
def test_no_threshold_is_better_than_the_best(drawn):
  true, bins = (np.array(column) for column in zip(*drawn, strict=True))
  best = calibration.best_threshold(histogram_of(true, bins))
  assert 0 < best < 1
  dice = lambda threshold: sk.f1_score(
    true, CENTRES[bins] > threshold, zero_division=1.0
  )
  # Dice changes only at the edges of bins that are not empty.
  tried = [edge / BINS for b in bins for edge in (b, b + 1) if 0 < edge < BINS]
  others = [dice(threshold) for threshold in [*tried, 0.5]]
  assert dice(best) == pytest.approx(max(others))


def test_best_threshold_by_hand():
  # Lesion at .3 and .8, skin at .2: any threshold between .2 and .3 is best.
  # The one nearest to .5 is the lower edge of the bin that holds .3.
  bins = (np.array([0.2, 0.3, 0.8]) * BINS).astype(int)
  histogram = histogram_of(np.array([0, 1, 1]), bins)
  assert calibration.best_threshold(histogram) == bins[1] / BINS
  # If all thresholds are equally good, the result is .5.
  histogram = histogram_of(np.array([0, 1]), np.array([0, BINS - 1]))
  assert calibration.best_threshold(histogram) == 0.5


def test_sums_beyond_32_bits_are_exact():
  histogram = np.zeros((2, BINS), np.int64)
  histogram[:, -1] = histogram[:, 0] = 3 * 2**31
  counts = calibration.counts_above(histogram)
  assert [int(counts[n][BINS // 2]) for n in confusion.COUNTS] == [
    3 * 2**31
  ] * 4
