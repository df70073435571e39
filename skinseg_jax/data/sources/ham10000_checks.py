"""Checks the raw files before they become a data set; decodes each once."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable

import tqdm

from skinseg_jax.data import preprocessing
from skinseg_jax.data import remedies as remedies_lib
from skinseg_jax.data.sources import ham10000_files
from skinseg_jax.runtime import errors


@dataclasses.dataclass(frozen=True)
class Verified:
  """Result of reading all raw files without a problem.

  Attributes:
    content_digest: SHA-256, in hex, over id, SHA-256 of image and mask, and
      metadata row, in id order.
    grey_masks: Ids of masks that are binary only through a threshold.
  """

  content_digest: str
  grey_masks: list[str]


def verify(
  raw: ham10000_files.RawFiles,
  *,
  mask_threshold: int,
  remedies: remedies_lib.Remedies = remedies_lib.CONFIG,
) -> Verified:
  """Reads and decodes every image and mask, in parallel.

  Args:
    raw: What `ham10000_files.list_files` found, problems included.
    mask_threshold: As in `preprocessing.decode_mask`; 0 is strict.
    remedies: What the user types to change how masks are read.

  Raises:
    InputError: Listing everything that is wrong: what `raw` knew already,
      files that do not decode, masks that are not binary or not of their
      image's size.
  """
  ids = sorted(raw.images.keys() | raw.masks.keys())
  check = lambda image_id: _check(
    raw.images.get(image_id), raw.masks.get(image_id), mask_threshold, remedies
  )
  pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
  try:
    bar = tqdm.tqdm(
      pool.map(check, ids), 'checking', len(ids), unit='image', disable=None
    )
    checks = list(bar)
  finally:  # Ctrl-C does not wait for the thousands that are queued.
    pool.shutdown(cancel_futures=True)
  problems = raw.unreadable + raw.problems
  for found in checks:
    problems += found.problems
  if problems:
    raise errors.InputError(
      f'the raw files do not fit; problems: {len(problems)}\n'
      + errors.listing(problems)
    )
  return Verified(
    content_digest=ham10000_files.digest(
      [image_id, *found.digests, *raw.rows[image_id].values()]
      for image_id, found in zip(ids, checks, strict=True)
    ),
    grey_masks=[
      image_id
      for image_id, found in zip(ids, checks, strict=True)
      if found.is_grey
    ],
  )


@dataclasses.dataclass
class _Check:
  """What is found about one image and its mask."""

  # SHA-256 of the image's bytes, then of the mask's.
  digests: list[str] = dataclasses.field(default_factory=list)
  # (height, width) of each.
  sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
  is_grey: bool = False
  problems: list[str] = dataclasses.field(default_factory=list)


def _check(
  image: ham10000_files.RawFile | None,
  mask: ham10000_files.RawFile | None,
  mask_threshold: int,
  remedies: remedies_lib.Remedies,
) -> _Check:
  """Decodes an image and its mask, as far as they exist."""
  found = _Check()
  decode_mask = functools.partial(
    preprocessing.decode_mask, threshold=mask_threshold, remedies=remedies
  )
  if image:
    _decode(image, preprocessing.decode_image, found)
  if mask:
    data = _decode(mask, decode_mask, found)
    found.is_grey = bool(data and mask_threshold and not _is_strict(data))
  if mask and len(found.sizes) == 2 and found.sizes[0] != found.sizes[1]:
    image_size, mask_size = (f'{w} x {h}' for h, w in found.sizes)
    found.problems.append(
      f'{mask.name}: {mask_size} pixels, its image has {image_size}'
    )
  return found


def _decode(
  file: ham10000_files.RawFile, decode: Callable, found: _Check
) -> bytes | None:
  """Reads and decodes a file into `found`; returns its bytes if it is fine."""
  try:
    data = file.read()
    found.sizes.append(decode(data, file.name).shape[:2])
  except errors.InputError as error:
    found.problems.append(str(error))
    return None
  found.digests.append(hashlib.sha256(data).hexdigest())
  return data


def _is_strict(mask: bytes) -> bool:
  try:
    preprocessing.decode_mask(mask, '')
  except errors.InputError:
    return False
  return True
