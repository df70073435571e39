"""What every source of images offers: one interface, one kind of example."""

from typing import Protocol, TypedDict

import numpy as np


class Example(TypedDict):
  """One image at its own size.

  `image` is uint8 [height, width, 3], RGB; `mask` is uint8 [height, width]
  with 1 for lesion and 0 for skin.
  """

  image_id: str
  image: np.ndarray
  mask: np.ndarray


class Source(Protocol):
  """Images with masks, in a fixed order; safe to read from many threads.

  Attributes:
    name: Short name of the data, such as 'ham10000'.
    fingerprint: SHA-256, in hex, of everything that shapes the examples; two
      sources with the same fingerprint return the same arrays.
    image_ids: One per example, sorted, each once.
    metadata: One row per example, all with the same columns; '' where a value
      is unknown. Every row has `image_id`, `lesion_id` and `dx`.
  """

  name: str
  fingerprint: str
  image_ids: list[str]
  metadata: list[dict[str, str]]

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...
