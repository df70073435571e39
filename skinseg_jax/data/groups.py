"""Which images belong together: those of a lesion, else of a patient."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from skinseg_jax import config as config_lib
from skinseg_jax.runtime import errors


def column(metadata: Sequence[Mapping[str, str]]) -> str:
  """The column that tells which images belong together."""
  has = lambda of: any(row.get(of) for row in metadata)
  by_patient = not has('lesion_id') and has('patient_id')
  return 'patient_id' if by_patient else 'lesion_id'


def name(row: dict[str, str], of: str) -> tuple[str, str]:
  """A name for the lesion or patient; the image's where it is unknown."""
  found = row.get(of, '')
  return (found, '' if found else row['image_id'])


def check_known(
  config: config_lib.DataConfig, metadata: list[dict[str, str]]
) -> None:
  """Refuses to divide HAM10000 by lesion where no lesion is known.

  4,501 of its 10,015 images show a lesion that another one shows as well.
  """
  if config.source == 'ham10000' and not any(
    row['lesion_id'] for row in metadata
  ):
    raise errors.InputError(
      "data.split 'lesion' keeps images of one lesion together, but this copy"
      ' of HAM10000 does not say which lesion an image shows: its table has no'
      ' lesion_id. Give --config.data.split=paper or'
      ' --config.data.split=random; or put HAM10000_metadata.csv from'
      ' https://doi.org/10.7910/DVN/DBW86T ("Original File Format") into'
      ' data.raw_dir, and give that and a new folder as --config.data.data_dir.'
    )


def class_of(row: dict[str, str]) -> str:
  """The class of an image; 'unknown' where it is empty."""
  return row['dx'] or 'unknown'


def by_class(metadata: list[dict[str, str]]) -> list[list[list[str]]]:
  """Image ids of each lesion, by class."""
  lesions: dict[Any, list[str]] = collections.defaultdict(list)
  classes = collections.defaultdict(list)
  of = column(metadata)
  for row in sorted(metadata, key=lambda row: row['image_id']):
    images = lesions[name(row, of)]
    if not images:
      classes[class_of(row)].append(images)
    images.append(row['image_id'])
  return [classes[dx] for dx in sorted(classes)]
