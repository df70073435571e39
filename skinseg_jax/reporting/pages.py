"""Self-contained HTML pages that need no network and no other file."""

import base64
import hashlib
import pathlib
from typing import Any

import jinja2

from skinseg_jax.reporting import figures

_ENVIRONMENT = jinja2.Environment(
  loader=jinja2.PackageLoader('skinseg_jax.reporting'),
  # Text from files must never be interpreted as markup.
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
)


def percent(share: float | None, digits: int = 2) -> str:
  """Formats a share as '90.15 %'; '–' for None."""
  return '–' if share is None else f'{share:.{digits}%}'.replace('%', '\xa0%')


def score(value: float | None, name: str, digits: int = 2) -> str:
  """Formats a score in its unit: percent, pixels or none.

  Args:
    value: The score; None is shown as '–'.
    name: Name of the score, a key of `figures.LABELS`.
    digits: Number of decimals; scores without a unit get two more.
  """
  if value is None:
    return '–'
  if name in figures.DISTANCES:
    return f'{value:.{digits}f}\xa0px'
  if name in ('mcc', 'loss'):
    return f'{value:.{digits + 2}f}'
  return percent(value, digits)


def interval(ends: dict[str, Any], name: str, digits: int = 2) -> str:
  """Formats the interval of a score as '88.10 to 91.20 %'."""
  low, high = ends['low'], ends['high']
  if low is None or high is None:
    return '–'
  first = score(low, name, digits).partition('\xa0')[0]
  return f'{first} to {score(high, name, digits)}'


def data_uri(data: bytes, kind: str) -> str:
  """Encodes an image file as a data URI.

  Args:
    data: Content of the file.
    kind: 'png' or 'jpeg'.
  """
  return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def write(path: pathlib.Path, template: str, **values: Any) -> None:
  """Renders a template and writes the page atomically.

  Args:
    path: HTML file to write.
    template: Name of a file in `templates/`.
    **values: Variables of the template.
  """
  page = _ENVIRONMENT.get_template(template).render(
    labels=figures.LABELS, **values
  )
  temporary = path.with_suffix('.tmp')
  # Names of files need not be UTF-8; '?' stands for what is not.
  temporary.write_text(page, encoding='utf-8', errors='replace')
  temporary.replace(path)


def _digest(text: str) -> str:
  """Hash that allows an inline script in the Content-Security-Policy."""
  digest = hashlib.sha256(text.encode()).digest()
  return f'sha256-{base64.b64encode(digest).decode()}'


_ENVIRONMENT.filters.update(
  percent=percent, score=score, interval=interval, digest=_digest
)
