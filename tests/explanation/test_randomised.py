import numpy as np
import pytest

from skinseg_jax.explanation import randomised


def test_rank_correlation():
  values = np.float32([[1, 2], [3, 4]])
  assert randomised.rank_correlation(values, np.exp(values)) == pytest.approx(1)
  assert randomised.rank_correlation(values, -values) == pytest.approx(-1)
  # Ranks 1 2 3 4 and 2 1 3 4: 1 - 6 (1 + 1) / (4 (16 - 1)) = .8.
  swapped = np.float32([[2, 1], [3, 4]])
  assert randomised.rank_correlation(values, swapped) == pytest.approx(0.8)
  assert randomised.rank_correlation(values, np.zeros((2, 2))) is None
