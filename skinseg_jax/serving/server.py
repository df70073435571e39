"""Listens, serves until a signal, and ends when the last request is done."""

import logging
import signal
import socket

import fastapi
import uvicorn

from skinseg_jax.runtime import errors

# Seconds that requests have to end after a signal.
_GRACE = 30


def bound(host: str, port: int) -> socket.socket:
  """Binds an address; clients can connect once it listens.

  Args:
    host: Name or address.
    port: 0 for any that is free.

  Raises:
    InputError: If the address is unknown or taken.
  """
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
      listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      listener.bind(address)
    except OSError:
      listener.close()
      raise
  # UnicodeError: the name has an empty part, as in 'a..b'.
  except (OSError, UnicodeError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise errors.InputError(
      f'cannot listen on --host {host!r}, --port {port}: {reason}; give'
      ' another --host or --port.'
    ) from error
  return listener


def url(listener: socket.socket) -> str:
  """Where browsers on this machine find the server."""
  host, port = listener.getsockname()[:2]
  # All addresses of this machine; not every browser can open these.
  host = {'0.0.0.0': '127.0.0.1', '::': '::1'}.get(host, host)
  return f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'


def run(app: fastapi.FastAPI, listener: socket.socket) -> None:
  """Serves until SIGINT or SIGTERM; requests in progress are finished.

  Only faults are logged: no request, no address and no name of a file.
  """
  server = uvicorn.Server(
    uvicorn.Config(
      app,
      access_log=False,
      log_level='error',
      server_header=False,
      proxy_headers=False,
      ws='none',
      lifespan='off',
      timeout_graceful_shutdown=_GRACE,
    )
  )
  # Its warnings quote bytes of the upload.
  logging.getLogger('python_multipart').setLevel(logging.ERROR)
  # uvicorn handles the signals, then sends itself the signal again for the
  # handlers that were there before. These end the program without an error.
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda signum, frame: None)
  server.run(sockets=[listener])
