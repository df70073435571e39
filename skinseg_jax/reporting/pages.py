"""Pages that need nothing but themselves: no network, no other file."""

import base64
import hashlib
import pathlib
from typing import Any

import jinja2

from skinseg_jax.reporting import figures

_ENVIRONMENT = jinja2.Environment(
  loader=jinja2.PackageLoader('skinseg_jax.reporting'),
  # What comes from files is text, never markup.
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
)


def percent(share: float | None, digits: int = 2) -> str:
  """A share as '90.15 %'."""
  return '–' if share is None else f'{share:.{digits}%}'.replace('%', '\xa0%')


def score(value: float | None, name: str, digits: int = 2) -> str:
  """A score in the unit it is told in.

  Args:
    value: Its value; none where there is no such value.
    name: Of the score, a key of `figures.LABELS`.
    digits: How many after the point; two more for a score without a unit.
  """
  if value is None:
    return '–'
  if name in figures.DISTANCES:
    return f'{value:.{digits}f}\xa0px'
  if name in ('mcc', 'loss'):
    return f'{value:.{digits + 2}f}'
  return percent(value, digits)


def interval(ends: dict[str, Any], name: str, digits: int = 2) -> str:
  """The interval of a score, as '88.10 to 91.20 %'."""
  low, high = ends['low'], ends['high']
  if low is None or high is None:
    return '–'
  first = score(low, name, digits).partition('\xa0')[0]
  return f'{first} to {score(high, name, digits)}'


def data_uri(data: bytes, kind: str) -> str:
  """A file's content as an address.

  Args:
    data: The content.
    kind: 'png' or 'jpeg'.
  """
  return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def write(path: pathlib.Path, template: str, **values: Any) -> None:
  """Fills a template and writes it, whole or not at all.

  Args:
    path: HTML file to write.
    template: Name of a file in `templates/`.
    **values: What the template names.
  """
  page = _ENVIRONMENT.get_template(template).render(
    labels=figures.LABELS, **values
  )
  temporary = path.with_suffix('.tmp')
  temporary.write_text(page, encoding='utf-8')
  temporary.replace(path)


def _digest(text: str) -> str:
  """By what a page's policy knows a script of its own."""
  digest = hashlib.sha256(text.encode()).digest()
  return f'sha256-{base64.b64encode(digest).decode()}'


_ENVIRONMENT.filters.update(
  percent=percent, score=score, interval=interval, digest=_digest
)
