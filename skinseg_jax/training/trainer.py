"""Trains a model epoch by epoch and saves its state."""

import dataclasses
import functools
import pathlib
import time
from typing import Any, NoReturn

import jax
import numpy as np
import tqdm

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, input_pipeline, splits
from skinseg_jax.evaluation import scoring
from skinseg_jax.inference import trained_model
from skinseg_jax.metrics import confusion
from skinseg_jax.run import checkpointing, metric_writer, run_folder
from skinseg_jax.runtime import compilation, errors, stop_signals
from skinseg_jax.training import diagnosis, progress, train_state, train_step

# If an update takes longer than this, in seconds, the loop waits for it before
# it starts the next. The device is then idle for a small share of the time, but
# a signal to stop waits for only one update, not two.
_LONG_STEP = 0.1


class Trainer:
  """The loop's state between updates: arrays, position in the data, sums.

  Attributes:
    step: Number of updates made.
    steps_per_epoch: Number of whole batches in the training images.
  """

  def __init__(
    self,
    config: config_lib.Config,
    workdir: pathlib.Path,
    data: cache.CachedData,
    split: splits.Split,
    initial_weights: dict[str, Any],
    stop: stop_signals.StopSignals,
  ):
    self._config, self._data, self._split = config, data, split
    self._stop = stop
    sharding = input_pipeline.data_sharding()
    indices = input_pipeline.select(data, split.train)
    batches = input_pipeline.training_batches(
      data,
      indices,
      batch_size=config.train.batch_size,
      seed=config.train.seed,
      sharding=sharding,
    )
    self._validation = input_pipeline.evaluation_batches(
      data,
      input_pipeline.select(data, split.validation),
      batch_size=config.evaluation.batch_size,
      sharding=sharding,
    )
    self.steps_per_epoch = len(indices) // config.train.batch_size
    self._static = train_state.create(
      config,
      sharding,
      num_updates=config.train.epochs * self.steps_per_epoch,
    )
    self._state = self._static.state
    # Keep no second reference: a checkpoint may replace the state below.
    self._static = dataclasses.replace(self._static, state=None)
    self._train_step = self._compile(sharding)
    self._iterator = iter(batches)
    self.step = 0
    self._progress = progress.Progress()
    with stop.deferred():  # Orbax would report an interrupted read as damage.
      self._checkpoints = checkpointing.Checkpoints(
        run_folder.checkpoints_dir(workdir)
      )
      if not self._restore():
        self._state = train_state.with_initial_weights(
          dataclasses.replace(self._static, state=self._state),
          config,
          initial_weights,
        )
    self._writer = metric_writer.MetricWriter(
      workdir, lines=self._progress.lines
    )

  @property
  def epochs_done(self) -> int:
    """Number of epochs that are trained and scored."""
    return (self.step - self._progress.epoch.steps) // self.steps_per_epoch

  @property
  def model_state(self) -> Any:
    """Parameters and running statistics as they are now."""
    return self._state[0]

  def _compile(self, sharding: jax.sharding.NamedSharding) -> Any:
    """Compiles the training step for batches of the config's size."""
    size = (self._config.train.batch_size, *self._config.data.image_size)
    uint8 = functools.partial(
      jax.ShapeDtypeStruct, dtype=np.uint8, sharding=sharding
    )
    began = time.perf_counter()
    compiled = compilation.compile_step(
      train_step.train_step,
      self._static.graphdef,
      self._state,
      {'image': uint8((*size, 3)), 'mask': uint8(size)},
      xla_options=self._config.train.xla_options,
      config=self._config,
    )
    seconds = time.perf_counter() - began
    print(f'compiled the training step in {seconds:.1f} s', flush=True)
    return compiled

  def train_epoch(self) -> None:
    """Trains to the end of the current epoch, scores it and saves.

    Raises:
      StoppedError: If a signal arrived; the progress so far is saved.
      DivergenceError: If loss or weights are no longer finite.
    """
    train, epoch = self._config.train, self.epochs_done + 1
    end = epoch * self.steps_per_epoch
    with tqdm.tqdm(
      desc=f'epoch {epoch}/{train.epochs}',
      unit='image',
      disable=None,
      total=self.steps_per_epoch * train.batch_size,
      initial=self._progress.epoch.steps * train.batch_size,
    ) as bar:
      while self.step < end:
        self._train_until(self._next_pause(end), bar)
        due = self.step == end or self.step % train.log_every_steps == 0
        if due and self._progress.window.steps:
          bar.set_postfix(loss=f'{self._log_window():.4f}')
        every = train.checkpoint_every_steps
        if self._stop.requested:
          self._save_and_stop()
        elif every and self.step % every == 0 and self.step < end:
          self._save(None)
    self._finish_epoch(epoch)

  def _next_pause(self, end: int) -> int:
    """The next step after which something is written; `end` at the latest."""
    train = self._config.train
    intervals = (train.log_every_steps, train.checkpoint_every_steps or end)
    return min(end, *((self.step // n + 1) * n for n in intervals))

  def _train_until(self, step: int, bar: tqdm.tqdm) -> None:
    """Makes updates until `step` or a signal, then adds up their results."""
    first, began, pending, long = self.step, time.perf_counter(), [], True
    with jax.transfer_guard('disallow'):
      while self.step < step and not self._stop.reached(self.step):
        step_began = time.perf_counter()
        self._state, step_metrics = self._train_step(
          self._static.graphdef, self._state, next(self._iterator)
        )
        pending.append(step_metrics)
        jax.block_until_ready(pending[-1 if long else -2 :][0])
        long = time.perf_counter() - step_began > _LONG_STEP
        self.step += 1
        bar.update(self._config.train.batch_size)
    for number, step_metrics in enumerate(jax.device_get(pending), first + 1):
      if not step_metrics['finite']:
        raise self._divergence(first, number)
      self._progress.window.add(step_metrics)
      self._progress.epoch.add(step_metrics)
    seconds = time.perf_counter() - began
    self._progress.window.seconds += seconds
    self._progress.epoch.seconds += seconds
    self._checkpoints.check()

  def _divergence(self, first: int, step: int) -> errors.DivergenceError:
    train = self._config.train
    order = input_pipeline.training_order(
      input_pipeline.select(self._data, self._split.train),
      batch_size=train.batch_size,
      seed=train.seed,
    )
    self._checkpoints.wait()
    return diagnosis.divergence(
      steps=(first + 1, self.step),
      bad_step=step,
      image_ids=[self._data.image_ids[i] for i in order[step - 1]],
      last_checkpoint=self._checkpoints.latest_step,
    )

  def _log_window(self) -> float:
    """Logs the updates since the last line; returns their mean loss."""
    window = self._progress.window
    self._progress.window = progress.Totals()
    scores = window.scores()
    images = window.steps * self._config.train.batch_size
    self._writer.write(
      self.step,
      {
        **{f'train/{name}': value for name, value in scores.items()},
        'train/images_per_second': images / window.seconds,
      },
    )
    return scores['loss']

  def _finish_epoch(self, epoch: int) -> None:
    """Scores the validation images, logs the epoch, saves a checkpoint."""
    began = time.perf_counter()
    try:
      scored = self.score_validation()
    except errors.StoppedError:
      self._save_and_stop()
    sums = self._progress.epoch
    self._progress.epoch = progress.Totals()
    training, counts = sums.scores(), confusion.pool(scored)
    pooled = confusion.ratios(counts)
    validation = {
      'loss': float(scored['loss'].mean(dtype=np.float64)),
      'dice': float(pooled['dice']),
      'accuracy': float(pooled['accuracy']),
    }
    images = sums.steps * self._config.train.batch_size
    scalars = {
      'epoch/number': epoch,
      **{f'epoch/{name}': value for name, value in training.items()},
      **{f'validation/{name}': value for name, value in validation.items()},
      'epoch/seconds': sums.seconds,
      'epoch/images_per_second': images / sums.seconds,
      'validation/seconds': time.perf_counter() - began,
    }
    self._writer.write(self.step, scalars)
    self._progress.one_sided = diagnosis.count_one_sided(
      counts, self._progress.one_sided
    )
    self._save(scalars)
    show = lambda s: ', '.join(
      f'{name} {value:.4f}' for name, value in s.items()
    )
    print(
      f'epoch {epoch}: {show(training)}; validation {show(validation)};'
      f' {sums.seconds:.0f} s, {images / sums.seconds:.0f} images/s',
      flush=True,
    )

  def score_validation(self) -> dict[str, np.ndarray]:
    """Scores all validation images with the weights as they are now.

    Each image is predicted from one view; test-time augmentation is only used
    for the final scores.
    """
    return scoring.score(
      self._static.eval_graphdef,
      self.model_state,
      self._stop.heeded(self._validation),
      threshold=self._config.evaluation.threshold,
      views='off',
    )

  def trained_model(self) -> trained_model.TrainedModel:
    """The model in its current state."""
    self._checkpoints.wait()
    return trained_model.TrainedModel(
      config=self._config,
      graphdef=self._static.eval_graphdef,
      state=self.model_state,
      step=self.step,
      best=trained_model.best_checkpoint(self._checkpoints),
    )

  def close(self) -> None:
    """Ends all threads; afterwards, everything saved is on disk."""
    self._iterator.close()
    self._checkpoints.close()
    self._writer.close()

  def _save(self, scores: dict[str, float] | None) -> None:
    """Saves the progress so far; first writes the log up to this step."""
    self._writer.flush()
    self._progress.lines = self._writer.lines
    self._checkpoints.save(
      self.step,
      checkpointing.Checkpoint(
        model=self._state[0],
        optimizer=self._state[1],
        data=self._iterator.get_state(),
        progress=self._progress.as_dict(),
      ),
      scores,
    )

  def _save_and_stop(self) -> NoReturn:
    began = time.perf_counter()
    if self._checkpoints.latest_step != self.step:
      self._save(None)
    self._checkpoints.wait()
    print(f'saved step {self.step} in {time.perf_counter() - began:.2f} s')
    self._stop.check()
    raise AssertionError('a stop was requested, so check() raises')

  def _restore(self) -> bool:
    """Continues from the last checkpoint of this folder, if there is one."""
    restored = self._checkpoints.restore_latest(
      checkpointing.Checkpoint(self._state[0], self._state[1], None, None)
    )
    if restored is None:
      return False
    self.step, checkpoint = restored
    leaves = jax.tree.leaves((checkpoint.model, checkpoint.optimizer))
    self._state = jax.tree.unflatten(jax.tree.structure(self._state), leaves)
    self._iterator.set_state(checkpoint.data)
    self._progress = progress.Progress.from_dict(checkpoint.progress)
    print(f'resuming at step {self.step}', flush=True)
    return True
