"""Which images belong together: those of a lesion, else of a patient."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from skinseg_jax import config as config_lib
from skinseg_jax.runtime import errors


class Name(NamedTuple):
  """Name of a group of images: one of the three, the others are ''.

  `image` is the name where neither lesion nor patient is known.
  """

  patient: str = ''
  lesion: str = ''
  image: str = ''


def column(metadata: Sequence[Mapping[str, str]]) -> str:
  """The column that tells which images belong together.

  It is 'patient_id' where an image has one but no 'lesion_id': an image of the
  same patient may show the same lesion.
  """
  by_patient = any(
    row.get('patient_id') and not row.get('lesion_id') for row in metadata
  )
  return 'patient_id' if by_patient else 'lesion_id'


def names(metadata: Sequence[Mapping[str, str]]) -> list[Name]:
  """The group of each row: images of one name belong together.

  By patient (see `column`), images without a patient belong to the patient of
  their lesion where another row tells it, else to their lesion.
  """
  patients: dict[str, str] = {}  # By lesion.
  by_patient = column(metadata) == 'patient_id'
  if by_patient:
    for row in metadata:
      lesion, patient = row.get('lesion_id'), row.get('patient_id')
      if lesion and patient:  # The least, so that order does not matter.
        patients[lesion] = min(patient, patients.get(lesion, patient))
  found = []
  for row in metadata:
    lesion = row.get('lesion_id', '')
    known = row.get('patient_id', '') if by_patient else ''
    if patient := known or patients.get(lesion, ''):
      found.append(Name(patient=patient))
    elif lesion:
      found.append(Name(lesion=lesion))
    else:
      found.append(Name(image=row['image_id']))
  return found


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
  """Image ids of each lesion, or group of `names`, by class."""
  lesions: dict[Any, list[str]] = collections.defaultdict(list)
  classes = collections.defaultdict(list)
  rows = sorted(metadata, key=lambda row: row['image_id'])
  for row, name in zip(rows, names(rows), strict=True):
    images = lesions[name]
    if not images:
      classes[class_of(row)].append(images)
    images.append(row['image_id'])
  return [classes[dx] for dx in sorted(classes)]
