"""The server's page, without a server."""

import pytest

pytest.importorskip('fastapi')

from skinseg_jax.measures import lesion
from skinseg_jax.serving import page


def test_it_has_a_row_for_each_measure():
  fields = set(lesion.Measures.__dataclass_fields__)
  assert {name for name in fields if '_mm' not in name} == set(page.MEASURES)
