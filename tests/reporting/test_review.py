import html.parser

import fake_evaluation
import pytest

from skinseg_jax.evaluation import expert_review, result_files
from skinseg_jax.reporting import review_page
from skinseg_jax.runtime import errors


class _Page(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.ids, self.images = [], []

  def handle_starttag(self, tag, attrs):
    values = dict(attrs)
    if 'data-id' in values:
      self.ids.append(values['data-id'])
    if tag == 'img':
      self.images.append(values['src'])


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  data = fake_evaluation.write_run(
    workdir,
    size=(32, 48),
    rename=lambda image_id: image_id.replace('synthetic', '<b>"&'),
  )
  path = review_page.write_review(workdir, data)
  parsed = _Page()
  parsed.feed(path.read_text('utf-8'))
  return workdir, path, parsed


def test_worst_come_first_then_a_sample_and_none_twice(page):
  workdir, path, parsed = page
  assert path == workdir / 'review.html'
  evaluation = result_files.read(workdir, 'validation')
  worst = [evaluation.image_ids[i] for i in evaluation.ranked()[:20]]
  assert parsed.ids[:20] == worst
  assert len(set(parsed.ids)) == len(parsed.ids) == 40
  assert set(parsed.ids) <= set(evaluation.image_ids)


def test_page_needs_nothing_else(page):
  _, path, parsed = page
  assert len(parsed.images) == 4 * 40
  assert all(image.startswith('data:image/') for image in parsed.images)
  text = path.read_text('utf-8')
  assert '<b>"&' not in text
  assert '&lt;b&gt;&#34;&amp;_000000' in text
  assert not list(path.parent.glob('*.tmp'))


def test_few_images_are_all_shown(tmp_path):
  data = fake_evaluation.write_run(tmp_path, num_images=3, size=(16, 16))
  parsed = _Page()
  parsed.feed(review_page.write_review(tmp_path, data).read_text('utf-8'))
  assert sorted(parsed.ids) == data.image_ids


def _read(tmp_path, text, encoding='utf-8'):
  path = tmp_path / 'review.csv'
  path.write_bytes(text.encode(encoding))
  return expert_review.read_review(path)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_reads_rows_and_takes_guards_off(tmp_path, encoding):
  rows = _read(
    tmp_path,
    'image_id,decision,comment\r\n'
    'a,accept,\r\n'
    '"b","correct","\'=1+1, ""so""\nnext line"\r\n'
    "c,reject,'quoted'\r\n"
    "d,reject,''quoted\r\n",
    encoding,
  )
  assert rows == [
    {'image_id': 'a', 'decision': 'accept', 'comment': ''},
    {
      'image_id': 'b',
      'decision': 'correct',
      'comment': '=1+1, "so"\nnext line',
    },
    # A guard is added only before text that starts like a formula or a guard.
    {'image_id': 'c', 'decision': 'reject', 'comment': "'quoted'"},
    {'image_id': 'd', 'decision': 'reject', 'comment': "'quoted"},
  ]


def test_columns_in_another_order(tmp_path):
  rows = _read(tmp_path, 'comment,image_id,decision\nfine,a,accept\n')
  assert rows == [{'image_id': 'a', 'decision': 'accept', 'comment': 'fine'}]


def test_no_decision_at_all_is_no_row(tmp_path):
  assert _read(tmp_path, 'image_id,decision,comment\n') == []


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('', ["no column 'image_id'", "no column 'comment'"]),
    ('image_id;decision;comment\n', ["column 'image_id;decision;comment'"]),
    ('image_id,decision,comment,mood\n', ["unknown or repeated column 'mood'"]),
    ('image_id,decision\n', ["no column 'comment'"]),
    (
      'image_id,decision,decision,comment\n',
      ["unknown or repeated column 'decision'"],
    ),
    (
      'image_id,decision,comment\n'
      'a,accept,\nb,maybe,\na,reject,\nc,,\n,accept,\nd,accept\ne,reject,,x\n',
      [
        "b: unknown decision 'maybe'",
        "c: unknown decision ''",
        'row 5 has no image_id',
        'row 6 does not have 3 cells',
        'row 7 does not have 3 cells',
        'a: 2 rows',
        'accept, correct or reject',
      ],
    ),
    ('image_id,decision,comment\na,accept,"open\n', ['cannot be read']),
  ],
)
def test_one_message_names_everything_wrong(tmp_path, text, expected):
  with pytest.raises(errors.InputError) as caught:
    _read(tmp_path, text)
  message = str(caught.value)
  assert 'review.csv' in message
  for part in expected:
    assert part in message


def test_what_is_no_text_or_not_there(tmp_path):
  with pytest.raises(errors.InputError, match='cannot be read'):
    _read(tmp_path, 'image_id,decision,comment\né,accept,\n', 'utf-16')
  with pytest.raises(errors.InputError, match=r'no\.csv cannot be read'):
    expert_review.read_review(tmp_path / 'no.csv')
