"""Tables of the comparison of networks, and the pages that repeat them."""

import csv
import pathlib
import runpy

import networks_protocol as protocol
import networks_report
import numpy as np
import pytest
from scipy import stats

from skinseg_jax.metrics import bootstrap

_DOCS = pathlib.Path(__file__).parents[2] / 'docs'
_RESULTS = _DOCS / 'benchmarks/networks/cpu'


# Dice per image of U-Net's two seeds below, 2 tp / (2 tp + fp + fn): 12/14 and
# 4/6, then 12/14 and 8/8. FPN has 1 for both seeds.
_FIRST, _SECOND = (12 / 14 + 4 / 6) / 2, (12 / 14 + 1) / 2
_UNET = (_FIRST + _SECOND) / 2


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """Results of two images of two lesions, with two seeds."""
  folder = tmp_path_factory.mktemp('study')
  tables = {
    'unet': [([6, 2], [2, 0], [0, 2]), ([6, 4], [2, 0], [0, 0])],
    'fpn': [([6, 4], [0, 0], [0, 0]), ([6, 4], [0, 0], [0, 0])],
  }
  for name, seeds in tables.items():
    (folder / f'{name}.json').write_text(
      '{"learning_rate": 0.001, "tried": {"0.001": 0.8, "0.003": -1},'
      ' "predict_ms": 7.5}'
    )
    for seed, (tp, fp, fn) in enumerate(seeds):
      np.savez(
        folder / f'{name}_seed{seed}.npz',
        tp=tp, fp=fp, fn=fn, tn=[2, 6], seconds=1.0, cpu_seconds=90.0,
      )  # fmt: skip
  np.savez(folder / 'edges.npz', tp=[6, 1], fp=[0, 0], fn=[0, 3], tn=[4, 6])
  (folder / 'edges.json').write_text('{"predict_ms": 2.5}')
  np.savez(folder / 'segnet_seed0.npz', cpu_seconds=1e6)  # Not finished.
  views = {
    'scratch': networks_report.View(['unet', 'fpn', 'segnet'], 'unet'),
    'pretrained': networks_report.View(['unet_lite0'], 'unet_lite0'),
    'classical': networks_report.View(['edges', 'otsu_grey'], 'unet'),
  }
  networks_report.write(folder, views, ['a', 'b'], {'b'}, in_wall_time=False)
  return folder


@pytest.fixture(scope='module')
def rows(small):
  """Rows of its csv, by name."""
  with (small / 'networks.csv').open() as file:
    return {row['name']: row for row in csv.DictReader(file)}


def _number(row, column):
  return float(row[column])


def test_scores_by_hand(rows):
  unet, edges = rows['unet'], rows['edges']
  for column, expected in (
    ('mean_dice', _UNET),
    ('mean_dice_worst_seed', _FIRST),
    ('mean_dice_best_seed', _SECOND),
    ('pooled_dice', 36 / 42),
  ):
    assert _number(unet, column) == pytest.approx(expected, abs=1e-4)
  assert unet['dice_of_rates'] == '0.001: 0.8000, 0.003: diverged'
  assert unet['cpu_minutes'] == '1.5'
  assert (unet['predict_ms'], edges['predict_ms']) == ('7.5', '2.5')
  # 12/12 and 2/5; there are no seeds and no training.
  assert _number(edges, 'mean_dice') == pytest.approx(0.7, abs=1e-4)
  assert edges['cpu_minutes'] == edges['seeds'] == ''
  # Training shows lesion b, so the first image alone is of an unseen lesion.
  assert _number(edges, 'mean_dice_unseen_lesions') == 1
  # The second lesion is the smaller one, with 4 of 10 pixels.
  assert _number(edges, 'mean_dice_smallest_quarter') == pytest.approx(0.4)
  assert rows['segnet']['failure'] == 'not measured'
  assert rows['unet_lite0']['failure'] == 'not measured'


def test_differences_by_hand(rows):
  name = 'difference_of_mean_dice'
  assert rows['unet'][name] == ''
  # The variance of a seed is (second - first)^2 / 2 for U-Net and 0 for FPN.
  # Their mean has two degrees of freedom. Both have two seeds; the classical
  # method has none.
  variance, p_values = (_SECOND - _FIRST) ** 2 / 4, {}
  for method, dice, seeds in (
    ('fpn', 1, variance),
    ('edges', 0.7, variance / 2),
  ):
    row = rows[method]
    assert _number(row, name) == pytest.approx(dice - _UNET, abs=1e-4)
    width = (_number(row, f'{name}_high') - _number(row, f'{name}_low')) / 2
    images = (width / stats.t(1).ppf(0.975)) ** 2
    degrees = (images + seeds) ** 2 / (images**2 / 1 + seeds**2 / 2)
    t = stats.t(degrees, dice - _UNET, (images + seeds) ** 0.5)
    for end, expected in zip(('low', 'high'), t.interval(0.95), strict=True):
      found = _number(row, f'{name}_with_seeds_{end}')
      assert found == pytest.approx(expected, abs=2e-3)
    p_values[method] = 2 * min(t.cdf(0), t.sf(0))
  # Holm doubles the smaller one of two.
  smaller, larger = sorted(p_values, key=p_values.get)
  corrected = {smaller: 2 * p_values[smaller]}
  corrected[larger] = max(corrected[smaller], p_values[larger])
  for method, expected in corrected.items():
    found = _number(rows[method], 'p_value_of_mean_dice')
    assert found == pytest.approx(min(1, expected), rel=0.05)


def test_the_table_has_what_was_measured_and_what_was_not(small):
  table = (small / 'networks.md').read_text().splitlines()
  assert table[0].startswith('| scratch |')
  assert table[2].endswith('| 1.5 min, 7.5 ms |')
  assert table[4] == '| `segnet` | not measured | | | | |'
  assert table[10].startswith('| classical |')
  assert table[12].startswith('| `edges` | 0.8235 (')
  assert table[12].endswith('|  | 2.5 ms |')
  # Four trainings of 90 s; those of what has no scores do not count.
  assert table[-1].startswith('Processor time: 0.1 hours for 4 trainings')
  assert (small / 'networks.png').exists()


def test_intervals_resample_lesions(tmp_path):
  tp = np.array([9, 8, 6, 5, 2, 1, 7, 7])
  np.savez(tmp_path / 'edges.npz', tp=tp, fp=9 - tp, fn=[0] * 8, tn=[1] * 8)
  (tmp_path / 'edges.json').write_text('{"predict_ms": 2.5}')
  views = {'classical': networks_report.View(['edges'], 'unet')}
  dice = {'dice': 2 * tp / (tp + 9)}
  found = []
  for lesions in ('aabbccdd', 'abcdefgh'):
    networks_report.write(tmp_path, views, lesions, {}, in_wall_time=False)
    with (tmp_path / 'networks.csv').open() as file:
      (row,) = csv.DictReader(file)
    expected = bootstrap.means(bootstrap.resample(lesions), dice)['dice']
    found.append(float(row['mean_dice_low']))
    assert found[-1] == pytest.approx(expected.low, abs=1e-4)
  assert found[0] != found[1]


def test_p_values_are_those_of_holm():
  rows = [
    {},
    *({'p_value_of_mean_dice': p} for p in (0.04, 0.01, 0.03, 0.9, 1e-9)),
  ]
  networks_report._correct(rows)
  # Sorted: 1e-9 * 5, .01 * 4, .03 * 3, .04 * 2 but not below .09, .9.
  found = [row.get('p_value_of_mean_dice') for row in rows]
  assert found == [None, '0.09', '0.04', '0.09', '0.9', '<0.0001']


def test_what_failed_is_one_row_and_nothing_is_compared_with_it(tmp_path):
  for name in ('unet', 'segnet'):
    (tmp_path / f'{name}.json').write_text(
      '{"learning_rate": 0.001, "tried": {}, "predict_ms": 7.5}'
    )
    np.savez(
      tmp_path / f'{name}_seed0.npz',
      tp=[6, 2], fp=[2, 0], fn=[0, 2], tn=[2, 6], seconds=1, cpu_seconds=1800,
    )  # fmt: skip
  (tmp_path / 'unet.failed').write_text('XlaError: a | b\nmore')
  views = {'scratch': networks_report.View(['unet', 'segnet'], 'unet')}
  networks_report.write(tmp_path, views, ['a', 'b'], {}, in_wall_time=False)
  table = (tmp_path / 'networks.md').read_text().splitlines()
  assert table[2] == r'| `unet` | failed: XlaError: a \| b | | | | |'
  assert '|  | 0.7619, 0.7619 | 30.0 min, 7.5 ms |' in table[3]
  # What a failed network took is counted.
  assert table[-1].startswith('Processor time: 1.0 hours for 2 trainings')


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
    (r for r in results if r['view'] == view and not r['failure']),
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
