"""The server's page in Chromium, as a reader uses it."""

import contextlib
import threading

import chromium
import fake_model
import numpy as np
import pages
import pytest
from PIL import Image

pytestmark = pytest.mark.browser

uvicorn = pytest.importorskip('uvicorn')

from skinseg_jax.serving import app as app_lib  # noqa: E402
from skinseg_jax.serving import server  # noqa: E402

_SIZE = (96, 128)


@contextlib.contextmanager
def _served(folder, **options):
  """A server in a thread: dark pixels are lesion."""
  with pytest.MonkeyPatch.context() as patch:
    model = fake_model.make(patch, folder, image_size=_SIZE)
    app, worker = app_lib.create(model, 'dark', **options)
    worker.start()
    web = uvicorn.Server(
      uvicorn.Config(app, log_level='warning', ws='none', lifespan='off')
    )
    with server.bound('127.0.0.1', 0) as listener:
      thread = threading.Thread(target=web.run, args=([listener],))
      thread.start()
      try:
        yield server.url(listener)
      finally:
        web.should_exit = True
        thread.join()
        worker.close()


@pytest.fixture(scope='module')
def url(tmp_path_factory):
  with _served(tmp_path_factory.mktemp('data')) as url:
    yield url


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  with chromium.started(tmp_path_factory.mktemp('profile')) as driver:
    yield driver


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
  """Dark on the left, brighter to the right; of the size of the model."""
  grey = np.tile(np.linspace(60, 200, _SIZE[1]).astype(np.uint8), (_SIZE[0], 1))
  grey[grey == fake_model.MIDDLE] += 1  # One half exactly may round up.
  path = tmp_path_factory.mktemp('photos') / 'mole one.png'
  Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(path)
  return path


def _truth(photo):
  return fake_model.probabilities(np.asarray(Image.open(photo))[None])[0]


@pytest.mark.parametrize('width', [1280, 360])
def test_a_picture_is_outlined(browser, url, photo, width):
  chromium.visit(browser, url, width)
  pages.upload(browser, photo)
  truth = _truth(photo)
  assert pages.covered(browser) == pytest.approx(
    100 * (truth > 0.5).mean(), abs=1
  )
  inner, scrolled = browser.execute_script(
    'return [innerWidth, document.scrollingElement.scrollWidth]'
  )
  assert inner == width
  assert scrolled <= inner
  cell = lambda name: browser.find_element(
    'css selector', f'[data-measure={name}]'
  )
  assert cell('pieces').text == '1'
  assert cell('ita_reason').is_displayed() == (cell('ita').text == '–')
  assert 'not a medical device' in browser.find_element('tag name', 'body').text
  # The result has the focus, so that a screen reader goes on there.
  assert browser.switch_to.active_element.get_attribute('id') == 'result-title'
  pixels = browser.execute_script(
    "const view = document.getElementById('view');"
    "return [...view.getContext('2d').getImageData(0, 40, view.width, 1).data]"
  )
  row = np.array(pixels).reshape(-1, 4)[:, 0]
  last = int((truth[40] > 0.5).sum()) - 1  # The last lesion pixel of the row.
  assert row[last] == 255
  assert row[last + 1] == 0
  assert chromium.messages(browser) == []
  assert {r.removeprefix(url) for r in chromium.requested(browser)} == {
    '/', '/predict?probability=true',
  }  # fmt: skip


def test_the_slider_and_the_download(browser, url, photo, tmp_path):
  from selenium.webdriver.common.keys import Keys

  pages.download_to(browser, tmp_path)
  chromium.visit(browser, url, 1280)
  pages.upload(browser, photo)
  truth = _truth(photo)
  target = tmp_path / 'mole one_mask.png'
  before = pages.covered(browser)
  slider, save = pages.find(browser, 'threshold'), pages.find(browser, 'save')
  save.click()
  found = np.asarray(Image.open(pages.arrived(target))) == 255
  np.testing.assert_array_equal(found, truth > 0.5)
  target.unlink()
  slider.send_keys(Keys.ARROW_RIGHT * 40)
  pages.until(lambda: pages.find(browser, 'value').text == '0.90')
  assert pages.covered(browser) == pytest.approx(
    100 * (truth > 0.9).mean(), abs=1
  )
  save.send_keys(Keys.ENTER)
  mask = np.asarray(Image.open(pages.arrived(target)).convert('L')) == 255
  sure = np.abs(truth - 0.9) > 1 / 255
  np.testing.assert_array_equal(mask[sure], (truth > 0.9)[sure])
  pages.find(browser, 'reset').click()
  assert pages.covered(browser) == before
  pages.find(browser, 'unsure').send_keys(' ')
  view = "document.getElementById('view')"
  script = (
    f"const d = {view}.getContext('2d').getImageData(0, 9, 128, 1).data;"
    'return Math.max(...Array.from({length: 128}, (_, i) => d[4*i] - d[4*i+2]))'
  )
  pages.until(lambda: browser.execute_script(script) > 50)
  assert chromium.messages(browser) == []


def test_what_is_no_picture_is_explained(browser, url, tmp_path):
  path = tmp_path / 'text.jpg'
  path.write_text('no picture')
  chromium.visit(browser, url, 360)
  pages.upload(browser, path)
  assert (
    'not a JPEG, PNG or WebP picture' in pages.find(browser, 'problem').text
  )
  assert not pages.find(browser, 'result').is_displayed()


def test_a_file_that_is_gone_is_explained(browser, url, photo):
  chromium.visit(browser, url, 360)
  pages.upload_deleted(browser, photo)
  assert pages.text(browser, 'problem') == (
    'The file cannot be read. It may have been moved, deleted or not downloaded'
    ' yet. Choose it again.'
  )


def test_an_old_browser_is_told_what_it_lacks(browser, url, photo):
  old = 'delete window.OffscreenCanvas; delete window.CompressionStream'
  with chromium.prepared(browser, old):
    chromium.visit(browser, url, 360)
  pages.upload(browser, photo)
  browser.execute_script("find('threshold').value = 0.8; find('save').click()")
  assert pages.until(lambda: pages.text(browser, 'problem')) == (
    'This browser cannot write the mask at this threshold: it lacks'
    ' OffscreenCanvas, CompressionStream. Use a current Chrome, Edge or'
    ' Firefox, or Safari 16.4 or later.'
  )


def test_a_mask_keeps_its_name_when_another_picture_is_chosen(
  browser, url, photo, tmp_path
):
  other = tmp_path / 'other.png'
  Image.new('RGB', (40, 30), 'black').save(other)
  pages.download_to(browser, tmp_path)
  chromium.visit(browser, url, 360)
  pages.upload(browser, photo)
  # Making a mask takes until `go` is called.
  browser.execute_script(
    'const whole = mask, ready = new Promise((go) => { window.go = go; });'
    'mask = async (...all) => { await ready; return whole(...all); };'
  )
  pages.find(browser, 'save').click()
  pages.upload(browser, other)
  pages.until(
    lambda: browser.execute_script('return shown.file.name') == other.name
  )
  browser.execute_script('go()')
  target = pages.arrived(tmp_path / 'mole one_mask.png')
  assert np.asarray(Image.open(target)).shape == _SIZE
  assert chromium.messages(browser) == []


def test_the_page_says_what_a_person_should_look_at(browser, url, photo):
  chromium.visit(browser, url, 360)
  pages.upload(browser, photo)
  assert 'should look at this mask: ' in pages.find(browser, 'review').text
  assert 'lesion touches the border' in pages.find(browser, 'review').text
  assert not pages.find(browser, 'dice').text  # The model has no calibration.


@pytest.mark.parametrize('extension', ['jpg', 'png', 'webp'])
def test_a_turned_photograph_is_shown_upright(
  browser, url, tmp_path, extension
):
  pixels = np.full((60, 90, 3), 220, np.uint8)
  pixels[:, :30] = 30
  exif = Image.Exif()
  exif[0x0112] = 6
  path = tmp_path / f'turned.{extension}'
  Image.fromarray(pixels).save(path, exif=exif, quality=95)
  chromium.visit(browser, url, 360)
  pages.upload(browser, path)
  width, height, top, bottom = browser.execute_script(
    "const v = document.getElementById('view'), c = v.getContext('2d');"
    'const at = (y) => c.getImageData(30, y, 1, 1).data[0];'
    'return [v.width, v.height, at(5), at(85)]'
  )
  assert (width, height) == (60, 90)
  assert top < 60
  assert bottom > 190


def test_the_mask_of_a_large_picture_needs_no_large_canvas(
  browser, url, tmp_path
):
  # Phones refuse canvases of many pixels. This picture has 8.4 million.
  pixels = np.full((2900, 2900), 220, np.uint8)
  pixels[600:2000, 900:2800] = 30
  path = tmp_path / 'large.png'
  Image.fromarray(pixels).save(path)
  pages.download_to(browser, tmp_path)
  chromium.visit(browser, url, 360)
  browser.execute_script(
    """
    window.largest = 0;
    for (const kind of [HTMLCanvasElement, OffscreenCanvas]) {
      const {getContext} = kind.prototype;
      kind.prototype.getContext = function (...all) {
        largest = Math.max(largest, this.width * this.height);
        return getContext.apply(this, all);
      };
    }"""
  )
  pages.upload(browser, path)
  browser.execute_script(
    "find('threshold').value = 0.8;"
    "find('threshold').dispatchEvent(new Event('input'))"
  )
  pages.find(browser, 'save').click()
  saved = pages.arrived(tmp_path / 'large_mask.png')
  mask = np.asarray(Image.open(saved).convert('L')) == 255
  assert mask.shape == pixels.shape
  # The model sees a picture of 96 x 128 pixels, so edges move a little.
  assert (mask == (pixels < 128)).mean() > 0.97
  assert browser.execute_script('return largest') <= 2**23


def test_it_works_by_keyboard_alone(browser, url, photo, tmp_path):
  pages.download_to(browser, tmp_path)
  chromium.visit(browser, url, 1280)
  assert pages.outline_by_keyboard(browser, photo) == [
    'file', 'threshold', 'outline', 'unsure', 'save', 'reset'
  ]  # fmt: skip
  saved = pages.arrived(tmp_path / 'mole one_mask.png')
  mask = np.asarray(Image.open(saved).convert('L')) == 255
  truth = _truth(photo)
  sure = np.abs(truth - 0.9) > 1 / 255
  np.testing.assert_array_equal(mask[sure], (truth > 0.9)[sure])


@pytest.mark.parametrize('width', [1280, 360])
def test_axe_finds_nothing_severe(browser, url, photo, width):
  chromium.visit(browser, url, width)
  assert pages.severe_findings(browser) == []
  pages.upload(browser, photo)
  assert pages.find(browser, 'result').is_displayed()
  assert pages.severe_findings(browser) == []


def test_axe_finds_nothing_severe_beside_a_token_and_a_problem(
  browser, tmp_path
):
  path = tmp_path / 'text.jpg'
  path.write_text('no picture')
  with _served(tmp_path, token='right') as url:
    chromium.visit(browser, url, 360)
    pages.upload(browser, path)
    assert 'token' in pages.text(browser, 'problem')
    assert pages.severe_findings(browser) == []


def test_axe_finds_what_is_wrong(browser):
  browser.get('data:text/html,<img src="data:,">')
  found = pages.severe_findings(browser)
  assert any('image-alt' in finding for finding in found)
