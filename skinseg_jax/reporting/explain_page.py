"""Writes the sheets of `explain`, and the page that shows them."""

import collections
import io
import os
import pathlib
import urllib.parse
from typing import Any

import numpy as np
from PIL import Image

from skinseg_jax.explanation import explainer
from skinseg_jax.inference import trained_model
from skinseg_jax.reporting import explain_sheet, figures, pages

# Sheets on the page; those of other pictures are files only.
_SHOWN = 50
# Width of a sheet on the page, in pixels.
_WIDTH = 1400


class Page:
  """The sheets of a folder, and what its page says of them."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._sheets: list[dict[str, str]] = []
    self._count = 0
    self._correlations: dict[tuple[str, str], list[float | None]] = (
      collections.defaultdict(list)
    )

  def add(self, name: str, found: explainer.Explanation) -> None:
    """Writes the sheet of a picture.

    Args:
      name: Path of the sheet below the folder, without extension.
      found: The explanation.
    """
    # Names of files need not be UTF-8.
    shown = name.encode('utf-8', 'replace').decode()
    png = figures.to_png(explain_sheet.draw(found, shown))
    path = self._folder / f'{name}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_bytes(png)
    temporary.replace(path)
    self._count += 1
    if len(self._sheets) < _SHOWN:
      link = urllib.parse.quote(os.fsencode(f'{name}.png'))
      self._sheets.append({'name': shown, 'link': link, 'picture': _small(png)})
    for one in found.maps:
      self._correlations[one.kind, one.name].append(one.correlation)

  def write(
    self,
    name: str,
    explain: explainer.Explainer,
    model: trained_model.TrainedModel,
    folder: str,
    skipped: int,
  ) -> None:
    """Writes the page, which needs no other file and no network.

    Args:
      name: Of the page.
      explain: What made the explanations.
      model: The network.
      folder: Name of the model's folder.
      skipped: Number of files that could not be read.
    """
    self._folder.mkdir(parents=True, exist_ok=True)
    network = model.config.model
    pages.write(
      self._folder / name,
      'explain.html',
      folder=folder,
      step=model.step,
      network=' on '.join(
        filter(None, [network.architecture, network.encoder])
      ),
      size=model.config.data.image_size,
      views=model.config.evaluation.test_time_augmentation,
      count=self._count,
      skipped=skipped,
      sheets=self._sheets,
      explain=explain,
      checks=[
        _check(kind, level, values)
        for (kind, level), values in self._correlations.items()
      ],
    )


def _check(kind: str, name: str, values: list[float | None]) -> dict[str, Any]:
  """A row of the sanity check."""
  known = [value for value in values if value is not None]
  mean, low, high = (
    f'{round(float(function(known)), 2) + 0.0:.2f}' if known else '–'
    for function in (np.mean, np.min, np.max)
  )
  return {
    'kind': kind, 'name': name, 'mean': mean, 'low': low, 'high': high,
    'known': len(known), 'count': len(values),
  }  # fmt: skip


def _small(png: bytes) -> str:
  """A sheet of the page's width as data URI."""
  with Image.open(io.BytesIO(png)) as sheet:
    height = round(sheet.height * _WIDTH / sheet.width)
    small = sheet.convert('RGB').resize((_WIDTH, height))
  buffer = io.BytesIO()
  small.save(buffer, 'jpeg', quality=85, optimize=True)
  return pages.data_uri(buffer.getvalue(), 'jpeg')
