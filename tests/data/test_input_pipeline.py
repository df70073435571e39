import types

import jax
import numpy as np
import pytest

from skinseg_jax.data import input_pipeline
from skinseg_jax.runtime import errors


@pytest.fixture(scope='module')
def data():
  """Eleven 2x2 images that hold their own number."""
  numbers = np.arange(11, dtype=np.uint8)
  images = np.broadcast_to(numbers[:, None, None, None], (11, 2, 2, 3))
  return types.SimpleNamespace(
    images=np.ascontiguousarray(images),
    masks=np.ascontiguousarray(images[..., 0] % 2),
    image_ids=[f'id{i}' for i in numbers],
  )


@pytest.fixture(scope='module')
def sharding():
  return input_pipeline.data_sharding()


def _training(data, sharding, *, seed=0, batch_size=4, indices=None):
  indices = np.arange(11) if indices is None else indices
  return iter(
    input_pipeline.training_batches(
      data, indices, batch_size=batch_size, seed=seed, sharding=sharding
    )
  )


def _numbers(iterator, batches):
  drawn = [
    np.asarray(next(iterator)['image'])[:, 0, 0, 0] for _ in range(batches)
  ]
  return [row.tolist() for row in drawn]


def test_select_finds_positions_by_id(data):
  positions = input_pipeline.select(data, ['id7', 'id0'])
  assert positions.tolist() == [7, 0]


def test_training_shuffles_anew_each_epoch_without_doubles(data, sharding):
  # 11 images in batches of 4: two an epoch, three images left out.
  iterator = _training(data, sharding)
  epochs = [np.concatenate(_numbers(iterator, 2)) for _ in range(4)]
  iterator.close()
  assert all(len(set(epoch)) == 8 for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 4


def test_order_follows_from_the_seed(data, sharding):
  drawn = []
  for seed in (0, 0, 1):
    iterator = _training(data, sharding, seed=seed)
    drawn.append(_numbers(iterator, 6))
    iterator.close()
  assert drawn[0] == drawn[1] != drawn[2]


def test_state_continues_where_it_was_taken(data, sharding):
  iterator = _training(data, sharding)
  _numbers(iterator, 3)
  state = iterator.get_state()
  expected = _numbers(iterator, 4)
  iterator.close()
  fresh = _training(data, sharding)
  fresh.set_state(state)
  assert _numbers(fresh, 4) == expected
  fresh.close()


def test_only_the_selected_images_are_dealt_out(data, sharding):
  iterator = _training(data, sharding, indices=np.array([1, 3, 5, 7]))
  assert sorted(_numbers(iterator, 1)[0]) == [1, 3, 5, 7]
  batch = next(iterator)
  iterator.close()
  assert batch['mask'].dtype == np.uint8
  assert np.asarray(batch['mask']).min() == 1  # Odd numbers have full masks.


@pytest.mark.parametrize('batch_size', [1, 4, 11, 16])
def test_evaluation_deals_out_each_image_once(data, sharding, batch_size):
  batches = input_pipeline.evaluation_batches(
    data, np.arange(11), batch_size=batch_size, sharding=sharding
  )
  numbers = []
  for batch in batches:
    assert batch['image'].shape == (batch_size, 2, 2, 3)
    valid = np.asarray(batch['valid'])
    numbers += np.asarray(batch['image'])[valid, 0, 0, 0].tolist()
  assert numbers == list(range(11))


def _of_two(index):
  """The sharding of process `index` of two with a device each."""
  rows = (slice(0, 2), slice(2, 4))[index]
  return types.SimpleNamespace(
    mesh=types.SimpleNamespace(size=2),
    addressable_devices_indices_map=lambda shape: {'a device': (rows,)},
  )


def test_processes_share_out_the_same_global_batches(
  data, sharding, monkeypatch
):
  # Each of two processes puts its half; here their rows are read on the host.
  monkeypatch.setattr(
    jax, 'make_array_from_process_local_data', lambda _, rows: rows
  )
  halves = []
  for half in map(_of_two, (0, 1)):
    training = _training(data, half)
    evaluation = input_pipeline.evaluation_batches(
      data, np.arange(11), batch_size=4, sharding=half
    )
    halves.append(
      (
        [next(training)['image'][:, 0, 0, 0] for _ in range(5)],
        [b['image'][b['valid'], 0, 0, 0] for b in evaluation],
      )
    )
    training.close()
  monkeypatch.undo()
  iterator = _training(data, sharding)
  whole = _numbers(iterator, 5)
  iterator.close()
  joined = [
    np.concatenate(pair).tolist()
    for pair in zip(halves[0][0], halves[1][0], strict=True)
  ]
  assert joined == whole
  scored = [
    np.concatenate(pair)
    for pair in zip(halves[0][1], halves[1][1], strict=True)
  ]
  assert np.concatenate(scored).tolist() == list(range(11))


def test_batch_larger_than_the_data_set_is_refused(data, sharding):
  with pytest.raises(errors.InputError, match=r'train.batch_size is 12.*11'):
    _training(data, sharding, batch_size=12)


def test_batch_that_does_not_divide_among_the_devices_is_refused(data):
  with pytest.raises(
    errors.InputError, match='train.batch_size is 3.*2 devices, such as 4'
  ):
    _training(data, _of_two(0), batch_size=3)
