import datetime
import io

import numpy as np
import pytest
from PIL import Image

from skinseg_jax.evaluation import paper
from skinseg_jax.reporting import figures

RECORDS = [
  {'step': 5, 'train/loss': 0.9},
  {
    'step': 10,
    'epoch/number': 1,
    'epoch/loss': 0.5,
    'epoch/dice': 0.6,
    'validation/loss': None,
    'validation/dice': 0.7,
  },
  {
    'step': 20,
    'epoch/number': 2,
    'epoch/loss': 0.4,
    'epoch/dice': 0.8,
    'validation/loss': 0.3,
    'validation/dice': 0.9,
  },
]


def lines(axes):
  """Coordinates of the lines by label."""
  return {
    line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
    for line in axes.lines
  }


def test_curve_holds_epochs_and_the_paper():
  chart = figures.training_curve(RECORDS, 'dice', paper_figures=True)
  drawn = lines(chart.axes[0])
  assert drawn['training (augmented)'] == ([1, 2], [0.6, 0.8])
  assert drawn['validation'] == ([1, 2], [0.7, 0.9])
  final = paper.final_figures()['dice']
  assert drawn['paper, validation'][1] == [final['validation']] * 2
  assert drawn['paper, training'][1] == [0.9102] * 2


def test_curve_leaves_a_gap_where_a_score_was_not_finite():
  chart = figures.training_curve(RECORDS, 'loss', paper_figures=False)
  drawn = lines(chart.axes[0])
  np.testing.assert_array_equal(drawn['validation'][1], [np.nan, 0.3])
  assert len(drawn) == 2


def test_confusion_matrix_has_truth_in_rows():
  chart = figures.confusion_matrix({'tp': 3000, 'fp': 200, 'fn': 1000, 'tn': 0})
  axes = chart.axes[0]
  cells = {text.get_position(): text.get_text() for text in axes.texts}
  # Positions are (column, row). Missed pixels are true lesion (row 0) that is
  # predicted as skin (column 1): 1000 of 4000, a quarter of that row.
  assert cells == {
    (0, 0): 'TP\n3,000\n75.00% of row',
    (1, 0): 'FN\n1,000\n25.00% of row',
    (0, 1): 'FP\n200\n100.00% of row',
    (1, 1): 'TN\n0\n0.00% of row',
  }
  assert (axes.get_ylabel(), axes.get_xlabel()) == ('truth', 'prediction')
  names = ['lesion', 'skin']
  assert [tick.get_text() for tick in axes.get_xticklabels()] == names
  assert [tick.get_text() for tick in axes.get_yticklabels()] == names
  # The first row is on top.
  low, high = axes.get_ylim()
  assert low > high


def test_confusion_matrix_without_any_lesion():
  chart = figures.confusion_matrix({'tp': 0, 'fp': 1, 'fn': 0, 'tn': 3})
  assert '0.00%' in chart.axes[0].texts[0].get_text()


def test_distribution_counts_every_image():
  values = np.array([0.0, 0.5, 0.64, 0.65, 1.0])
  chart = figures.distribution(values, 'iou', at=0.65)
  axes = chart.axes[0]
  assert sum(bar.get_height() for bar in axes.patches) == 5
  # Three of five are below; the mean is 2.79 / 5.
  assert {'60.0% below 0.65', 'mean 55.8%', 'median 64.0%'} <= set(lines(axes))


def test_distribution_of_distances_is_in_pixels():
  chart = figures.distribution(np.array([2.0, 40.0, 6.0]), 'hd95')
  axes = chart.axes[0]
  assert sum(bar.get_height() for bar in axes.patches) == 3
  assert {'mean 16.0 px', 'median 6.0 px'} <= set(lines(axes))


def test_thresholds_are_marked_where_they_are():
  sweep = {
    name: [0.2, 0.5, 0.8]
    for name in ('threshold', 'dice', 'iou', 'precision', 'recall')
  }
  chart = figures.threshold_sweep(sweep, {'a': 0.5, 'b': 0.42})
  drawn = lines(chart.axes[0])
  assert (drawn['a'][0], drawn['b'][0]) == ([0.5, 0.5], [0.42, 0.42])
  curve = {'precision': [1.0, 0.5], 'recall': [0.1, 1.0]}
  chart = figures.precision_recall(curve, {'a': (0.3, 0.9)}, None)
  assert lines(chart.axes[0])['a'] == ([0.3], [0.9])


def test_reliability_shows_shares_of_pixels():
  rows = [
    {'low': 0, 'high': 0.5, 'pixels': 3, 'confidence': 0.2, 'frequency': 0.1},
    {'low': 0.5, 'high': 1, 'pixels': 1, 'confidence': 0.9, 'frequency': 1.0},
  ]
  top, bottom = figures.reliability(rows).axes
  assert lines(top)['this run'] == ([0.2, 0.9], [0.1, 1.0])
  assert [bar.get_height() for bar in bottom.patches] == [0.75, 0.25]


def test_skin_tone_shows_the_images_with_an_angle():
  ita, dice = np.array([40.0, np.nan, -5.0]), np.array([0.9, 0.8, 0.7])
  axes = figures.skin_tone(ita, dice).axes[0]
  (drawn,) = lines(axes).values()
  assert drawn == ([40, -5], [0.9, 0.7])
  assert axes.get_title() == 'Dice by skin tone, n = 2'


def row(group, value, low, high, warning=''):
  dice = {'value': value, 'low': low, 'high': high}
  return {'group': group, 'images': 1234, 'dice': dice, 'warning': warning}


def test_forest_draws_intervals_and_hollow_points_where_few():
  rows = [
    row('many', 0.9, 0.85, 0.93),
    row('few', 0.7, 0.6, 0.8, 'only 3 lesions'),
    row('one', 0.5, None, None, 'only 1 lesion'),
  ]
  chart = figures.forest(rows, 0.88, 'Kind', lowest=0.4)
  axes = chart.axes[0]
  segments = [
    list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2
  ]
  assert segments == [[0.88, 0.88], [0.85, 0.93], [0.6, 0.8]]
  points = [line for line in axes.lines if line.get_marker() == 'o']
  fills = [point.get_markerfacecolor() for point in points]
  assert [fill == 'white' for fill in fills] == [False, True, True]
  assert axes.get_yticklabels()[0].get_text() == 'many  (n=1,234)'


@pytest.mark.parametrize('name', ['$a_{$', '$\\frac$', '<b>', 'x' * 200])
def test_names_of_groups_are_no_formulas(name):
  chart = figures.forest([row(name, 0.9, 0.8, 1.0)], 0.9, 'Kind', lowest=0.5)
  picture = Image.open(io.BytesIO(figures.to_png(chart)))
  # Sharp at a width of 350 pixels on a screen with two dots per pixel.
  assert picture.format == 'PNG'
  assert picture.width >= 700


@pytest.mark.parametrize('days', [0, 1, 3, 4, 40, 881, 1250, 1473, 9000])
def test_courses_of_any_length_have_dates(days):
  start = datetime.date(2020, 1, 1)
  chart = figures.course(
    [1.0, 2.0],
    [0.9, 1.9],
    [1.1, 2.1],
    where=[start, start + datetime.timedelta(days)],
    marks=['usual', 'usual'],
    usual=(0.8, 1.2),
    title='Area',
    unit='mm²',
  )
  # Matplotlib warns, which is an error, where it finds no interval.
  assert 1 <= len(chart.axes[0].get_xticks()) <= 7
