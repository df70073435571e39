"""Damaged files end in a result or in one message, never in a traceback."""

import fuzz
import fuzz_cases
import pytest

# What Pillow warns of in damaged TIFF files is no fault of ours.
pytestmark = pytest.mark.filterwarnings('ignore::UserWarning:PIL')


@pytest.mark.parametrize('kind', fuzz_cases.KINDS)
def test_damaged_files(kind):
  count = fuzz_cases.KINDS[kind][1]  # 100 together.
  # Other cases than those of the long run, which has seed 0.
  ends, faults = fuzz.fuzz(kind, count, seed=1)
  assert not faults, '\n'.join(faults)
  assert ends['result'] + ends['message'] == count
  assert ends['message'] > 0
