"""The server through its routes: answers, refusals and what pages may load."""

import base64
import concurrent.futures
import contextlib
import io
import re
import struct
import threading
import time
import zlib
from unittest import mock

import fake_model
import numpy as np
import pytest
from fake_images import random_image
from PIL import Image

testclient = pytest.importorskip('fastapi.testclient')

import skinseg_jax  # noqa: E402
from skinseg_jax.inference import predictor, trained_model  # noqa: E402
from skinseg_jax.measures import lesion  # noqa: E402
from skinseg_jax.quality import expected_dice, signs  # noqa: E402
from skinseg_jax.serving import app as app_lib  # noqa: E402
from skinseg_jax.serving import limits  # noqa: E402

_FORM = {'Content-Type': 'multipart/form-data; boundary=b'}


@contextlib.contextmanager
def _served(model, **options):
  app, worker = app_lib.create(model, 'tiny', **options)
  worker.start()
  try:
    with testclient.TestClient(app) as client:
      client.worker = worker
      yield client
  finally:
    worker.close()


@pytest.fixture(scope='module')
def dark(tmp_path_factory):
  """A model that takes dark pixels for lesion."""
  with pytest.MonkeyPatch.context() as patch:
    yield fake_model.make(patch, tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def client(dark):
  with _served(dark) as client:
    yield client


def _file(pixels, kind='PNG', **options):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind, **options)
  return file.getvalue()


def _send(client, data, name='x.png', query='', **options):
  return client.post(
    f'/predict{query}', files={'file': (name, data)}, **options
  )


def _pixels(text):
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def _png_header(width, height, rest=b''):
  """The start of a file, up to where its pixels should be."""
  chunk = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  idat = struct.pack('>I', 1 << 20) + b'IDAT'
  crc = struct.pack('>I', zlib.crc32(chunk))
  return (
    b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + chunk + crc + idat + rest
  )


def _empty_chunks(count):
  """A PNG with as many chunks of nothing before its pixels."""
  png = _file(random_image(8, 8))
  name = b'prVt'  # Private: decoders skip it.
  chunk = bytes(4) + name + struct.pack('>I', zlib.crc32(name))
  return png[:33] + count * chunk + png[33:]


def test_the_answer_is_the_prediction(tiny_run):
  image = random_image(41, 57)
  expected = skinseg_jax.load(tiny_run[0]).predict(image)
  model = trained_model.load(tiny_run[0], 'last')
  with _served(model) as client:
    got = _send(client, _file(image), query='?probability=true').json()
    health = client.get('/healthz').json()
    many = [random_image(30 + i, 44, seed=i) for i in range(20)]
    one_by_one = [predictor.Predictor(model).predict(i) for i in many]
    send = lambda i: _send(client, _file(i), query='?probability=1').json()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
      together = list(pool.map(send, many))
    text = client.get('/metrics').text
  assert (got['height'], got['width']) == (41, 57)
  assert got['threshold'] == model.config.evaluation.threshold
  np.testing.assert_array_equal(_pixels(got['mask']) == 255, expected.mask)
  rounded = np.rint(expected.probability * 255)
  np.testing.assert_array_equal(_pixels(got['probability']), rounded)
  columns = lesion.columns(lesion.measure(image, expected.mask))
  for name, value in got['measures'].items():
    assert ('' if value is None else value) == pytest.approx(columns[name])
  assert got['model'] == health['model']
  assert got['model']['digest'] == model.fingerprint()
  assert 'not a medical device' in got['notice']
  for answer, alone in zip(together, one_by_one, strict=True):
    sure = np.abs(alone.probability - got['threshold']) > 1e-5
    mask = _pixels(answer['mask']) == 255
    np.testing.assert_array_equal(mask[sure], alone.mask[sure])
    level = _pixels(answer['probability'])
    np.testing.assert_allclose(level / 255, alone.probability, atol=0.0021)
  assert 'skinseg_pictures_total 21\n' in text
  assert 'skinseg_requests_total{path="/predict",code="200"} 21\n' in text
  assert 'skinseg_predict_seconds_count 21\n' in text


class _Held:
  """Predictions that wait until they are set free."""

  def __init__(self, monkeypatch):
    self.free = threading.Event()
    self.sizes = []
    self._whole = predictor.answers
    monkeypatch.setattr(predictor, 'answers', self._hold)

  def _hold(self, model, images, size):
    self.sizes.append((len(images), size))
    assert self.free.wait(60)
    return self._whole(model, images, size)


def _wait_for(reached):
  for _ in range(600):
    if reached():
      return
    time.sleep(0.1)
  raise AssertionError('not reached within a minute')


def test_the_answer_says_what_a_person_should_look_at(dark):
  dark_left = np.full((40, 60, 3), 200, np.uint8)
  dark_left[:, :20] = 60
  disc = np.full((64, 64, 3), 200, np.uint8)
  rows, columns = np.mgrid[:64, :64]
  disc[(rows - 32) ** 2 + (columns - 32) ** 2 < 200] = 60
  table = [dict.fromkeys(signs.NAMES, 0.01 * i) for i in range(60)]
  features = np.zeros((60, 1))
  calibration = expected_dice.fit(table, [0.9] * 60, features, dark.step)
  with _served(dark) as client:
    plain = _send(client, _file(dark_left)).json()
    quiet = _send(client, _file(disc)).json()
  with _served(dark, calibration=calibration) as client:
    told = _send(client, _file(dark_left)).json()
  assert plain['needs_review'] is True
  assert 'lesion touches the border' in plain['reasons']
  assert plain['expected_dice'] is None
  assert 'lesion touches the border' not in quiet['reasons']
  assert quiet['needs_review'] == bool(quiet['reasons'])
  # Each known image had a Dice of 0.9, so any image has.
  assert told['expected_dice'] == pytest.approx(0.9)
  assert set(told['reasons']) >= {
    'lesion touches the border', 'unlike the training images'
  }  # fmt: skip


def test_requests_that_wait_share_a_batch(dark, monkeypatch):
  data = _file(random_image(32, 32))
  with (
    _served(dark) as client,
    concurrent.futures.ThreadPoolExecutor(6) as pool,
  ):
    held = _Held(monkeypatch)
    sent = [pool.submit(_send, client, data)]
    _wait_for(lambda: held.sizes)
    sent += [pool.submit(_send, client, data) for _ in range(5)]
    _wait_for(lambda: client.worker.waiting == 5)
    held.free.set()
    assert {s.result().status_code for s in sent} == {200}
  assert held.sizes == [(1, 1), (5, 8)]


def test_orientation_is_applied_and_metadata_dropped(client):
  pixels = np.full((20, 30, 3), 250, np.uint8)
  pixels[:, :10] = 10  # Dark on the left.
  exif = Image.Exif()
  exif[0x0112] = 6  # Turn clockwise for viewing: left goes to the top.
  exif[0x010E] = 'PRIVATE'
  data = _file(pixels, 'JPEG', exif=exif, quality=95)
  assert b'PRIVATE' in data
  got = _send(client, data).json()
  assert (got['height'], got['width']) == (30, 20)
  mask = _pixels(got['mask'])
  assert mask[:5].all()
  assert not mask[15:].any()
  assert b'PRIVATE' not in base64.b64decode(got['mask'])
  assert got['probability'] is None


@pytest.mark.parametrize(
  ('data', 'status', 'about'),
  [
    (b'no picture, but text', 415, 'not a JPEG, PNG or WebP picture'),
    (b'', 415, 'not a JPEG, PNG or WebP picture'),
    (_file(random_image(40, 40), 'JPEG')[:-400], 422, 'truncated'),
    (_file(random_image(40, 40))[:-400], 422, 'cannot be decoded'),
    (
      _file(random_image(40, 40), 'BMP'),
      415,
      'not a JPEG, PNG or WebP picture',
    ),
    (_empty_chunks(20_000), 422, 'the picture: too many parts'),
    (
      _png_header(20_000, 10_000),
      413,
      'too many pixels; at most 25 megapixels',
    ),
    (_png_header(6_000, 5_000), 413, '30.0 megapixels; at most 25 megapixels'),
    # EXIF in a PNG may lie behind its pixels, which must not be decoded.
    (
      _png_header(6_000, 5_000, b'eXIf'),
      413,
      '30.0 megapixels; at most 25 megapixels',
    ),
  ],
)
def test_what_is_no_picture_is_refused(client, data, status, about):
  got = _send(client, data, 'secret_name.jpg')
  assert got.status_code == status
  assert about in got.json()['detail']
  assert 'secret_name' not in got.text


def test_forms_without_a_picture_are_refused(client):
  post = lambda **form: client.post('/predict', **form)
  png = _file(random_image(8, 8))
  for status, got in (
    (415, post(content=png)),
    (415, post(json={'file': 'x'})),
    (422, post(files={'image': png})),
    (400, post(data={'file': 'text'}, files={'x': png})),
    (400, post(files=[('file', png), ('file', png)])),
    (400, post(content=b'x', headers={'Content-Type': 'multipart/form-data'})),
    (400, post(content=b'', headers=_FORM)),
    (422, _send(client, png, query='?probability=maybe')),
  ):
    assert got.status_code == status, got.text
    assert isinstance(got.json()['detail'], str)


def test_an_upload_that_was_cut_is_told_so(client):
  head = 'Content-Disposition: form-data; name="file"; filename="x"'
  form = f'--b\r\n{head}\r\n\r\n'.encode() + _file(random_image(8, 8))
  send = lambda content: client.post('/predict', content=content, headers=_FORM)
  assert send(form + b'\r\n--b--\r\n').status_code == 200
  for cut in (form, form[:-20], form[:30], form + b'\r\n--b'):
    got = send(cut)
    assert got.status_code == 400
    assert 'ends before its last boundary' in got.json()['detail']


def test_large_uploads_are_refused_with_and_without_a_length(dark):
  few = limits.Limits(upload_bytes=100_000)
  with _served(dark, bounds=few) as client:
    data = b'\xff\xd8\xff' + bytes(300_000)
    declared = _send(client, data)
    head = 'Content-Disposition: form-data; name="file"; filename="x"'
    start = f'--b\r\n{head}\r\n\r\n'.encode()
    undeclared = client.post(
      '/predict',
      content=iter([start, *[bytes(10_000)] * 30, b'\r\n--b--\r\n']),
      headers=_FORM,
    )
  for got in (declared, undeclared):
    assert got.status_code == 413
    assert 'MiB' in got.json()['detail']


def test_no_upload_reaches_a_disk(client, monkeypatch):
  """More than Starlette keeps in memory by itself."""
  import tempfile

  def rolled(self):
    raise AssertionError('an upload was written to a disk')

  monkeypatch.setattr(tempfile.SpooledTemporaryFile, 'rollover', rolled)
  data = _file(random_image(900, 900))
  assert len(data) > 2**21
  assert _send(client, data).status_code == 200


def test_the_token_is_needed_where_there_is_one(dark):
  png = _file(random_image(8, 8))
  with _served(dark, token='right') as client:
    for headers in (
      {},
      {'Authorization': 'Bearer wrong'},
      {'Authorization': 'Bearer right '[:-2]},
      {'Authorization': 'Basic right'},
    ):
      got = _send(client, png, headers=headers)
      assert got.status_code == 401
      assert got.headers['www-authenticate'] == 'Bearer'
      assert client.get('/metrics', headers=headers).status_code == 401
    right = {'Authorization': 'Bearer right'}
    assert _send(client, png, headers=right).status_code == 200
    assert client.get('/metrics', headers=right).status_code == 200
    assert client.get('/healthz').status_code == 200
    assert 'id="token"' in client.get('/').text


def test_requests_above_the_limit_are_told_to_come_back(dark, monkeypatch):
  two = limits.Limits(requests=2)
  png = _file(random_image(8, 8))
  with (
    _served(dark, bounds=two) as client,
    concurrent.futures.ThreadPoolExecutor(2) as pool,
  ):
    held = _Held(monkeypatch)
    sent = [pool.submit(_send, client, png) for _ in range(2)]
    _wait_for(lambda: 'skinseg_pending 2\n' in client.get('/metrics').text)
    full = _send(client, png)
    held.free.set()
    assert {s.result().status_code for s in sent} == {200}
    after = _send(client, png)
  assert full.status_code == 503
  assert int(full.headers['retry-after']) > 0
  assert 'busy' in full.json()['detail']
  assert after.status_code == 200


def test_large_pictures_wait_for_each_other(dark):
  """Three of 1,600 pixels, of which one fits at a time."""
  one = limits.Limits(pixels=2_000, pixels_at_once=2_000)
  png = _file(random_image(40, 40))
  with (
    _served(dark, bounds=one) as client,
    concurrent.futures.ThreadPoolExecutor(3) as pool,
  ):
    sent = [pool.submit(_send, client, png) for _ in range(3)]
    assert {s.result().status_code for s in sent} == {200}


def test_a_fault_of_the_model_fails_its_requests_only(dark, monkeypatch):
  png = _file(random_image(8, 8))
  with _served(dark) as client:
    with monkeypatch.context() as broken:
      fault = mock.Mock(side_effect=RuntimeError('a secret'))
      broken.setattr(predictor, 'answers', fault)
      with pytest.raises(RuntimeError):  # For the log of the server.
        _send(client, png)
      quiet = testclient.TestClient(client.app, raise_server_exceptions=False)
      failed = _send(quiet, png)
    after = _send(client, png)
  assert failed.status_code == 500
  assert 'secret' not in failed.text
  assert failed.headers['x-content-type-options'] == 'nosniff'
  assert after.status_code == 200


def test_the_page_loads_nothing_and_says_what_it_is(client):
  got = client.get('/')
  assert not re.search(r'(https?:)?//[a-z0-9]', got.text)
  assert not re.search(
    r'<(script|link|img|iframe)[^>]*\b(src|href)="(?!data:)', got.text
  )
  assert 'not a medical device' in got.text
  policy = got.headers['content-security-policy']
  assert "default-src 'none'" in policy
  assert 'unsafe' not in policy
  for path in ('/docs', '/redoc', '/nothing'):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize('path', ['/', '/healthz', '/openapi.json', '/nothing'])
def test_every_response_has_the_headers(client, path):
  headers = client.get(path).headers
  assert headers['x-content-type-options'] == 'nosniff'
  assert headers['cache-control'] == 'no-store'
  assert headers['referrer-policy'] == 'no-referrer'
  assert "frame-ancestors 'none'" in headers['content-security-policy']


def test_the_description_has_the_form_and_the_refusals(client):
  about = client.get('/openapi.json').json()
  assert set(about['paths']) == {'/predict', '/healthz', '/metrics'}
  predict = about['paths']['/predict']['post']
  form = predict['requestBody']['content']['multipart/form-data']['schema']
  assert form['properties']['file']['format'] == 'binary'
  assert set(predict['responses']) == {
    '200', '400', '408', '413', '415', '422', '503'
  }  # fmt: skip
