"""From cached arrays to batches on the devices, with grain.

Indices are shuffled and batched; the bytes of a batch are gathered at the end.
Every process reads its own rows of the same global batches, so the number of
processes does not change what is learned or scored.
"""

from collections.abc import Sequence

import grain
import jax
import numpy as np

from skinseg_jax.data import cache
from skinseg_jax.runtime import errors

# More threads are slower: a batch is one copy, bound by memory.
_THREADS = 2
_BUFFERED_BATCHES = 4


def select(data: cache.CachedData, image_ids: Sequence[str]) -> np.ndarray:
  """Positions of `image_ids` in the cached arrays, int64 [len(image_ids)]."""
  position = {image_id: i for i, image_id in enumerate(data.image_ids)}
  return np.array([position[image_id] for image_id in image_ids], np.int64)


def training_order(
  indices: np.ndarray, *, batch_size: int, seed: int
) -> grain.MapDataset:
  """Positions in the data by batch; element k is the batch of update k + 1."""
  return (
    grain.MapDataset.source(indices)
    .shuffle(seed)
    # Batched before it is repeated: no batch spans two epochs.
    .batch(batch_size, drop_remainder=True)
    .repeat()
  )


def training_batches(
  data: cache.CachedData,
  indices: np.ndarray,
  *,
  batch_size: int,
  seed: int,
  sharding: jax.sharding.NamedSharding,
) -> grain.IterDataset:
  """Endless batches, reshuffled each epoch, without the incomplete last one.

  Args:
    data: All images and masks.
    indices: Positions of the training images in `data`.
    batch_size: Images per batch over all devices.
    seed: Seed of the order.
    sharding: How a batch is laid out over the devices.

  Returns:
    Data set of `{'image': uint8 [B, H, W, 3], 'mask': uint8 [B, H, W]}`. The
    state of its iterator is its position in the data.

  Raises:
    InputError: If a batch is larger than the data set.
  """
  if batch_size > len(indices):
    raise errors.InputError(
      f'train.batch_size is {batch_size}, but there are only'
      f' {len(indices)} training images; allowed is 1 to {len(indices)}.'
    )
  _check_divides('train.batch_size', batch_size, sharding)
  rows = _process_rows(batch_size, sharding)
  return _to_devices(
    training_order(indices, batch_size=batch_size, seed=seed).map(
      lambda batch: _gather(data, batch[rows])
    ),
    sharding,
  )


def evaluation_batches(
  data: cache.CachedData,
  indices: np.ndarray,
  *,
  batch_size: int,
  sharding: jax.sharding.NamedSharding,
) -> grain.IterDataset:
  """Every image once, in order; the last batch is padded.

  Returns:
    As for `training_batches`, but finite, and with `valid`, bool [B], False
    for padding.

  Raises:
    InputError: If `batch_size` does not divide among the devices.
  """
  _check_divides('evaluation.batch_size', batch_size, sharding)
  rows = _process_rows(batch_size, sharding)

  def gather(batch):
    valid = np.arange(batch_size) < len(batch)
    padded = np.pad(batch, (0, batch_size - len(batch)), mode='edge')
    return {**_gather(data, padded[rows]), 'valid': valid[rows]}

  return _to_devices(
    grain.MapDataset.source(indices).batch(batch_size).map(gather), sharding
  )


def data_sharding(*, local: bool = False) -> jax.sharding.NamedSharding:
  """Batches split along their first axis over all devices (axis 'data').

  Devices are in the order of processes, so that each holds one run of rows.

  Args:
    local: Only over the devices of this process.
  """
  devices = sorted(
    jax.local_devices() if local else jax.devices(),
    key=lambda d: (d.process_index, d.id),
  )
  mesh = jax.sharding.Mesh(
    np.array(devices), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))


def _check_divides(field: str, batch_size: int, sharding) -> None:
  devices = sharding.mesh.size
  if batch_size % devices:
    raise errors.InputError(
      f'{field} is {batch_size}, but must be a multiple of the'
      f' {devices} devices, such as'
      f' {max(1, round(batch_size / devices)) * devices}.'
    )


def _process_rows(batch_size: int, sharding) -> slice:
  """The rows of a global batch that this process reads."""
  indices = sharding.addressable_devices_indices_map((batch_size,))
  bounds = [rows.indices(batch_size) for (rows,) in indices.values()]
  return slice(min(b[0] for b in bounds), max(b[1] for b in bounds))


def _gather(
  data: cache.CachedData, indices: np.ndarray
) -> dict[str, np.ndarray]:
  return {'image': data.images[indices], 'mask': data.masks[indices]}


def _to_devices(dataset: grain.MapDataset, sharding) -> grain.IterDataset:
  """Reads ahead on the host, then puts each process's rows on its devices."""

  def put(batch):
    return {
      name: jax.make_array_from_process_local_data(sharding, rows)
      for name, rows in batch.items()
    }

  options = grain.ReadOptions(
    num_threads=_THREADS, prefetch_buffer_size=_BUFFERED_BATCHES
  )
  batches = dataset.to_iter_dataset(options).map(put)
  # One batch is copied to the device while the device works on another one.
  return grain.experimental.ThreadPrefetchIterDataset(
    batches, prefetch_buffer_size=2
  )
