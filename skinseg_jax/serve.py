"""Serves a model: a page for people and an endpoint for programs.

python -m skinseg_jax.serve [--workdir DIR] [--host HOST] [--port PORT]

Open the address that it prints in a browser, or send a picture:

curl -F file=@photo.jpg http://127.0.0.1:8000/predict

The server does not store or log what it receives, and contacts no other host.
It listens to this machine only, unless --host names another address. Ctrl+C or
SIGTERM ends it when the requests in progress are done. Research software, not a
medical device.
"""

import argparse
import importlib.util
import ipaddress
import sys

from skinseg_jax import config as config_lib
from skinseg_jax.runtime import errors, flags
from skinseg_jax.serving import memory
from skinseg_jax.weights import shared_model

# Modules of the extra `serve`.
_PACKAGES = ('fastapi', 'uvicorn', 'python_multipart')


def main(argv: list[str]) -> None:
  """Parses the command line and serves until a signal.

  Raises:
    InputError: If a package is missing, the model cannot be read or the address
      cannot be used.
  """
  args = _parse(argv)
  check_packages()
  memory.limit_kept()
  workdir = shared_model.chosen(args.workdir)
  config_lib.load(workdir / 'config.json')  # Is it a run?
  # Imported after the flags are checked, because the import takes seconds.
  from skinseg_jax.inference import trained_model
  from skinseg_jax.run import review_file
  from skinseg_jax.runtime import compilation, devices
  from skinseg_jax.serving import app as app_lib
  from skinseg_jax.serving import server

  with server.bound(args.host, args.port) as listener:
    devices.use('auto')
    compilation.keep_programs()
    model = trained_model.load(workdir, 'last')
    ours = workdir == shared_model.SHIPPED
    name = 'the model of skinseg_jax' if ours else workdir.resolve().name
    app, worker = app_lib.create(
      model,
      name,
      token=args.token or '',
      calibration=review_file.of_model(workdir, model.identity()),
    )
    print('compiling', flush=True)
    worker.start()
    try:
      # The system keeps early clients until the server takes them.
      listener.listen()
      _greet(server.url(listener), listener.getsockname()[0], args.token)
      server.run(app, listener)
    finally:
      worker.close()
  print('stopped')


def check_packages() -> None:
  """Checks that the packages of the extra are installed.

  Raises:
    InputError: Naming those that are not.
  """
  lacking = [name for name in _PACKAGES if not importlib.util.find_spec(name)]
  if lacking:
    raise errors.InputError(
      f'serving needs packages that are not installed: {", ".join(lacking)};'
      ' run\n  pip install "skinseg_jax[serve]"'
    )


def _greet(url: str, address: str, token: str | None) -> None:
  print(f'serving at {url} (Ctrl+C stops)', flush=True)
  if ipaddress.ip_address(address).is_unspecified:
    print(
      "from other machines: this machine's name or address instead", flush=True
    )
  if not ipaddress.ip_address(address).is_loopback and not token:
    print(
      'warning: other machines may be able to use this server, and it has no'
      ' --token. The connection is not encrypted.',
      file=sys.stderr,
      flush=True,
    )


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = flags.parser('serve', __doc__)
  add = parser.add_argument
  flags.add_workdir(parser)
  add(
    '--host',
    default='127.0.0.1',
    help='address to listen to; 0.0.0.0 for all of this machine; default:'
    ' 127.0.0.1, which only this machine can reach',
  )
  add(
    '--port',
    type=_port,
    default=8000,
    help='port to listen to; 0 for any that is free; default: 8000',
  )
  add(
    '--token',
    type=_token,
    help='what clients must send as "Authorization: Bearer TOKEN"; other users'
    ' of this machine can read it in the list of processes',
  )
  return parser.parse_args(argv[1:])


def _port(text: str) -> int:
  if not text.isdecimal() or int(text) > 65535:
    raise argparse.ArgumentTypeError(
      f'{text} is not a port number; give 0 to 65535, such as 8000'
    )
  return int(text)


def _token(text: str) -> str:
  if not text or not text.isascii() or not text.isprintable() or ' ' in text:
    raise argparse.ArgumentTypeError(
      'the token must be letters, digits and signs of ASCII without spaces'
    )
  return text


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
