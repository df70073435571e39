"""A web host for a folder, as plain as one can be."""

import contextlib
import functools
import http.server
import threading


class _Handler(http.server.SimpleHTTPRequestHandler):
  def __init__(self, *arguments, asked, **options):
    self._asked = asked
    super().__init__(*arguments, **options)

  def do_GET(self):
    self._asked(self.path)
    super().do_GET()

  def log_message(self, format, *args):
    pass


@contextlib.contextmanager
def hosted(folder, port=0, *, asked=lambda path: None):
  """Serves a folder on this machine; gives its address.

  Args:
    folder: Where the files are.
    port: 0 for any that is free.
    asked: Called with the path of each request, in a thread of its own, before
      the request is answered.
  """
  handler = functools.partial(_Handler, directory=folder, asked=asked)
  with http.server.ThreadingHTTPServer(('127.0.0.1', port), handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      yield f'http://127.0.0.1:{server.server_port}/'
    finally:
      server.shutdown()
      thread.join()
