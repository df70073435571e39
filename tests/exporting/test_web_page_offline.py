"""What the page that needs no server stores, and does without a network."""

import contextlib
import hashlib
import os
import shutil
import threading
import time

import chromium
import exported_page
import pages
import pytest
import static_host

pytestmark = pytest.mark.browser

# A graphics processor, as far as the page can see.
_GPU = (
  "Object.defineProperty(navigator, 'gpu', {value: {"
  '  requestAdapter: async () => ({info: {isFallbackAdapter: false}}),'
  '}})'
)
# Waits until no service worker waits, and, if `all` is true, none is installed.
# Gives the number of caches.
_ACTIVE = """
const [path, all, done] = arguments;
(async () => {
  for (;;) {
    const {active, waiting, installing} =
      await navigator.serviceWorker.getRegistration(path) ?? {};
    if (active?.state === 'activated' && !waiting && !(all && installing)) {
      return done((await caches.keys()).length);
    }
    await new Promise((go) => setTimeout(go, 50));
  }
})();
"""


@pytest.fixture(scope='module')
def new(folder, tiny_run, tmp_path_factory):
  """A new version of the page: its model differs."""
  return _version(folder, tiny_run, tmp_path_factory.mktemp('new') / 'page')


def _version(folder, tiny_run, output):
  import onnx

  model = onnx.load(folder / 'model.onnx')
  model.producer_name = str(output)
  exported_page.rewrite(folder, output, tiny_run[0], model.SerializeToString())
  return output


def _stored(browser):
  pages.until(lambda: 'works offline' in pages.text(browser, 'offline'))


def test_after_one_visit_it_needs_no_network(browser, folder, photo, flax):
  asked = []
  with static_host.hosted(folder, asked=asked.append) as url:
    chromium.visit(browser, url, 360)
    _stored(browser)
    # The service worker took the large files from the page.
    large = [path.split('?')[0] for path in asked if '?sha256=' in path]
    assert sorted(large) == [
      '/model.onnx', '/ort-wasm-simd-threaded.wasm', '/ort.wasm.bundle.min.mjs'
    ]  # fmt: skip
    assert browser.execute_cdp_cmd('Page.getInstallabilityErrors', {}) == {
      'installabilityErrors': []
    }
  # The server is gone, and its cache must do.
  browser.execute_cdp_cmd('Network.clearBrowserCache', {})
  chromium.visit(browser, url, 360)
  pages.upload(browser, photo)
  exported_page.check_prediction(browser, flax, photo)
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


def test_a_new_version_replaces_the_old_one_only_as_a_whole(
  browser, folder, new, photo, flax, tmp_path
):
  host = tmp_path / 'host'
  shutil.copytree(folder, host)

  def predicts(version):
    chromium.visit(browser, url, 360)
    pages.upload(browser, photo)
    exported_page.check_prediction(browser, flax, photo)
    digest = hashlib.sha256((version / 'model.onnx').read_bytes()).hexdigest()
    assert digest[:12] in pages.text(browser, 'model')

  def leave():
    browser.get('data:text/html,')

  with static_host.hosted(host) as url:
    port = int(url.split(':')[-1].strip('/'))
    chromium.visit(browser, url, 360)
    _stored(browser)
    # The copy of the new version was not finished: its model is missing.
    for name in ('index.html', 'service_worker.js'):
      shutil.copy(new / name, host)
    chromium.visit(browser, url, 360)
    assert _updated(browser) == 'redundant'
    _stored(browser)
    leave()
  predicts(folder)
  with static_host.hosted(host, port):
    shutil.copy(new / 'model.onnx', host)
    chromium.visit(browser, url, 360)
    assert _updated(browser) == 'installed'
    leave()
  predicts(new)


def test_the_page_leaves_its_neighbours_alone(browser, folder, tmp_path):
  host = tmp_path / 'host'
  shutil.copytree(folder, host, copy_function=os.link)
  (host / 'notes').mkdir()
  (host / 'notes' / 'index.html').write_text('<title>Notes</title>')
  with static_host.hosted(host) as url:
    chromium.visit(browser, url, 360)
    _stored(browser)
    chromium.visit(browser, f'{url}?from=a_link', 360)
    assert browser.execute_script('return crossOriginIsolated')
    # The host redirects to an address with a slash at the end.
    chromium.visit(browser, f'{url}notes', 360)
    assert browser.title == 'Notes'
    assert browser.current_url == f'{url}notes/'
    assert not browser.execute_script('return crossOriginIsolated')


@pytest.mark.parametrize('first', [True, False])
def test_offline_the_files_of_the_first_visit_do(
  browser, folder, photo, flax, first
):
  # There is a graphics processor at the first visit alone, or later alone.
  gpu = lambda there: (
    chromium.prepared(browser, _GPU) if there else contextlib.nullcontext()
  )
  asked = []
  with static_host.hosted(folder, asked=asked.append) as url, gpu(first):
    chromium.visit(browser, url, 360)
    _stored(browser)
  assert first == any('/ort.webgpu' in path for path in asked)
  assert first != any('/ort.wasm' in path for path in asked)
  browser.execute_cdp_cmd('Network.clearBrowserCache', {})
  with gpu(not first):
    chromium.visit(browser, url, 360)
    pages.upload(browser, photo)
  exported_page.check_prediction(browser, flax, photo)
  assert '(WebAssembly' in pages.text(browser, 'model')
  _stored(browser)


def test_an_older_page_gets_the_new_version(
  browser, folder, photo, flax, tmp_path
):
  # Older pages did not say where the network runs.
  host = tmp_path / 'host'
  shutil.copytree(folder, host, copy_function=os.link)
  (host / 'older.html').write_text('<title>Older</title>')
  with static_host.hosted(host) as url:
    chromium.visit(browser, f'{url}older.html', 360)
    browser.execute_script(
      "navigator.serviceWorker.register('service_worker.js')"
    )
    browser.execute_async_script(_ACTIVE, './', True)
  chromium.visit(browser, url, 360)
  pages.upload(browser, photo)
  exported_page.check_prediction(browser, flax, photo)
  _stored(browser)


def test_lost_files_are_stored_again(browser, folder, photo, flax):
  with static_host.hosted(folder) as url:
    chromium.visit(browser, url, 360)
    _stored(browser)
    browser.execute_async_script(
      """
      const [done] = arguments;
      caches.keys()
        .then((names) => Promise.all(names.map((name) => caches.delete(name))))
        .then(() => done());"""
    )
    chromium.visit(browser, url, 360)
    _stored(browser)
  browser.execute_cdp_cmd('Network.clearBrowserCache', {})
  chromium.visit(browser, url, 360)
  pages.upload(browser, photo)
  exported_page.check_prediction(browser, flax, photo)


@pytest.mark.parametrize('name', ['service_worker.js', 'icon-180.png'])
def test_a_page_that_is_not_stored_says_so(
  browser, folder, photo, tmp_path, name
):
  host = tmp_path / 'host'
  shutil.copytree(folder, host, copy_function=os.link)
  (host / name).unlink()
  with static_host.hosted(host) as url:
    chromium.visit(browser, url, 360)
    pages.until(lambda: 'could not be stored' in pages.text(browser, 'offline'))
    assert 'needs a network connection' in pages.text(browser, 'offline')
    names = browser.execute_async_script(
      'caches.keys().then((names) => arguments[0](names.join()))'
    )
    assert 'loaded' not in names
    pages.upload(browser, photo)
    assert pages.find(browser, 'result').is_displayed()


def test_a_version_that_is_being_stored_is_left_alone(
  browser, folder, new, tiny_run, photo, flax, tmp_path
):
  # While the third version is stored, the second one becomes active.
  third = _version(folder, tiny_run, tmp_path / 'third')
  site, host = tmp_path / 'site', tmp_path / 'site' / 'page'
  shutil.copytree(folder, host)
  (site / 'index.html').write_text('<title>Neighbour</title>')
  held, reached, go = threading.Event(), threading.Event(), threading.Event()

  def asked(path):
    if held.is_set() and '/model.onnx' in path:
      reached.set()
      assert go.wait(60)

  def deploy(version, minutes):
    # The host tells versions apart by their time in whole seconds.
    date = time.time() + 60 * minutes
    for path in version.iterdir():
      os.utime(shutil.copy(path, host), (date, date))

  try:
    with static_host.hosted(site, asked=asked) as url:
      chromium.visit(browser, f'{url}page/', 360)
      _stored(browser)
      # Only a page from the store keeps the next version waiting.
      chromium.visit(browser, f'{url}page/', 360)
      deploy(new, 1)
      assert _updated(browser) == 'installed'
      deploy(third, 2)
      held.set()
      browser.execute_script(
        'navigator.serviceWorker.getRegistration().then((r) => r.update())'
      )
      assert reached.wait(60)
      chromium.visit(browser, url, 360)
      # The caches of both.
      assert browser.execute_async_script(_ACTIVE, 'page/', False) == 3
      go.set()
      assert browser.execute_async_script(_ACTIVE, 'page/', True) == 1
  finally:
    go.set()
  browser.execute_cdp_cmd('Network.clearBrowserCache', {})
  chromium.visit(browser, f'{url}page/', 360)
  pages.upload(browser, photo)
  exported_page.check_prediction(browser, flax, photo)
  digest = hashlib.sha256((third / 'model.onnx').read_bytes()).hexdigest()
  assert digest[:12] in pages.text(browser, 'model')
