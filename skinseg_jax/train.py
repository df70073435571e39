"""The training loop."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import tqdm
from flax import nnx

from skinseg_jax import (
  checkpointing,
  compilation,
  config_rules,
  errors,
  evaluation,
  figures,
  metric_writer,
  metrics,
  paper,
  results,
  run_folder,
  scoring,
  train_state,
  train_step,
  trained_model,
  training_side,
)
from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, input_pipeline, sources, splits


@dataclasses.dataclass
class Totals:
  """Sums over updates, exact, from which means and ratios follow."""

  steps: int = 0
  loss: float = 0.0
  tp: int = 0
  fp: int = 0
  fn: int = 0
  tn: int = 0

  def add(self, step_metrics: Mapping[str, np.ndarray]) -> None:
    """Adds one update's loss and counts."""
    self.steps += 1
    for name, value in step_metrics.items():
      setattr(self, name, getattr(self, name) + value.item())

  def scores(self) -> dict[str, float]:
    """Mean loss; Dice and accuracy pooled over all pixels."""
    ratios = metrics.ratios(dataclasses.asdict(self))
    return {
      'loss': self.loss / self.steps,
      'dice': float(ratios['dice']),
      'accuracy': float(ratios['accuracy']),
    }


class Trainer:
  """The loop's state between updates: arrays, position in the data, sums.

  Attributes:
    step: Number of updates made.
    steps_per_epoch: Whole batches in the training images.
  """

  def __init__(
    self,
    config: config_lib.Config,
    workdir: pathlib.Path,
    data: cache.CachedData,
    split: splits.Split,
  ):
    self._config, self._workdir, self._split = config, workdir, split
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
    self._train_step = self._compile(sharding)
    self._iterator = iter(batches)
    self._checkpoints = checkpointing.Checkpoints(
      run_folder.checkpoints_dir(workdir)
    )
    self.step = 0
    self._epoch_totals = Totals()
    self._restore()
    self._writer = metric_writer.MetricWriter(workdir, resume_step=self.step)

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
    """Trains to the end of the current epoch, scores it and saves."""
    train = self._config.train
    epoch, done = divmod(self.step, self.steps_per_epoch)
    began = time.perf_counter()
    with tqdm.tqdm(
      desc=f'epoch {epoch + 1}/{train.epochs}',
      unit='image',
      disable=None,
      total=self.steps_per_epoch * train.batch_size,
      initial=done * train.batch_size,
    ) as bar:
      while self.step < (epoch + 1) * self.steps_per_epoch:
        log_at = min(
          (self.step // train.log_every_steps + 1) * train.log_every_steps,
          (epoch + 1) * self.steps_per_epoch,
        )
        window = self._train_until(log_at, bar)
        bar.set_postfix(loss=f'{window["loss"]:.4f}')
    self._finish_epoch(epoch + 1, time.perf_counter() - began)

  def _train_until(self, step: int, bar: tqdm.tqdm) -> dict[str, float]:
    """Makes updates up to `step`, then waits for them and logs their mean."""
    first, began, pending = self.step, time.perf_counter(), []
    with jax.transfer_guard('disallow'):
      while self.step < step:
        self._state, step_metrics = self._train_step(
          self._static.graphdef, self._state, next(self._iterator)
        )
        pending.append(step_metrics)
        self.step += 1
        bar.update(self._config.train.batch_size)
    window = Totals()
    for step_metrics in jax.device_get(pending):
      window.add(step_metrics)
      self._epoch_totals.add(step_metrics)
    if not np.isfinite(window.loss):
      raise errors.DivergenceError(
        f'the loss is not finite between steps {first + 1} and {self.step};'
        ' the last checkpoint is intact. Lower train.learning_rate, or set'
        " model.compute_dtype to 'float32'."
      )
    images = (self.step - first) * self._config.train.batch_size
    scores = window.scores()
    self._writer.write(
      self.step,
      {
        **{f'train/{name}': value for name, value in scores.items()},
        'train/images_per_second': images / (time.perf_counter() - began),
      },
    )
    return scores

  def _finish_epoch(self, epoch: int, seconds: float) -> None:
    """Scores the validation images, logs the epoch, saves a checkpoint."""
    training, self._epoch_totals = self._epoch_totals.scores(), Totals()
    began = time.perf_counter()
    scored = self.score_validation()
    pooled = metrics.ratios(metrics.pool(scored))
    validation = {
      'loss': float(scored['loss'].mean(dtype=np.float64)),
      'dice': float(pooled['dice']),
      'accuracy': float(pooled['accuracy']),
    }
    images = self.steps_per_epoch * self._config.train.batch_size
    scalars = {
      'epoch/number': epoch,
      **{f'epoch/{name}': value for name, value in training.items()},
      **{f'validation/{name}': value for name, value in validation.items()},
      'epoch/seconds': seconds,
      'epoch/images_per_second': images / seconds,
      'validation/seconds': time.perf_counter() - began,
    }
    self._writer.write(self.step, scalars)
    self._writer.flush()
    self._save(scalars)
    show = lambda s: ', '.join(
      f'{name} {value:.4f}' for name, value in s.items()
    )
    print(
      f'epoch {epoch}: {show(training)}; validation {show(validation)};'
      f' {seconds:.0f} s, {images / seconds:.0f} images/s',
      flush=True,
    )

  def score_validation(self) -> dict[str, np.ndarray]:
    """Scores all validation images with the weights as they are now.

    One view of each: averages over more are for the final scores.
    """
    return scoring.score(
      self._static.eval_graphdef,
      self.model_state,
      self._validation,
      threshold=self._config.evaluation.threshold,
      views='off',
    )

  def trained_model(self) -> trained_model.TrainedModel:
    """The model as it is now."""
    self._checkpoints.wait()
    return trained_model.TrainedModel(
      config=self._config,
      graphdef=self._static.eval_graphdef,
      state=self.model_state,
      step=self.step,
      best=trained_model.best_checkpoint(self._checkpoints),
    )

  def close(self) -> None:
    """Ends all threads; what was saved is on disk after this."""
    self._iterator.close()
    self._checkpoints.close()
    self._writer.close()

  def _save(self, scores: dict[str, float]) -> None:
    self._checkpoints.save(
      self.step,
      checkpointing.Checkpoint(
        model=self._state[0],
        optimizer=self._state[1],
        data=self._iterator.get_state(),
        progress=dataclasses.asdict(self._epoch_totals),
      ),
      scores,
    )

  def _restore(self) -> None:
    """Continues from the last checkpoint of this folder, if there is one."""
    restored = self._checkpoints.restore_latest(
      checkpointing.Checkpoint(self._state[0], self._state[1], None, None)
    )
    if restored is None:
      return
    self.step, checkpoint = restored
    leaves = jax.tree.leaves((checkpoint.model, checkpoint.optimizer))
    self._state = jax.tree.unflatten(jax.tree.structure(self._state), leaves)
    self._iterator.set_state(checkpoint.data)
    self._epoch_totals = Totals(**checkpoint.progress)
    print(f'resuming at step {self.step}', flush=True)


def train_and_evaluate(
  config: config_lib.Config, workdir: pathlib.Path
) -> dict[str, Any]:
  """Prepares what is missing, trains, scores and reports.

  Started again on the same folder it resumes.

  Args:
    config: The experiment.
    workdir: Folder of the run; made if missing.

  Returns:
    The contents of `evaluation/validation/summary.json`, of the last epoch.

  Raises:
    InputError: If config, data or folder do not fit.
    DivergenceError: If the loss leaves the finite numbers.
  """
  config_rules.validate(config)

  # Data.
  source = sources.open_source(config.data)
  split = splits.make_split(config.data, source.metadata)
  run_folder.begin(workdir, config, source, split)
  table = splits.report(split, source.metadata)
  run_folder.write_json(workdir / 'split.json', table.as_dict())
  print(table.table(), flush=True)
  data = cache.open_cache(
    source, config.data.image_size, pathlib.Path(config.data.data_dir)
  )

  # Model.
  trainer = Trainer(config, workdir, data, split)
  parameters = train_state.overview(trainer.model_state)
  (workdir / 'parameters.txt').write_text(parameters + '\n', encoding='utf-8')
  print(
    f'{train_state.count(trainer.model_state, nnx.Param):,} parameters and'
    f' {train_state.count(trainer.model_state, nnx.BatchStat):,} running'
    ' statistics (parameters.txt lists them)'
  )
  dropped = len(split.train) % config.train.batch_size
  print(
    f'{trainer.steps_per_epoch} updates an epoch, reshuffled each epoch;'
    f' each leaves out {dropped} of {len(split.train)} images',
    flush=True,
  )

  # Loop.
  try:
    while trainer.step < config.train.epochs * trainer.steps_per_epoch:
      trainer.train_epoch()
    run_data = training_side.RunData(source, data, split)
    return _report(config, workdir, trainer, run_data)
  finally:
    trainer.close()


def _report(config, workdir, trainer, run_data) -> dict[str, Any]:
  """Scores the last epoch in full, writes the results and prints them."""
  summary = evaluation.evaluate_subset(
    workdir,
    trainer.trained_model(),
    run_data,
    subset='validation',
    options=evaluation.DEFAULT,
  )
  training_side.profile(workdir, run_data)
  figures.training_curves(
    metric_writer.read(workdir),
    workdir / 'figures' / 'curves.png',
    paper_figures=config.data.split == 'paper',
  )
  print(results.describe(summary))
  best = summary['best_checkpoint']
  print(f'best by validation Dice: step {best["step"]}, {best["dice"]:.4f}')
  if config.data.split == 'paper':
    print(paper.comparison(summary))
  print(f'results in {workdir}')
  return summary
