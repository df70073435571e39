import html.parser
import io
import json
from unittest import mock

import fake_evaluation
import numpy as np
import pytest
from PIL import Image

from skinseg_jax import config as config_lib
from skinseg_jax.reporting import pages, provenance, report
from skinseg_jax.runtime import errors

HOSTILE = '<script>alert(1)</script>"\'&'


class _Page(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.tags, self.addresses, self.text = set(), [], ''

  def handle_starttag(self, tag, attrs):
    self.tags.add(tag)
    self.text += ' '
    for name, value in attrs:
      assert not name.startswith('on'), name
      if name in ('src', 'href', 'action', 'data', 'srcset'):
        self.addresses.append(value)

  def handle_data(self, data):
    self.text += data


def parse(path):
  page = _Page()
  page.feed(path.read_text('utf-8'))
  # Searched text must not contain line breaks or no-break spaces.
  page.text = ' '.join(page.text.split())
  return page


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  data = fake_evaluation.write_run(
    workdir,
    split='paper',
    rename=lambda image_id: HOSTILE + image_id,
  )
  report.write_all(workdir, data)
  summary = json.loads(
    (workdir / 'evaluation/validation/summary.json').read_text()
  )
  return workdir, data, summary


def test_page_holds_everything_it_shows(run):
  workdir, _, _ = run
  page = parse(workdir / 'report.html')
  outside = [
    address
    for address in page.addresses
    if not address.startswith(('data:', '#'))
  ]
  assert not outside
  assert (workdir / 'report.html').stat().st_size < 8e6
  assert (workdir / 'review.html').exists()
  assert not list(workdir.rglob('*.tmp'))


def test_what_comes_from_files_is_text(run):
  workdir, _, _ = run
  page = parse(workdir / 'report.html')
  assert 'script' not in page.tags
  assert HOSTILE + 'synthetic_' in page.text


def test_every_figure_is_a_file_too(run):
  workdir, _, _ = run
  text = (workdir / 'report.html').read_text('utf-8')
  files = {path.stem: path for path in (workdir / 'figures').glob('*.png')}
  assert {
    'curve_loss',
    'curve_dice',
    'curve_accuracy',
    'confusion_matrix',
    'each_dice',
    'precision_recall',
    'threshold_sweep',
    'reliability',
    'skin_tone',
    'forest_dx',
    'gallery_best',
    'gallery_median',
    'gallery_worst',
    'gallery_random',
  } <= set(files)
  for name, path in files.items():
    with Image.open(path) as picture:
      assert picture.format == 'PNG'
    if not name.startswith('gallery'):
      assert pages.data_uri(path.read_bytes(), 'png') in text, name


def test_figures_are_in_tensorboard(run):
  workdir, _, summary = run
  event_accumulator = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator'
  )
  tensor_util = pytest.importorskip('tensorboard.util.tensor_util')
  accumulator = event_accumulator.EventAccumulator(str(workdir / 'figures'))
  accumulator.Reload()
  names = {path.stem for path in (workdir / 'figures').glob('*.png')}
  assert set(accumulator.Tags()['tensors']) == {
    f'validation/{name}' for name in names
  }
  (event,) = accumulator.Tensors('validation/confusion_matrix')
  assert event.step == summary['checkpoint_step']
  picture = tensor_util.make_ndarray(event.tensor_proto)[2]
  with Image.open(workdir / 'figures' / 'confusion_matrix.png') as file:
    expected = np.asarray(file.convert('RGB'))
  shown = np.asarray(Image.open(io.BytesIO(picture)))
  np.testing.assert_array_equal(shown, expected)


def test_scores_stand_beside_the_paper_and_the_baselines(run):
  workdir, _, summary = run
  text = parse(workdir / 'report.html').text
  ours, ends = summary['pooled'], summary['pooled_intervals']
  for name, label, of_paper in (
    # The paper's own figures, to the last digit.
    ('accuracy', 'Accuracy', '95.47 %'),
    ('precision', 'Precision', '97.21 %'),
    ('recall', 'Recall (sensitivity)', '84.04 %'),
    ('dice', 'Dice (F1)', '90.15 %'),
  ):
    low, high = ends[name]['low'], ends[name]['high']
    row = [
      label,
      f'{100 * ours[name]:.2f} %',
      f'{100 * low:.2f} to {100 * high:.2f} %',
      of_paper,
      f'{100 * summary["baselines"]["all_background"][name]:.2f} %',
      f'{100 * summary["baselines"]["all_lesion"][name]:.2f} %',
    ]
    assert ' '.join(row) in text
  assert '224 x 224' in text
  assert '64 x 64' in text


def test_scores_by_skin_tone(run):
  workdir, _, summary = run
  text = parse(workdir / 'report.html').text
  tone = summary['skin_tone']
  correlation = tone['dice_rank_correlation']
  number = tone['images']
  for part in (
    f'{number} of 48 images have an angle',
    f'n = {number} images of {tone["lesions"]} lesions',
    f'(Spearman) {correlation["value"]:.3f} its 95 % interval'
    f' {correlation["low"]:.3f} to {correlation["high"]:.3f}',
    f'50 % of the images are below {tone["ita_quantiles"]["0.5"]:.1f}°',
  ):
    assert part in text, part
  # Generated lesions are no people's skin, and nobody disagrees about them.
  assert 'few dark skins' not in text
  assert 'two people' not in text


def test_who_is_told_that_dark_skins_are_few():
  config = config_lib.Config()
  evaluation = lambda name: mock.Mock(summary={'data': {'name': name}})
  (note,) = provenance.few_dark_skins(config, evaluation('ham10000'))
  assert note.startswith('HAM10000 holds few dark skins')
  (note,) = provenance.few_dark_skins(config, evaluation('folder'))
  assert note.startswith('The model was trained on HAM10000, which holds few')
  config.data.source = 'folder'
  assert len(provenance.few_dark_skins(config, evaluation('ham10000'))) == 1
  assert not provenance.few_dark_skins(config, evaluation('folder'))


def test_page_says_what_ran_and_on_what(run):
  workdir, _, summary = run
  text = parse(workdir / 'report.html').text
  for part in (
    'python skinseg_jax/main.py --config configs/quickstart.py',
    f'SHA-256 of the split {fake_evaluation.SHA}',
    'Commit of the code unknown',
    'jax 0.10.2',
    'data.split paper lesion',
    'Not a medical device',
    f'show one of {summary["leakage"]["leaked_lesions"]} lesions',
    'training images',
    f'resamples the {summary["clusters"]} lesions',
  ):
    assert part in text, part


def test_fields_that_differ_from_defaults_are_all_listed(run):
  workdir, _, _ = run
  text = parse(workdir / 'report.html').text
  assert 'data.source synthetic ham10000' in text
  assert 'data.image_size (64, 64) (224, 224)' in text
  assert 'train.epochs' not in text


def _of_other_data(path):
  """Makes a summary one of other data; returns the mean Dice."""
  summary = json.loads(path.read_text())
  summary |= {'operating_point': None, 'native_size': None}
  summary['data'] |= {'name': 'clinic', 'split': None, 'split_sha256': None}
  summary |= {'best_checkpoint': None, 'leakage': None}
  summary['skin_tone'] = {
    'images': 0,
    'lesions': 0,
    'unavailable': {'too dark': 4, 'b* is not positive': 1},
    'ita_quantiles': None,
    'dice_rank_correlation': None,
    'warning': 'only 0 lesions: too few to judge',
  }
  profile = {
    'images': 5,
    'colour': {'red': {'mean': 181.4, 'sd': 9.0, 'sd_of_means': 4.0}},
    'image_sizes': {'600 x 450': 4, '31 x 17': 1},
    'lesion_area': {'mean': 0.2, 'quantiles': {'0.5': 0.123}},
  }
  summary['shift'] = {
    'training': profile,
    'here': profile,
    'notes': ['red is <higher>'],
  }
  summary['trained_on'] = 3
  summary['review'] = {
    'file': 'a&b.csv',
    'reviewed': 4,
    'counts': {'accept': 3, 'correct': 0, 'reject': 1},
    'mean_dice': {'accept': 0.5, 'correct': None, 'reject': None},
    'excluded': ['<one>'],
  }
  path.write_text(json.dumps(summary))
  return summary['per_image']['dice']['mean']


def test_other_data_has_its_own_report_without_the_paper(tmp_path):
  data = fake_evaluation.write_run(
    tmp_path, name='clinic', num_images=5, size=(32, 32)
  )
  (tmp_path / 'metrics.jsonl').unlink()
  home = tmp_path / 'evaluation' / 'clinic'
  mean = _of_other_data(home / 'summary.json')
  assert report.write_report(tmp_path, data, 'clinic') == home / 'report.html'
  assert not (tmp_path / 'report.html').exists()
  text = parse(home / 'report.html').text
  assert '90.15' not in text
  assert 'Only the threshold 0.5 was used' in text
  assert 'Ask its owner for the licence' in text
  assert "each image's original size" not in text
  for part in (
    'red is <higher>',
    'mean red, of 255 181 181',
    'median lesion area, share of the image 12.3 % 12.3 %',
    '600 x 450',
    'Decisions in a&b.csv on the true masks of 4 images: accept: 3, mean Dice'
    ' 50.00 % correct: 0 reject: 1',
    'rejected their true masks (1): <one>',
    '3 of these images have the same id as a training image of this model',
    "are not part of the run's split",
    '0 of 5 images have an angle; it is unavailable for 5 (too dark: 4, b* is'
    ' not positive: 1).',
    f'the true masks, n = 5 {100 * mean:.1f} %',
    'two people, all lesions 79.2 % 86.0 %',
    'two people, benign lesions 80.2 % –',
    'two people, malignant lesions 75.6 % –',
    'arXiv:2512.21472',
  ):
    assert part in text, part
  assert not list((home / 'figures').glob('curve_*'))
  assert not list((home / 'figures').glob('skin_tone*'))


def test_without_an_evaluation_one_message(tmp_path):
  with pytest.raises(
    errors.InputError, match='does not contain a complete evaluation'
  ):
    report.write_report(tmp_path, None)


def test_scores_in_words():
  assert pages.percent(0.90153) == '90.15\xa0%'
  assert pages.percent(None) == '–'
  assert pages.score(3.14159, 'hd95') == '3.14\xa0px'
  assert pages.score(-0.5, 'mcc') == '-0.5000'
  assert (
    pages.interval({'low': 0.881, 'high': 0.912}, 'dice')
    == '88.10 to 91.20\xa0%'
  )
  assert pages.interval({'low': None, 'high': None}, 'dice') == '–'


def test_model_is_described_as_it_was_trained():
  config = config_lib.Config()
  assert (
    'optimiser Adam, learning rate 0.001 (constant), loss binary cross-entropy.'
  ) in provenance.model(config)
  assert provenance.loss_note(config) == ''
  config.train.optimizer, config.train.loss = 'adamw', 'bce_dice'
  config.train.ema = 0.9
  config.evaluation.test_time_augmentation = 'flips'
  text = provenance.model(config)
  assert 'optimiser AdamW' in text
  assert 'plus soft Dice' in text
  assert 'moving average' in text
  assert 'averaged over 4 flipped or rotated views' in text
  assert 'do not compare' in provenance.loss_note(config)
