"""The web application: its routes and what every response carries."""

import asyncio
import hmac
import os
import time
from collections.abc import Callable
from typing import Annotated, Any

import anyio
import fastapi
from fastapi import exceptions, responses, security
from starlette import requests, types

from skinseg_jax.data import preprocessing
from skinseg_jax.inference import predictor, trained_model
from skinseg_jax.quality import expected_dice
from skinseg_jax.serving import (
  answers,
  counters,
  limits,
  page,
  refusals,
  uploads,
  worker,
)
from skinseg_jax.viewer import shared_page

_PATHS = ('/', '/predict', '/healthz', '/metrics', '/openapi.json')
# https://owasp.org/www-project-secure-headers/. The page has its own policy.
_HEADERS = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
}
_DESCRIPTION = f"""{shared_page.NOTICE}

Nothing that is sent is stored or logged. EXIF orientation is applied."""
_ABOUT_FILE = f'{uploads.FORMATS} file'
# The route reads its body itself, so its form is described here.
_FORM = {
  'required': True,
  'content': {
    'multipart/form-data': {
      'schema': {
        'type': 'object',
        'required': [uploads.FIELD],
        'additionalProperties': False,
        'properties': {
          uploads.FIELD: {
            'type': 'string',
            'format': 'binary',
            'description': _ABOUT_FILE,
          }
        },
      },
      'encoding': {uploads.FIELD: {'contentType': ', '.join(uploads.TYPES)}},
    }
  },
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
  code: {'model': answers.Problem, 'description': about}
  for code, about in {
    400: 'the form is not valid, or was cut',
    408: 'the upload took too long',
    413: 'too many bytes or pixels',
    415: f'no form, or no {_ABOUT_FILE}',
    422: 'no picture in the form, or a damaged one',
    503: 'too many requests at once; try again after Retry-After seconds',
  }.items()
}
_TEXT: dict[str, Any] = {
  'content': {'text/plain': {'schema': {'type': 'string'}}}
}
_REFUSED_TOKEN: dict[int | str, dict[str, Any]] = {
  401: {'model': answers.Problem, 'description': 'no token, or a wrong one'}
}


def create(
  model: trained_model.TrainedModel,
  name: str,
  *,
  token: str = '',
  bounds: limits.Limits | None = None,
  calibration: expected_dice.Calibration | None = None,
) -> tuple[fastapi.FastAPI, worker.Worker]:
  """Makes the application and the worker that it needs.

  Start the worker before the first request and close it after the last.

  Args:
    model: What predicts.
    name: What responses call it.
    token: What clients must send; '' for nothing.
    bounds: How much is taken on at once.
    calibration: What is known of the Dice of this model's masks, or None.
  """
  counts = counters.Counters()
  service = _Service(
    model, name, bounds or limits.Limits(), counts, calibration
  )
  app = fastapi.FastAPI(
    title='skinseg_jax',
    summary='Outlines skin lesions in dermoscopic pictures.',
    description=_DESCRIPTION,
    # The pages of FastAPI load scripts from other hosts.
    docs_url=None,
    redoc_url=None,
  )
  app.add_middleware(_Headers, counts=counts)
  app.add_exception_handler(refusals.RefusedError, _refused)
  app.add_exception_handler(exceptions.RequestValidationError, _invalid)
  app.add_exception_handler(requests.ClientDisconnect, _gone)
  app.add_exception_handler(Exception, _failed)
  guard = [fastapi.Depends(_guard(token))] if token else []
  closed = _REFUSED_TOKEN if token else {}
  app.post(
    '/predict',
    response_model=answers.Answer,
    responses=_REFUSALS | closed,
    dependencies=guard,
    openapi_extra={'requestBody': _FORM},
  )(service.predict)
  app.get('/healthz', response_model=answers.Health)(service.healthz)
  app.get(
    '/metrics',
    # A class with a media type would describe refusals by it as well.
    response_class=fastapi.Response,
    responses={200: _TEXT, **closed},
    dependencies=guard,
  )(service.metrics)
  html, policy = page.render(service.bounds, token=bool(token))
  shown = lambda: responses.HTMLResponse(
    html, headers={'Content-Security-Policy': policy}
  )
  app.get('/', include_in_schema=False)(shown)
  return app, service.worker


class _Service:
  """The routes."""

  def __init__(
    self,
    model: trained_model.TrainedModel,
    name: str,
    bounds: limits.Limits,
    counts: counters.Counters,
    calibration: expected_dice.Calibration | None,
  ):
    self.bounds = bounds
    self.worker = worker.Worker(model, counts.batch)
    self._about = answers.describe(model, name)
    self._size = model.config.data.image_size
    self._threshold = model.config.evaluation.threshold
    self._calibration = calibration
    self._counts = counts
    self._admission = limits.Admission(bounds)
    # More threads than cores would not decode faster, but fill the memory.
    self._threads = anyio.CapacityLimiter(os.cpu_count() or 1)

  async def predict(
    self,
    request: fastapi.Request,
    probability: Annotated[
      bool, fastapi.Query(description='also send the probability')
    ] = False,
  ) -> fastapi.Response:
    """Outlines the lesion in a picture and measures it."""
    start = time.perf_counter()
    with self._admission.request():
      data = await uploads.read(request, self.bounds)
      pixels = await self._in_thread(uploads.check, data, self.bounds)
      async with self._admission.pixels(pixels):
        if await request.is_disconnected():
          raise requests.ClientDisconnect
        image, small = await self._in_thread(self._decoded, data)
        del data
        found = await asyncio.wrap_future(self.worker.submit(small))
        json = await self._in_thread(self._answer, image, found, probability)
    self._counts.answered(time.perf_counter() - start)
    return fastapi.Response(json, media_type='application/json')

  async def healthz(self) -> answers.Health:
    """Answers as soon as the server can predict."""
    return answers.Health(status='ok', model=self._about)

  async def metrics(self) -> fastapi.Response:
    """Counts since the start, in the text format of Prometheus."""
    text = self._counts.text(self._admission.pending, self.bounds.requests)
    return fastapi.Response(text, media_type=counters.MEDIA_TYPE)

  async def _in_thread(self, function: Callable, *arguments) -> Any:
    return await anyio.to_thread.run_sync(
      function, *arguments, limiter=self._threads
    )

  def _decoded(self, data: bytes):
    """The picture, and what the model sees of it."""
    image = uploads.decode(data)
    return image, preprocessing.resize_image(image, self._size)

  def _answer(self, image, found, probability: bool) -> bytes:
    return answers.answer(
      predictor.at_own_size(image, found, self._threshold, self._calibration),
      threshold=self._threshold,
      model=self._about,
      probability=probability,
    )


def _guard(token: str) -> Callable:
  """Compares the token that a client sends."""
  scheme = security.HTTPBearer(auto_error=False)
  expected = token.encode()

  def check(
    given: Annotated[
      security.HTTPAuthorizationCredentials | None, fastapi.Depends(scheme)
    ],
  ) -> None:
    sent = given.credentials.encode() if given else b''
    if not hmac.compare_digest(sent, expected):
      raise refusals.RefusedError(
        401,
        'this server needs its token: send the header "Authorization: Bearer'
        ' TOKEN"',
        {'WWW-Authenticate': 'Bearer'},
      )

  return check


class _Headers:
  """Adds the headers to every response and counts it."""

  def __init__(self, app: types.ASGIApp, counts: counters.Counters):
    self._app = app
    self._counts = counts

  async def __call__(
    self, scope: types.Scope, receive: types.Receive, send: types.Send
  ) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    path = scope['path'] if scope['path'] in _PATHS else 'other'

    async def sending(message: types.Message) -> None:
      if message['type'] == 'http.response.start':
        self._counts.request(path, message['status'])
        there = {name for name, _ in message['headers']}
        message['headers'] = [
          *message['headers'],
          *(
            (name.lower().encode(), value.encode())
            for name, value in _HEADERS.items()
            if name.lower().encode() not in there
          ),
        ]
      await send(message)

    await self._app(scope, receive, sending)


def _problem(
  status: int, detail: str, headers: dict[str, str] | None = None
) -> fastapi.Response:
  return responses.JSONResponse({'detail': detail}, status, headers)


async def _refused(request: fastapi.Request, error: Any) -> fastapi.Response:
  del request
  return _problem(error.status, error.detail, error.headers)


async def _invalid(request: fastapi.Request, error: Any) -> fastapi.Response:
  del request
  wrong = [f'{item["loc"][-1]}: {item["msg"]}' for item in error.errors()]
  return _problem(422, '; '.join(wrong))


async def _gone(request: fastapi.Request, error: Any) -> fastapi.Response:
  """The client went away: nobody reads this, but it is counted."""
  del request, error
  return _problem(400, 'the client closed the connection')


async def _failed(request: fastapi.Request, error: Any) -> fastapi.Response:
  """A fault of ours; the server prints where it was, not what was sent."""
  del request, error
  return _problem(500, 'the server failed; its log says where', _HEADERS)
