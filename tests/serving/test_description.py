"""Requests made from the OpenAPI description get the answers it promises."""

import io

import fake_model
import hypothesis
import pytest
from fake_images import random_image
from hypothesis import strategies
from PIL import Image

schemathesis = pytest.importorskip('schemathesis')
pytest.importorskip('fastapi')

from skinseg_jax.serving import app as app_lib  # noqa: E402
from skinseg_jax.serving import uploads  # noqa: E402

_SIDES = strategies.integers(1, 40)


def _file(kind, height, width):
  file = io.BytesIO()
  Image.fromarray(random_image(height, width)).save(file, kind)
  return file.getvalue()


# A valid request holds a picture. Others, with random bytes, are made as well.
for media_type in uploads.TYPES:
  kind = media_type.partition('/')[2].upper()
  schemathesis.openapi.media_type(
    media_type, strategies.builds(_file, strategies.just(kind), _SIDES, _SIDES)
  )


@pytest.fixture(scope='module', params=['', 'right'], ids=['open', 'token'])
def description(request, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    model = fake_model.make(patch, tmp_path_factory.mktemp('data'))
    app, worker = app_lib.create(model, 'tiny', token=request.param)
    worker.start()
    try:
      yield schemathesis.openapi.from_asgi('/openapi.json', app)
    finally:
      worker.close()


@pytest.mark.parametrize(
  ('path', 'method', 'mode'),
  [
    ('/predict', 'POST', 'POSITIVE'),
    ('/predict', 'POST', 'NEGATIVE'),
    ('/healthz', 'GET', 'POSITIVE'),
    ('/metrics', 'GET', 'POSITIVE'),
  ],
)
def test_answers_are_as_described(description, path, method, mode):
  requests = description[path][method].as_strategy(
    generation_mode=schemathesis.GenerationMode[mode]
  )

  @hypothesis.settings(
    max_examples=25, deadline=None, derandomize=True, database=None
  )
  @hypothesis.given(requests)
  def send(case):
    case.call_and_validate()

  send()
