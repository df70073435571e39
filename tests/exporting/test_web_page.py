"""The page that needs no server, in Chromium, as a reader uses it."""

import hashlib
import json
import os
import pathlib
import shutil
import sys

import chromium
import numpy as np
import pages
import pytest
import static_host
from fake_images import random_image
from PIL import Image

from skinseg_jax import export
from skinseg_jax.data import preprocessing
from skinseg_jax.exporting import portable, web_page
from skinseg_jax.inference import predictor, trained_model

# CONTRIBUTING.md says how the files come there.
_RUNTIME = pathlib.Path(sys.prefix) / 'onnxruntime-web/package/dist'


@pytest.fixture(scope='module')
def folder(tiny_run, tmp_path_factory):
  pytest.importorskip('onnx')
  pytest.importorskip('onnxruntime')
  if not _RUNTIME.exists():
    pytest.skip('onnxruntime-web is not in the virtual environment')
  output = tmp_path_factory.mktemp('export') / 'page'
  export.main(
    ['export', f'--workdir={tiny_run[0]}', '--format=web',
     f'--output={output}', f'--runtime_dir={_RUNTIME}'],
  )  # fmt: skip
  return output


@pytest.fixture(scope='module')
def flax(tiny_run):
  """Predicts pictures from Python."""
  return predictor.Predictor(trained_model.load(tiny_run[0], 'last'))


@pytest.fixture(scope='module')
def url(folder):
  with static_host.hosted(folder) as url:
    yield url


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  with chromium.started(tmp_path_factory.mktemp('profile')) as driver:
    yield driver


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
  """Of other proportions than the model's pictures."""
  path = tmp_path_factory.mktemp('photos') / 'mole one.png'
  Image.fromarray(random_image(70, 90)).save(path)
  return path


def _probability(browser):
  values = browser.execute_script('return [...shown.probability]')
  return np.array(values, np.float32).reshape(32, 32)


def _expected(flax, path):
  image = preprocessing.decode_image(path.read_bytes(), path.name)
  model = flax._model
  (found,) = predictor.answers(model, [predictor.resize(model, image)], 1)
  return found.probability


def _shown(browser):
  return browser.execute_script('return shown?.file.name')


def _downloaded(browser, tmp_path, name):
  pages.download_to(browser, tmp_path)
  pages.find(browser, 'save').click()
  return np.asarray(Image.open(pages.arrived(tmp_path / name)))


@pytest.mark.browser
@pytest.mark.parametrize('width', [1280, 360])
def test_it_predicts_as_python_does(browser, url, photo, flax, tmp_path, width):
  chromium.visit(browser, url, width)
  pages.upload(browser, photo)
  assert browser.switch_to.active_element.get_attribute('id') == 'result-title'
  expected = _expected(flax, photo)
  assert np.abs(_probability(browser) - expected).max() < 1e-3
  found = _downloaded(browser, tmp_path, 'mole one_mask.png')
  truth = flax.predict(photo)
  sure = np.abs(truth.probability - 0.5) > 1e-3
  np.testing.assert_array_equal((found == 255)[sure], truth.mask[sure])
  assert set(np.unique(found)) <= {0, 255}
  assert pages.covered(browser) == pytest.approx(
    100 * truth.mask.mean(), abs=0.5
  )
  inner, scrolled = browser.execute_script(
    'return [innerWidth, document.scrollingElement.scrollWidth]'
  )
  assert inner == width
  assert scrolled <= inner
  header = browser.find_element('tag name', 'header')
  assert 'not a medical device' in header.text
  assert chromium.messages(browser) == []
  # Its own files, and what it holds in memory.
  for address in chromium.requested(browser):
    assert address.startswith((url, f'blob:{url}'))


@pytest.mark.browser
def test_after_one_visit_it_needs_no_network(browser, folder, photo, flax):
  with static_host.hosted(folder) as url:
    chromium.visit(browser, url, 360)
    pages.until(lambda: 'works offline' in pages.text(browser, 'offline'))
    assert browser.execute_cdp_cmd('Page.getInstallabilityErrors', {}) == {
      'installabilityErrors': []
    }
  # The server is gone, and its cache must do.
  browser.execute_cdp_cmd('Network.clearBrowserCache', {})
  chromium.visit(browser, url, 360)
  pages.upload(browser, photo)
  difference = _probability(browser) - _expected(flax, photo)
  assert np.abs(difference).max() < 1e-3
  # The service worker allows several threads, where there are processors.
  isolated, processors = browser.execute_script(
    'return [crossOriginIsolated, navigator.hardwareConcurrency]'
  )
  assert isolated
  threads = min(4, processors)
  assert f'(WebAssembly, threads: {threads})' in pages.text(browser, 'model')


def _updated(browser):
  """Waits for a new version; returns what became of its service worker."""
  return browser.execute_async_script(
    """
    const [done] = arguments;
    (async () => {
      const all = await navigator.serviceWorker.getRegistration();
      const next = all.installing ?? all.waiting ?? await all.update().then(
        () => all.installing ?? all.waiting ?? all.active);
      while (next.state === 'installing') {
        await new Promise((go) => setTimeout(go, 50));
      }
      done(next.state);
    })();"""
  )


@pytest.mark.browser
def test_a_new_version_replaces_the_old_one_only_as_a_whole(
  browser, folder, photo, flax, tmp_path, monkeypatch
):
  import onnx

  model = onnx.load(folder / 'model.onnx')
  model.producer_name = 'a new version'
  new, host = tmp_path / 'new', tmp_path / 'host'
  _rewrite(folder, new, monkeypatch, model.SerializeToString())
  shutil.copytree(folder, host)
  offline = lambda: 'works offline' in pages.text(browser, 'offline')

  def predicts(version):
    chromium.visit(browser, url, 360)
    pages.upload(browser, photo)
    difference = _probability(browser) - _expected(flax, photo)
    assert np.abs(difference).max() < 1e-3
    digest = hashlib.sha256((version / 'model.onnx').read_bytes()).hexdigest()
    assert digest[:12] in pages.text(browser, 'model')

  def leave():
    browser.get('data:text/html,')

  with static_host.hosted(host) as url:
    port = int(url.split(':')[-1].strip('/'))
    chromium.visit(browser, url, 360)
    pages.until(offline)
    # The copy of the new version was not finished: its model is missing.
    for name in ('index.html', 'service_worker.js'):
      shutil.copy(new / name, host)
    chromium.visit(browser, url, 360)
    assert _updated(browser) == 'redundant'
    pages.until(offline)
    leave()
  predicts(folder)
  with static_host.hosted(host, port):
    shutil.copy(new / 'model.onnx', host)
    chromium.visit(browser, url, 360)
    assert _updated(browser) == 'installed'
    leave()
  predicts(new)


@pytest.mark.browser
def test_the_page_leaves_its_neighbours_alone(browser, folder, tmp_path):
  host = tmp_path / 'host'
  shutil.copytree(folder, host, copy_function=os.link)
  (host / 'notes').mkdir()
  (host / 'notes' / 'index.html').write_text('<title>Notes</title>')
  with static_host.hosted(host) as url:
    chromium.visit(browser, url, 360)
    pages.until(lambda: 'works offline' in pages.text(browser, 'offline'))
    chromium.visit(browser, f'{url}?from=a_link', 360)
    assert browser.execute_script('return crossOriginIsolated')
    # The host redirects to an address with a slash at the end.
    chromium.visit(browser, f'{url}notes', 360)
    assert browser.title == 'Notes'
    assert browser.current_url == f'{url}notes/'
    assert not browser.execute_script('return crossOriginIsolated')


@pytest.mark.browser
def test_the_single_file_works_from_a_disk(browser, folder, flax, tmp_path):
  path = shutil.copy(folder / 'single_file.html', tmp_path)
  exif = Image.Exif()
  exif[0x0112] = 6  # The camera was turned.
  chromium.visit(browser, pathlib.Path(path).as_uri(), 360)
  # Chromium itself turns only the first.
  for name, options in (
    ('turned.jpg', {'quality': 95}),
    ('also.webp', {'lossless': True}),
  ):
    turned = tmp_path / name
    Image.fromarray(random_image(90, 60)).save(turned, exif=exif, **options)
    pages.upload(browser, turned)
    pages.until(
      lambda name=name: (
        browser.execute_script('return shown?.file.name') == name
      )
    )
    difference = _probability(browser) - _expected(flax, turned)
    assert np.abs(difference).max() < 1e-3
    found = _downloaded(browser, tmp_path, f'{turned.stem}_mask.png')
    assert found.shape == (60, 90)
    view = browser.execute_script(
      "return [find('view').height, find('view').width,"
      ' [...shown.pixels].filter((_, i) => i % 4 < 3)]'
    )
    image = preprocessing.decode_image(turned.read_bytes(), name).astype(int)
    assert view[:2] == [60, 90]
    # JPEG decoders differ a little.
    assert np.abs(np.reshape(view[2], image.shape) - image).max() < 4
  assert chromium.messages(browser) == []


@pytest.mark.browser
@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (
      lambda data: data[:-1] + b'x',
      'model.onnx is not the file that this page was made with',
    ),
    (None, 'model.onnx cannot be loaded (404)'),
  ],
)
def test_another_model_file_is_refused(
  browser, folder, photo, tmp_path, content, message
):
  copy = tmp_path / 'page'
  shutil.copytree(folder, copy, copy_function=os.link)
  (copy / 'model.onnx').unlink()
  if content:
    data = (folder / 'model.onnx').read_bytes()
    (copy / 'model.onnx').write_bytes(content(data))
  with static_host.hosted(copy) as url:
    chromium.visit(browser, url, 360)
    pages.until(lambda: message in pages.text(browser, 'broken'))
    pages.upload(browser, photo)
    assert message in pages.text(browser, 'problem')


@pytest.mark.browser
@pytest.mark.parametrize(
  ('script', 'message'),
  [
    ('WebAssembly.validate = () => false', 'it lacks WebAssembly SIMD. Use'),
    (
      "Object.defineProperty(window, 'isSecureContext', {value: false})",
      'needs an address that begins with https://',
    ),
  ],
)
def test_an_unfit_browser_is_told_so(browser, url, script, message):
  added = browser.execute_cdp_cmd(
    'Page.addScriptToEvaluateOnNewDocument', {'source': script}
  )
  try:
    chromium.visit(browser, url, 360)
    pages.until(lambda: message in pages.text(browser, 'broken'))
  finally:
    browser.execute_cdp_cmd('Page.removeScriptToEvaluateOnNewDocument', added)


@pytest.mark.browser
def test_from_a_disk_the_folder_names_the_single_file(browser, folder):
  chromium.visit(browser, (folder / 'index.html').as_uri(), 360)
  pages.until(
    lambda: 'Open single_file.html instead' in pages.text(browser, 'broken')
  )


@pytest.mark.browser
def test_what_is_no_picture_is_explained(browser, url, photo, tmp_path):
  chromium.visit(browser, url, 360)
  text, damaged, huge = (
    tmp_path / name for name in ('text.jpg', 'damaged.png', 'huge.png')
  )
  text.write_text('no picture')
  Image.new('1', (12_000, 9_000)).save(huge)
  damaged.write_bytes(photo.read_bytes()[:200])
  for path, message in (
    (text, 'browser cannot read the file as a picture'),
    (damaged, 'picture is damaged'),
    (huge, 'has 108 megapixels; at most 100 are allowed'),
  ):
    pages.upload(browser, path)
    assert message in pages.text(browser, 'problem')
    assert not pages.find(browser, 'result').is_displayed()
  pages.upload(browser, photo)
  assert pages.find(browser, 'result').is_displayed()


@pytest.mark.browser
def test_it_works_by_keyboard_alone(browser, url, photo, flax, tmp_path):
  pages.download_to(browser, tmp_path)
  chromium.visit(browser, url, 1280)
  assert pages.outline_by_keyboard(browser, photo) == [
    'file', 'threshold', 'outline', 'unsure', 'save', 'reset'
  ]  # fmt: skip
  saved = pages.arrived(tmp_path / 'mole one_mask.png')
  mask = np.asarray(Image.open(saved).convert('L')) == 255
  truth = flax.predict(photo).probability
  sure = np.abs(truth - 0.9) > 1e-3
  np.testing.assert_array_equal(mask[sure], (truth > 0.9)[sure])


@pytest.mark.browser
@pytest.mark.parametrize('width', [1280, 360])
def test_axe_finds_nothing_severe(browser, url, photo, width):
  chromium.visit(browser, url, width)
  pages.until(lambda: not pages.find(browser, 'loading').is_displayed())
  assert pages.severe_findings(browser) == []
  pages.upload(browser, photo)
  assert pages.find(browser, 'result').is_displayed()
  assert pages.severe_findings(browser) == []


def test_the_folder_states_what_it_needs(folder):
  manifest = json.loads((folder / 'manifest.webmanifest').read_text())
  for icon in manifest['icons']:
    with Image.open(folder / icon['src']) as image:
      assert icon['sizes'] == f'{image.width}x{image.height}'
  assert 'Microsoft' in (folder / 'onnxruntime-web-licence.txt').read_text()
  assert not list(folder.glob('.partial'))


def _rewrite(folder, output, monkeypatch, model):
  """Writes the page again, with another file of the model."""

  def copied(output, *arguments, **options):
    (output / 'model.onnx').write_bytes(model)
    about = json.loads((folder / 'model.json').read_text())
    about['sha256'] = hashlib.sha256(model).hexdigest()
    return about

  output.mkdir()
  with monkeypatch.context() as patch:
    patch.setattr(portable, 'write_network', copied)
    return web_page.write(output, None, {}, _RUNTIME)


@pytest.mark.browser
def test_a_page_that_is_too_large_is_not_written(
  browser, folder, tmp_path, monkeypatch
):
  monkeypatch.setattr(web_page, 'SINGLE_FILE_LIMIT', 2**20)
  output = tmp_path / 'page'
  model = (folder / 'model.onnx').read_bytes()
  _, size = _rewrite(folder, output, monkeypatch, model)
  assert size > 2**20
  assert not (output / 'single_file.html').exists()
  # The rest is as before, except that nothing names the file.
  for path in output.iterdir():
    if path.name not in ('index.html', 'service_worker.js'):
      assert path.read_bytes() == (folder / path.name).read_bytes()
  chromium.visit(browser, (output / 'index.html').as_uri(), 360)
  broken = pages.until(lambda: pages.text(browser, 'broken'))
  assert 'python -m http.server' in broken
  assert 'single_file' not in broken
