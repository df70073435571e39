"""Compares the exported web page with Python, in headless Chromium.

python scripts/checks/web_page.py --page DIR --images DIR [--workdir DIR]

DIR of --page is what `export --format web` wrote for the same --workdir. The
page predicts all images of a folder: on its first visit (one thread), on a
later visit after its host was stopped (several threads), and as a single file
from the disk. Needs Chromium and selenium.
"""

import argparse
import pathlib
import sys
import tempfile
import time

import numpy as np
from PIL import Image

_ROOT = pathlib.Path(__file__).parents[2]
sys.path += [str(_ROOT), str(_ROOT / 'tests' / 'helpers' / 'browser')]

import chromium  # noqa: E402
import static_host  # noqa: E402

from skinseg_jax.data import preprocessing  # noqa: E402
from skinseg_jax.inference import predictor, trained_model  # noqa: E402
from skinseg_jax.weights import shared_model  # noqa: E402

_WAIT = 120  # Seconds.


def _python(workdir: pathlib.Path, paths: list[pathlib.Path]):
  """Probabilities at the size of the model, and masks; one view each."""
  model = trained_model.load(workdir, 'last')
  model.config.evaluation.test_time_augmentation = 'off'
  threshold = model.config.evaluation.threshold
  found = {}
  for path in paths:
    image = preprocessing.decode_image(path.read_bytes(), path.name)
    resized = [predictor.resize(model, image)]
    (answer,) = predictor.answers(model, resized, 1)
    own = predictor.at_own_size(image, answer, threshold, None)
    found[path] = answer.probability, own.mask
  return found


def _until(browser, script: str):
  end = time.monotonic() + _WAIT
  while time.monotonic() < end:
    if found := browser.execute_script(f'return {script}'):
      return found
    time.sleep(0.05)
  raise TimeoutError(script)


def _row(browser, url: str, expected, downloads: pathlib.Path) -> str:
  began = time.monotonic()
  chromium.visit(browser, url, 1280)
  _until(browser, "find('loading').hidden || find('broken').textContent")
  loaded = time.monotonic() - began
  where = browser.execute_async_script('model.then(arguments[0])')
  differences, overlaps, times = [], [], []
  for path, (probability, mask) in expected.items():
    browser.execute_script('shown = null')
    browser.find_element('id', 'file').send_keys(str(path))
    _until(browser, 'shown !== null')
    found, reading, predicting = browser.execute_script(
      'return [[...shown.probability], shown.reading, shown.predicting]'
    )
    found = np.reshape(np.float32(found), probability.shape)
    differences.append(np.abs(found - probability).max())
    times.append((reading, predicting))
    target = downloads / f'{path.stem}_mask.png'
    browser.find_element('id', 'save').click()
    _until(browser, "find('status').textContent.includes('was downloaded')")
    time.sleep(0.3)
    page = np.asarray(Image.open(target)) == 255
    target.unlink()
    both, either = (page & mask).sum(), (page | mask).sum()
    overlaps.append(both / either if either else 1.0)
  reading, predicting = np.median(times, axis=0)
  return (
    f'{where}: {len(expected)} pictures; largest difference of a probability'
    f' {max(differences):.2g}; lowest IoU of a mask {min(overlaps):.5f}; ready'
    f' after {loaded:.1f} s; median {reading:.0f} ms to read a picture,'
    f' {predicting:.0f} ms for the network'
  )


def main(argv: list[str]) -> None:
  """Prints a line for each way to open the page."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--page', required=True, type=pathlib.Path)
  parser.add_argument('--images', required=True, type=pathlib.Path)
  parser.add_argument('--workdir', type=pathlib.Path)
  args = parser.parse_args(argv[1:])
  paths = sorted(args.images.resolve().iterdir())
  expected = _python(shared_model.chosen(args.workdir), paths)
  single = (args.page / 'single_file.html').resolve().as_uri()
  with (
    tempfile.TemporaryDirectory() as folder,
    chromium.started(f'{folder}/profile') as browser,
  ):
    browser.set_script_timeout(_WAIT)
    browser.execute_cdp_cmd(
      'Browser.setDownloadBehavior',
      {'behavior': 'allow', 'downloadPath': folder},
    )
    row = lambda url: _row(browser, url, expected, pathlib.Path(folder))
    with static_host.hosted(args.page) as url:
      print('first visit,', row(url))
      _until(browser, "find('offline').textContent.includes('works offline')")
    print('later visit without a network,', row(url))
    print('single file from the disk,', row(single))


if __name__ == '__main__':
  main(sys.argv)
