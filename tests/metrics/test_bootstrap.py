import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import stats

from skinseg_jax.metrics import bootstrap, confusion

LESIONS = 100
DATA_SETS = 1000


def simulate(rng, data_sets, lesions, runs=1):
  """Draws data sets of one to four similar images per lesion.

  Returns counts (tp, fp, fn, tn), float [runs, data_sets, lesions, 4, 4], and
  which of the four images of each lesion exist.
  """
  images = rng.choice(4, p=[0.35, 0.3, 0.2, 0.15], size=(data_sets, lesions))
  exists = np.arange(4) <= images[..., None]
  draw = lambda lesion, image, *more: (
    lesion * rng.normal(size=(*more, data_sets, lesions, 1))
    + image * rng.normal(size=(*more, data_sets, lesions, 4))
  )
  area = np.clip(np.rint(8000 * np.exp(draw(0.7, 0.2))), 50, 40_000)
  # Difficulty of a lesion for all runs, and the additional part of each run.
  quality = 1.6 + draw(0.8, 0.5) + draw(0.6, 0.3, runs)
  tp = np.rint(area / (1 + np.exp(-quality)))
  fp, fn = np.rint(tp * np.exp(-quality - 0.5)), area - tp
  counts = np.stack([tp, fp, fn, 224 * 224 - tp - fp - fn], axis=-1)
  return counts * exists[..., None], exists


def as_counts(table):
  return dict(zip(confusion.COUNTS, np.moveaxis(table, -1, 0), strict=True))


def lesion_sums(counts, exists):
  """Sums within each lesion: four counts, then Dice and number of images."""
  dice = confusion.ratios(as_counts(counts))['dice'] * exists
  return np.concatenate(
    [
      counts.sum(axis=-2),
      dice.sum(axis=-1)[..., None],
      np.broadcast_to(exists.sum(axis=-1), dice.shape[:-1])[..., None],
    ],
    axis=-1,
  )


def pooled_and_mean_dice(sums):
  """Pooled and mean Dice, [..., 2], from sums over images, [..., 6]."""
  pooled = confusion.ratios(as_counts(sums[..., :4]))['dice']
  return np.stack([pooled, sums[..., 4] / sums[..., 5]], axis=-1)


@pytest.fixture(scope='module')
def truth():
  """Pooled and mean Dice of a population of a million lesions."""
  rng = np.random.default_rng(99)
  sums = sum(
    lesion_sums(*simulate(rng, 20, 1000)).sum(axis=(0, 1, 2)) for _ in range(50)
  )
  return pooled_and_mean_dice(sums)


@pytest.fixture(scope='module')
def drawn():
  """Two equally good runs on 1,000 data sets, and their resampled Dice.

  Returns counts, which images exist, and Dice [R, 2 runs, data sets, 2].
  """
  counts, exists = simulate(np.random.default_rng(5), DATA_SETS, LESIONS, 2)
  sums = lesion_sums(counts, exists)
  weights = bootstrap.resample(range(LESIONS)).weights
  # The same as `pooled` and `means`, but for all data sets at once.
  resampled = np.tensordot(weights, sums, axes=(1, 2))
  return counts, exists, pooled_and_mean_dice(resampled)


def test_clustered_interval_covers_and_naive_does_not(truth, drawn):
  counts, exists, dice = drawn
  low, high = bootstrap.interval(dice[:, 0].reshape(len(dice), -1), LESIONS)
  low, high = low.reshape(DATA_SETS, 2), high.reshape(DATA_SETS, 2)
  coverage = np.mean((low <= truth) & (truth <= high), axis=0)
  assert np.all((coverage >= 0.93) & (coverage <= 0.97)), coverage

  naive_hits, wider = [], []
  for i in range(0, DATA_SETS, 4):  # A quarter of them, to save time.
    images = as_counts(counts[0, i][exists[i]])
    each = bootstrap.resample(range(exists[i].sum()))
    dice_of = {'dice': confusion.ratios(images)['dice']}
    for j, found in enumerate(
      [
        bootstrap.pooled(each, images)['dice'],
        bootstrap.means(each, dice_of)['dice'],
      ]
    ):
      naive_hits.append(found.low <= truth[j] <= found.high)
      wider.append(high[i, j] - low[i, j] > found.high - found.low)
  assert np.mean(naive_hits) < 0.9
  assert np.mean(wider) > 0.95


def test_p_value_of_equally_good_runs_is_uniform(drawn):
  dice = drawn[2]
  p = bootstrap.p_value(
    (dice[:, 0] - dice[:, 1]).reshape(len(dice), -1), LESIONS
  ).reshape(DATA_SETS, 2)
  for level in (0.05, 0.5):
    share = np.mean(p < level, axis=0)
    three_errors = 3 * (level * (1 - level) / DATA_SETS) ** 0.5
    assert share == pytest.approx(level, abs=three_errors)


def test_draws_are_whole_clusters_and_follow_the_seed():
  first = bootstrap.resample(['b', 'a', 'b', 'c'], replicates=50, seed=1)
  assert first.index.tolist() == [0, 1, 0, 2]
  assert first.weights.shape == (50, 3)
  assert np.all(first.weights.sum(axis=1) == 3)
  again = bootstrap.resample(['b', 'a', 'b', 'c'], replicates=50, seed=1)
  other = bootstrap.resample(['b', 'a', 'b', 'c'], replicates=50, seed=2)
  assert np.array_equal(first.weights, again.weights)
  assert not np.array_equal(first.weights, other.weights)


def test_draws_are_multinomial():
  # Each of 10 clusters is drawn once on average, with variance .9.
  weights = bootstrap.resample(range(10), replicates=20_000).weights
  assert weights.mean(axis=0) == pytest.approx(np.ones(10), abs=0.03)
  assert weights.var(axis=0) == pytest.approx(np.full(10, 0.9), abs=0.04)


def assert_ends(found, expected):
  ends = [None if np.isnan(end) else pytest.approx(end) for end in expected]
  assert [found.low, found.high] == ends


@hypothesis.given(
  st.lists(
    st.tuples(st.sampled_from('abcd'), *[st.integers(0, 2**31)] * 4),
    min_size=1,
    max_size=12,
  )
)
@hypothesis.settings(deadline=None, max_examples=50)
def test_scores_of_draws_equal_those_of_repeated_images(images):
  lesions = [image[0] for image in images]
  table = np.array([image[1:] for image in images])
  resampling = bootstrap.resample(lesions, replicates=7)
  pooled, means = [], []
  for row in resampling.weights:
    repeats = row[resampling.index].astype(int)
    repeated = as_counts(np.repeat(table, repeats, axis=0))
    pooled.append(confusion.ratios(confusion.pool(repeated))['iou'])
    means.append(confusion.ratios(repeated)['iou'].mean())
  clusters = len(set(lesions))
  found = bootstrap.pooled(resampling, as_counts(table))['iou']
  assert_ends(found, bootstrap.interval(np.array(pooled), clusters))
  scores = {'iou': confusion.ratios(as_counts(table))['iou']}
  found = bootstrap.means(resampling, scores)['iou']
  assert found.value == pytest.approx(scores['iou'].mean())
  assert_ends(found, bootstrap.interval(np.array(means), clusters))


def test_interval_by_hand():
  # 5 clusters: t(4) = 2.776, times sqrt(5 / 4) = 3.104, normal tail .000954.
  # In 0 to 100,000 this gives 95 and, from above, 99,905.
  low, high = bootstrap.interval(np.arange(100_001.0), 5)
  tail = stats.norm.cdf(stats.t.ppf(0.025, 4) * 1.25**0.5)
  assert (low, high) == pytest.approx((1e5 * tail, 1e5 * (1 - tail)))
  assert low == pytest.approx(95, abs=1)
  # For very many clusters, these are the plain percentiles.
  low, high = bootstrap.interval(np.arange(100_001.0), 10**9)
  assert (low, high) == pytest.approx((2500, 97500), abs=0.1)


def test_p_value_is_where_the_interval_leaves_zero_out():
  # 5 of 100 draws are not above 0.
  differences = np.arange(-4.0, 96.0)
  for clusters in (3, 30, 10**9):
    p = bootstrap.p_value(differences, clusters)
    t = stats.norm.ppf(6 / 101) / (clusters / (clusters - 1)) ** 0.5
    assert p == pytest.approx(2 * stats.t.cdf(t, clusters - 1), abs=1e-6)


def test_paired_difference_is_narrower_than_two_intervals():
  counts, exists = simulate(np.random.default_rng(0), 1, 300)
  counts = counts[0, 0][exists[0]].astype(int)
  lesions = np.argwhere(exists[0])[:, 0]
  worse = counts + [[-40, 0, 40, 0]] * np.minimum(counts[:, :1] >= 40, 1)
  resampling = bootstrap.resample(lesions.tolist())
  first, second = as_counts(counts), as_counts(worse)
  found = bootstrap.pooled_difference(resampling, first, second)['dice']
  alone = bootstrap.pooled(resampling, first)['dice']
  other = bootstrap.pooled(resampling, second)['dice']
  assert found.value == pytest.approx(alone.value - other.value)
  assert 0 < found.low < found.value < found.high
  assert found.p_value < 0.05
  # The single intervals overlap; only the pairing separates the runs.
  assert alone.low < other.high
  scores = lambda table: {'dice': confusion.ratios(as_counts(table))['dice']}
  mean = bootstrap.mean_difference(resampling, scores(counts), scores(worse))
  expected = scores(counts)['dice'].mean() - scores(worse)['dice'].mean()
  assert mean['dice'].value == pytest.approx(expected)
  assert mean['dice'].low < expected < mean['dice'].high


def test_a_run_does_not_differ_from_itself():
  counts = as_counts(np.array([[5, 1, 1, 2], [3, 2, 1, 3], [9, 0, 0, 0]]))
  found = bootstrap.pooled_difference(
    bootstrap.resample(['a', 'b', 'c']), counts, counts
  )['dice']
  assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_single_lesion_has_no_interval():
  resampling = bootstrap.resample(['a', 'a'])
  scores = {'dice': np.array([0.5, 0.7])}
  found = bootstrap.means(resampling, scores)['dice']
  assert found.value == pytest.approx(0.6)
  assert (found.low, found.high) == (None, None)
  found = bootstrap.mean_difference(resampling, scores, scores)['dice']
  assert (found.low, found.high, found.p_value) == (None, None, None)


def test_rank_correlation_of_draws_equals_scipy_on_repeated_images():
  rng = np.random.default_rng(3)
  lesions = rng.integers(25, size=60).tolist()
  first = rng.integers(8, size=60) / 8  # With many ties.
  second = first + rng.normal(size=60)
  resampling = bootstrap.resample(lesions, replicates=250)
  expected = []
  for row in resampling.weights:
    repeats = row[resampling.index].astype(int)
    expected.append(
      stats.spearmanr(
        np.repeat(first, repeats), np.repeat(second, repeats)
      ).statistic
    )
  found = bootstrap.rank_correlation(resampling, first, second)
  value = stats.spearmanr(first, second).statistic
  assert found.value == pytest.approx(value)
  assert_ends(found, bootstrap.interval(np.array(expected), len(set(lesions))))
  assert found.low < value < found.high


def test_rank_correlation_needs_ranks():
  few = bootstrap.resample(range(3))
  up = np.array([0.1, 0.5, 0.7])
  assert bootstrap.rank_correlation(few, up, np.full(3, 0.1)) is None
  # One of 27 draws has the same image three times, so no ranks.
  found = bootstrap.rank_correlation(few, up, up**2)
  assert (found.value, found.low, found.high) == (pytest.approx(1), None, None)


def test_no_images_are_refused():
  with pytest.raises(ValueError, match='no images'):
    bootstrap.resample([])
