"""Headless Chromium, driven like a reader's browser."""

import contextlib
import json
import shutil

import pytest

_CHROMIUM, _DRIVER = shutil.which('chromium'), shutil.which('chromedriver')
_FLAGS = (
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
)


@contextlib.contextmanager
def started(profile):
  """A driver; skips the test without Chromium or selenium."""
  webdriver = pytest.importorskip('selenium.webdriver')
  if not _CHROMIUM or not _DRIVER:
    pytest.skip('chromium or chromedriver is not installed')
  options = webdriver.ChromeOptions()
  options.binary_location = _CHROMIUM
  for flag in _FLAGS:
    options.add_argument(flag)
  options.add_argument(f'--user-data-dir={profile}')
  options.set_capability(
    'goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'}
  )
  # The path is given, so that Selenium does not search for a driver online.
  service = webdriver.ChromeService(_DRIVER)
  driver = webdriver.Chrome(options=options, service=service)
  try:
    yield driver
  finally:
    driver.quit()


@contextlib.contextmanager
def prepared(browser, script):
  """Runs a script at the start of each page, before those of the page."""
  added = browser.execute_cdp_cmd(
    'Page.addScriptToEvaluateOnNewDocument', {'source': script}
  )
  try:
    yield
  finally:
    browser.execute_cdp_cmd('Page.removeScriptToEvaluateOnNewDocument', added)


def visit(browser, url, width):
  """Opens a page at a width in pixels; below 600 like a phone."""
  browser.get_log('browser')
  browser.get_log('performance')
  browser.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride',
    {
      'width': width,
      'height': 800,
      'deviceScaleFactor': 2,
      'mobile': width < 600,
    },
  )
  browser.get(url)


def messages(browser):
  """What the console says, without advice on how to draw faster.

  The tests themselves read pixels often.
  """
  return [
    entry['message']
    for entry in browser.get_log('browser')
    if entry['source'] != 'rendering'
  ]


def requested(browser):
  """Requested addresses.

  Without those that contain their own content, and those of the browser's own
  first page.
  """
  lines = [entry['message'] for entry in browser.get_log('performance')]
  assert lines
  events = [json.loads(line)['message'] for line in lines]
  return [
    event['params']['request']['url']
    for event in events
    if event['method'] == 'Network.requestWillBeSent'
    and not event['params']['request']['url'].startswith(('data:', 'chrome:'))
  ]
