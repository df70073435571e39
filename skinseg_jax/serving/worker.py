"""One thread that predicts the pictures of all requests in batches."""

import concurrent.futures
import queue
import threading
from collections.abc import Callable

import numpy as np

from skinseg_jax.inference import predictor, trained_model

# Pictures of one forward pass. Each size is a compiled program; a batch uses
# the smallest that holds it.
_BATCH_SIZES = (1, 2, 4, 8)

_Future = concurrent.futures.Future[predictor.Answer]
_Item = tuple[np.ndarray, _Future]


class Worker:
  """Predicts in a thread of its own.

  A batch is whatever waits when the thread is free, so a request that is alone
  does not wait for others. The caller bounds how many requests there are.
  """

  def __init__(
    self,
    model: trained_model.TrainedModel,
    counted: Callable[[int], None] = lambda pictures: None,
  ):
    """Compiles nothing yet.

    Args:
      model: What predicts.
      counted: Called with the number of pictures of each batch.
    """
    self._model = model.on_this_process()
    self._counted = counted
    self._sizes = sorted(
      {predictor.whole_batch(self._model, size) for size in _BATCH_SIZES}
    )
    # None asks the thread to end.
    self._waiting: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
    self._thread = threading.Thread(target=self._run, name='predict')

  def start(self) -> None:
    """Compiles the programs, which takes seconds, and starts the thread."""
    black = np.zeros((*self._model.config.data.image_size, 3), np.uint8)
    for size in self._sizes:
      predictor.answers(self._model, [[black]], size)
    self._thread.start()

  def submit(self, image: np.ndarray) -> _Future:
    """Queues a picture.

    Args:
      image: RGB, uint8 [H, W, 3], of the model's size.

    Returns:
      What the model says about it, without the views.
    """
    answer: _Future = concurrent.futures.Future()
    self._waiting.put((image, answer))
    return answer

  @property
  def waiting(self) -> int:
    """Pictures that no batch has taken yet."""
    return self._waiting.qsize()

  def close(self) -> None:
    """Ends the thread when everything that was queued is predicted."""
    self._waiting.put(None)
    self._thread.join()

  def _run(self) -> None:
    while batch := self._next_batch():
      # Requests that were cancelled are left out.
      batch = [i for i in batch if i[1].set_running_or_notify_cancel()]
      if batch:
        self._predict(batch)

  def _next_batch(self) -> list[_Item]:
    """Waits for one picture and takes those that wait behind it."""
    item = self._waiting.get()
    batch = []
    while item is not None:
      batch.append(item)
      if len(batch) == self._sizes[-1]:
        return batch
      try:
        item = self._waiting.get_nowait()
      except queue.Empty:
        return batch
    if batch:
      self._waiting.put(None)  # End after this batch.
    return batch

  def _predict(self, batch: list[_Item]) -> None:
    size = next(size for size in self._sizes if size >= len(batch))
    try:
      found = predictor.answers(self._model, [[i] for i, _ in batch], size)
    except Exception as error:  # The requests fail; the thread goes on.
      for _, answer in batch:
        answer.set_exception(error)
      return
    self._counted(len(batch))
    for (_, answer), one in zip(batch, found, strict=True):
      answer.set_result(one)
