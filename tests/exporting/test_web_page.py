"""The page that needs no server, in Chromium, as a reader uses it."""

import json
import os
import pathlib
import shutil

import chromium
import exported_page
import numpy as np
import pages
import pytest
import static_host
from fake_images import random_image
from PIL import Image

from skinseg_jax.data import preprocessing
from skinseg_jax.exporting import web_page


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
  exported_page.check_prediction(browser, flax, photo)
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
    exported_page.check_prediction(browser, flax, turned)
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
  with chromium.prepared(browser, script):
    chromium.visit(browser, url, 360)
    pages.until(lambda: message in pages.text(browser, 'broken'))


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


@pytest.mark.browser
def test_a_file_that_is_gone_is_explained(browser, url, photo):
  chromium.visit(browser, url, 360)
  pages.upload_deleted(browser, photo)
  assert pages.text(browser, 'problem') == (
    'The file cannot be read. It may have been moved, deleted or not downloaded'
    ' yet. Choose it again.'
  )


@pytest.mark.browser
def test_a_page_that_is_too_large_is_not_written(
  browser, folder, tiny_run, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(web_page, 'SINGLE_FILE_LIMIT', 2**20)
  size = (folder / 'single_file.html').stat().st_size
  output = tmp_path / 'page'
  model = (folder / 'model.onnx').read_bytes()
  exported_page.rewrite(folder, output, tiny_run[0], model)
  assert (
    'single_file.html was not written: it would have'
    f' {size / 2**20:.0f} MiB, more than 1\n'
  ) in capsys.readouterr().out
  assert not (output / 'single_file.html').exists()
  # The rest is as before, except that nothing names the file.
  for path in output.iterdir():
    if path.name not in ('index.html', 'service_worker.js'):
      assert path.read_bytes() == (folder / path.name).read_bytes()
  chromium.visit(browser, (output / 'index.html').as_uri(), 360)
  broken = pages.until(lambda: pages.text(browser, 'broken'))
  assert 'python -m http.server' in broken
  assert 'single_file' not in broken
