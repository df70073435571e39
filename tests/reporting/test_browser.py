"""Opens report and review in Chromium like a reader."""

import time

import chromium
import fake_evaluation
import pytest

from skinseg_jax.evaluation import expert_review
from skinseg_jax.reporting import report

pytestmark = pytest.mark.browser

# An id that is markup in a page and a formula in a spreadsheet if not escaped.
_HOSTILE = '=<img src=x onerror=alert(1)>"'


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  rename = lambda name: _HOSTILE + name if name.endswith('0') else name
  data = fake_evaluation.write_run(
    folder, num_images=120, split='paper', rename=rename
  )
  report.write_all(folder, data)
  return folder


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  with chromium.started(tmp_path_factory.mktemp('profile')) as driver:
    yield driver


@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('page', ['report.html', 'review.html'])
def test_pages_fit_and_stand_alone(browser, workdir, page, width):
  path = workdir / page
  assert path.stat().st_size < 8e6
  chromium.visit(browser, path.as_uri(), width)
  assert chromium.messages(browser) == []
  assert chromium.requested(browser) == [path.as_uri()]
  inner, scrolled = browser.execute_script(
    'return [innerWidth, document.scrollingElement.scrollWidth]'
  )
  assert inner == width
  assert scrolled <= inner
  # Every picture was decoded.
  broken = browser.execute_script(
    'return Promise.all([...document.images].map('
    '  (image) => image.decode().then(() => "", (error) => String(error))))'
  )
  assert broken
  assert set(broken) == {''}


@pytest.mark.parametrize('page', ['report.html', 'review.html'])
def test_policy_forbids_the_network(browser, workdir, page):
  chromium.visit(browser, (workdir / page).as_uri(), 1280)
  loaded = browser.execute_async_script(
    'const done = arguments[0]; const image = new Image();'
    "image.onload = () => done('loaded'); image.onerror = () => done('no');"
    "image.src = 'http://127.0.0.1:9/x.png';"
  )
  assert loaded == 'no'
  assert any('Content Security Policy' in m for m in chromium.messages(browser))


def test_tables_scroll_inside_their_box(browser, workdir):
  chromium.visit(browser, (workdir / 'report.html').as_uri(), 390)
  wide = browser.execute_script(
    "return [...document.querySelectorAll('.scroll')].filter("
    '  (box) => box.scrollWidth > box.clientWidth).length'
  )
  assert wide > 0


def _press(browser, keys):
  browser.switch_to.active_element.send_keys(keys)


def _downloaded(browser, folder):
  """Waits for the one file that a click saves."""
  for _ in range(100):
    files = [path for path in folder.iterdir() if path.suffix == '.csv']
    if files:
      return files[0]
    time.sleep(0.1)
  raise AssertionError('nothing was saved')


def _case(browser):
  (shown,) = browser.execute_script(
    "return [...document.querySelectorAll('.case')].filter((c) => !c.hidden)"
    '.map((c) => c.dataset.id)'
  )
  return shown


def test_review_by_keys_and_clicks_is_read_back(browser, workdir, tmp_path):
  from selenium.webdriver.common.by import By
  from selenium.webdriver.common.keys import Keys

  browser.execute_cdp_cmd(
    'Browser.setDownloadBehavior',
    {'behavior': 'allow', 'downloadPath': str(tmp_path)},
  )
  chromium.visit(browser, (workdir / 'review.html').as_uri(), 1280)
  find = lambda name: browser.find_element(By.ID, name)
  ids, link = [], '=HYPERLINK("http://x")'
  # By keyboard: first a comment, where letters are not decisions; then a
  # decision.
  for key, comment in (
    ('a', ''),
    ('C', link),
    ('r', 'car, "über"\nnext line'),
  ):
    ids.append(_case(browser))
    if comment:
      _press(browser, 'm')
      _press(browser, comment)
      _press(browser, Keys.ESCAPE)
    _press(browser, key)
  # By clicks; then back, and another decision.
  ids.append(_case(browser))
  browser.find_element(By.CSS_SELECTOR, '[data-decision=accept]').click()
  _press(browser, Keys.ARROW_LEFT)
  assert _case(browser) == ids[3]
  find('comment').send_keys('-1')
  browser.find_element(By.CSS_SELECTOR, '[data-decision=reject]').click()
  # A comment without a decision is reported and not saved.
  find('next').click()
  find('comment').send_keys('what is this?')
  progress = find('progress').text
  assert progress.startswith('4 of 40 decided; 1 with a comment')
  find('save').click()
  path = _downloaded(browser, tmp_path)
  assert path.name == 'review_validation.csv'
  assert expert_review.read_review(path) == [
    {'image_id': ids[0], 'decision': 'accept', 'comment': ''},
    {'image_id': ids[1], 'decision': 'correct', 'comment': link},
    {
      'image_id': ids[2],
      'decision': 'reject',
      'comment': 'car, "über"\nnext line',
    },
    {'image_id': ids[3], 'decision': 'reject', 'comment': '-1'},
  ]
  # No cell of the saved file is a formula.
  text = path.read_text('utf-8')
  assert '"\'=HYPERLINK' in text
  assert '"\'-1"' in text
  assert any(image_id.startswith('=') for image_id in ids)
  assert '"=' not in text
  # Nothing is lost when the page is opened again.
  chromium.visit(browser, (workdir / 'review.html').as_uri(), 390)
  assert find('progress').text == progress
  assert chromium.messages(browser) == []
