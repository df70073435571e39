"""Pages and configs repeat the published comparison of networks."""

import csv
import pathlib
import runpy

import networks_protocol as protocol
import pytest

_DOCS = pathlib.Path(__file__).parents[2] / 'docs'
_RESULTS = _DOCS / 'benchmarks/networks/cpu'


@pytest.fixture(scope='module')
def results():
  """Rows of the results that were published."""
  with (_RESULTS / 'networks.csv').open() as file:
    return list(csv.DictReader(file))


def test_the_page_repeats_the_results():
  page = (_DOCS / 'explanation/is-unet-optimal.md').read_text()
  table = (_RESULTS / 'networks.md').read_text()
  assert not [line for line in table.splitlines() if line not in page]


def test_the_guide_repeats_the_scores_of_classical_methods(results):
  page = (_DOCS / 'how-to/classical-methods.md').read_text()
  rows = [row for row in results if row['view'] == 'classical']
  assert {row['name'] for row in rows} == {*protocol.VIEWS['classical'].names}
  for row in rows:
    cells = [f'`{row["name"]}`']
    for score in ('pooled_dice', 'mean_dice', 'threshold_jaccard'):
      ends = [row[f'{score}{end}'] for end in ('', '_low', '_high')]
      cells.append('{} ({} to {})'.format(*ends))
    cells.append(f'{float(row["predict_ms"]):.1f}')
    assert f'| {" | ".join(cells)} |' in page


@pytest.mark.parametrize('view', ['scratch', 'pretrained'])
def test_the_config_of_a_winner_is_that_of_the_study(results, view):
  best = max(
    (row for row in results if row['view'] == view),
    key=lambda row: float(row['mean_dice']),
  )
  expected = protocol.config(
    protocol.NETWORKS[best['name']],
    protocol.SETTINGS['cpu'],
    float(best['learning_rate']),
    pathlib.Path('data'),
  )
  path = _DOCS.parent / f'configs/ham10000_{view}.py'
  assert runpy.run_path(str(path))['get_config']() == expected
  for seed in ('worst', 'best'):
    dice = best[f'mean_dice_{seed}_seed']
    assert dice.removeprefix('0') in path.read_text()
