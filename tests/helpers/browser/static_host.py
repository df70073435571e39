"""A web host for a folder, as plain as one can be."""

import contextlib
import functools
import http.server
import threading


class _Handler(http.server.SimpleHTTPRequestHandler):
  def log_message(self, format, *args):
    pass


@contextlib.contextmanager
def hosted(folder, port=0):
  """Serves a folder on this machine; gives its address. 0: any free port."""
  handler = functools.partial(_Handler, directory=folder)
  with http.server.ThreadingHTTPServer(('127.0.0.1', port), handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      yield f'http://127.0.0.1:{server.server_port}/'
    finally:
      server.shutdown()
      thread.join()
