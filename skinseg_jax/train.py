"""Prepares, trains, scores and reports one experiment."""

import contextlib
import pathlib
from typing import Any

from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax import (
  config_rules,
  distributed,
  evaluation,
  faults,
  paper,
  results,
  run_folder,
  stop_signals,
  train_state,
  training_side,
)
from skinseg_jax import trainer as trainer_lib
from skinseg_jax.data import cache, sources, splits


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
    DivergenceError: If loss or weights leave the finite numbers.
    StoppedError: If SIGTERM or SIGINT came; what was done is saved.
  """
  config_rules.validate(config)

  with contextlib.ExitStack() as stack:
    stack.enter_context(faults.explained(workdir))
    stop = stack.enter_context(stop_signals.StopSignals())
    # What process 0 prepares, the other processes find.
    # Nor does going on with a run fetch its data set anew.
    begun = (workdir / 'config.json').exists()
    source = distributed.primary_first(
      lambda: sources.open_source(config.data, download=not begun)
    )
    split = distributed.primary_first(
      lambda: splits.make_split(config.data, source.metadata)
    )
    distributed.primary_first(
      lambda: stack.enter_context(run_folder.locked(workdir))
    )
    return _train(config, workdir, source, split, stop)


def _train(config, workdir, source, split, stop) -> dict[str, Any]:
  # Data.
  distributed.primary_first(
    lambda: run_folder.begin(workdir, config, source, split)
  )
  table = splits.report(split, source.metadata)
  run_folder.write_json(workdir / 'split.json', table.as_dict())
  print(table.table(), flush=True)
  data = distributed.primary_first(
    lambda: cache.open_cache(
      source, config.data.image_size, pathlib.Path(config.data.data_dir)
    )
  )

  # Model.
  trainer = trainer_lib.Trainer(config, workdir, data, split, stop)
  if distributed.is_primary():
    parameters = train_state.overview(trainer.model_state)
    path = workdir / 'parameters.txt'
    path.write_text(parameters + '\n', encoding='utf-8')
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
    with stop.deferred():
      while trainer.epochs_done < config.train.epochs:
        trainer.train_epoch()
      model = trainer.trained_model()  # When the last save is whole.
    run_data = training_side.RunData(source, data, split)
    return _report(config, workdir, model, run_data)
  finally:
    trainer.close()


def _report(config, workdir, model, run_data) -> dict[str, Any]:
  """Scores the last epoch in full, writes results and report, prints."""
  summary = evaluation.evaluate_subset(
    workdir,
    model,
    run_data,
    subset='validation',
    options=evaluation.Options(report=True),
  )
  if not distributed.is_primary():
    return summary
  training_side.profile(workdir, run_data)
  print(results.describe(summary))
  best = summary['best_checkpoint']
  print(f'best by validation Dice: step {best["step"]}, {best["dice"]:.4f}')
  if config.data.split == 'paper':
    print(paper.comparison(summary))
  print(f'results in {workdir}, to be read in report.html')
  return summary
