"""Reading damaged files gives a result or one message, never a traceback."""

import fuzz
import fuzz_cases
import pytest

# Pillow's warnings about damaged TIFF files are expected.
pytestmark = pytest.mark.filterwarnings('ignore::UserWarning:PIL')


@pytest.mark.parametrize('kind', fuzz_cases.KINDS)
def test_damaged_files(kind):
  count = fuzz_cases.KINDS[kind][1]  # 100 for all kinds together.
  # The long run has seed 0; another seed gives other cases.
  ends, faults = fuzz.fuzz(kind, count, seed=1)
  assert not faults, '\n'.join(faults)
  assert ends['result'] + ends['message'] == count
  assert ends['message'] > 0
