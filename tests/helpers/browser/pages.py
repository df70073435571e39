"""What tests do on the pages: choose a picture, press keys, download, check."""

import json
import pathlib
import shutil
import sys
import time

import pytest

# CONTRIBUTING.md says how the file comes there.
_AXE = pathlib.Path(sys.prefix) / 'axe-core/package/axe.min.js'
_RUN_AXE = """
const done = arguments[0];
axe.run({resultTypes: ['violations']}).then(done, (e) => done(String(e)));
"""


def until(reached):
  """Waits for something true and returns it."""
  for _ in range(600):
    if found := reached():
      return found
    time.sleep(0.1)
  raise AssertionError('not reached within 60 seconds')


def find(browser, name):
  return browser.find_element('id', name)


def text(browser, name):
  return find(browser, name).text


def covered(browser):
  """The share of the picture that the page states, in percent."""
  return float(text(browser, 'covers').split()[3])


def wait_for_result(browser):
  """Waits for the result or for what is wrong."""
  until(
    lambda: find(browser, 'result').is_displayed() or text(browser, 'problem')
  )


def upload(browser, path):
  find(browser, 'file').send_keys(str(path))
  wait_for_result(browser)


def upload_deleted(browser, path):
  """Chooses a copy of a file again, which is no longer there."""
  copy = pathlib.Path(shutil.copy(path, path.with_name(f'copy {path.name}')))
  browser.execute_script(
    "find('file').addEventListener("
    "'change', (event) => { [window.chosen] = event.target.files; }, true)"
  )
  upload(browser, copy)
  copy.unlink()
  browser.execute_script('choose(window.chosen)')
  wait_for_result(browser)


def download_to(browser, folder):
  browser.execute_cdp_cmd(
    'Browser.setDownloadBehavior',
    {'behavior': 'allow', 'downloadPath': str(folder)},
  )


def arrived(path):
  """Waits for a download."""
  until(path.exists)
  time.sleep(0.3)
  return path


def outline_by_keyboard(browser, path):
  """Chooses a picture, sets the threshold to 0.90 and downloads the mask.

  Only keys are pressed, on a page that was just opened. What a user does in the
  system's dialog for files is left to the browser.

  Returns:
    The ids of the elements that had the focus, in order.
  """
  from selenium.webdriver import ActionChains
  from selenium.webdriver.common.keys import Keys

  reached = []
  # Not `send_keys` of an element, which gives paths to an input of files.
  press = lambda keys: ActionChains(browser).send_keys(keys).perform()

  def tab():
    press(Keys.TAB)
    element = browser.switch_to.active_element
    assert element.accessible_name
    reached.append(element.get_attribute('id'))

  browser.execute_cdp_cmd(
    'Page.setInterceptFileChooserDialog', {'enabled': True}
  )
  tab()
  press(Keys.ENTER)
  node = until(lambda: _asked_for_file(browser))
  browser.execute_cdp_cmd(
    'Page.setInterceptFileChooserDialog', {'enabled': False}
  )
  browser.execute_cdp_cmd(
    'DOM.setFileInputFiles', {'files': [str(path)], 'backendNodeId': node}
  )
  wait_for_result(browser)
  tab()
  moved = round(100 * (0.9 - float(text(browser, 'value'))))
  press(Keys.ARROW_RIGHT * moved)
  until(lambda: text(browser, 'value') == '0.90')
  for _ in range(3):
    tab()
  press(Keys.ENTER)
  until(lambda: 'was downloaded' in text(browser, 'status'))
  tab()
  press(Keys.ENTER)
  until(lambda: text(browser, 'value') != '0.90')
  return reached


def _asked_for_file(browser):
  """The input for which the browser asked for a file; None before."""
  for entry in browser.get_log('performance'):
    event = json.loads(entry['message'])['message']
    if event['method'] == 'Page.fileChooserOpened':
      return event['params']['backendNodeId']
  return None


def axe_source():
  """The script of axe-core; skips the test without it."""
  if not _AXE.exists():
    pytest.skip('axe-core is not in the virtual environment')
  return _AXE.read_text(encoding='utf-8')


def severe_findings(browser):
  """Serious and critical findings of axe-core, in light and in dark colours."""
  browser.execute_script(axe_source())
  found = []
  for scheme in ('light', 'dark'):
    media = [{'name': 'prefers-color-scheme', 'value': scheme}]
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': media})
    result = browser.execute_async_script(_RUN_AXE)
    assert isinstance(result, dict), result
    assert result['passes']
    found += [
      f'{scheme}: {finding["id"]} at {node["target"]}'
      for finding in result['violations']
      if finding['impact'] in ('serious', 'critical')
      for node in finding['nodes']
    ]
  browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})
  return found
